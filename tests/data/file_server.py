"""A web server on the loopback interface for the files of a folder, which fails as it is told to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Rule = Callable[[str], "str | None"]


class FileServer:
    """Use it as a context manager.

    Attributes
    ----------
    url : of the folder
    rule : asked for the name of every file that is to be sent; gives None, a status such as "503", or "cut" for a
        connection that breaks half-way
    sent : times that the content of each file was asked for
    """

    def __init__(self, folder: Path):
        self.rule: Rule = lambda name: None
        self.sent: Counter[str] = Counter()
        server_state = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: object) -> None:
                super().__init__(*arguments, directory=str(folder))

            def log_message(self, format: str, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                server_state.sent[name] += 1
                failure = server_state.rule(name)
                if failure is None:
                    super().do_GET()
                elif failure == "cut":
                    content = (folder / name).read_bytes()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                else:
                    self.send_error(int(failure))

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FileServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
