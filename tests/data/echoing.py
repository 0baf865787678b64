"""A worker that sends back what it is sent, and prints something, or ends with the exit status that it is told."""

from __future__ import annotations

import os
import sys

from protein_model.data.subprocesses import begin_to_serve


def serve() -> None:
    send = begin_to_serve()
    for line in sys.stdin:
        print("what a library prints")
        if line.startswith("exit "):
            os._exit(int(line.split()[1]))
        send(echo=line.strip(), arguments=sys.argv[3:])
