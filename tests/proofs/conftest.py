"""What the proofs share: one fork server, one folder of small structures, one cache."""

import os
import shutil
from pathlib import Path

import pytest

from protein_model.training.arguments import EXAMPLES
from tests.proofs.launches import ForkServer
from tests.proofs.runs import STRUCTURES


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Starts training runs within milliseconds."""
    fork_server = ForkServer(tmp_path_factory.mktemp("launches"))
    yield fork_server
    fork_server.close()


@pytest.fixture(scope="session")
def structures(tmp_path_factory) -> Path:
    """A folder with the smallest example structures."""
    folder = tmp_path_factory.mktemp("structures")
    for path in sorted(EXAMPLES.glob("*.gz"), key=lambda path: path.stat().st_size)[:STRUCTURES]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory) -> Path:
    """Cache shared by all runs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def deterministic_option(server) -> bool:
    """`train_accelerate.py` has the option `--deterministic`."""
    launch = server.launch(["--help"])
    assert launch.wait() == [0], launch.output()
    return "--deterministic" in launch.output()


@pytest.fixture
def figures(capsys):
    """Print one line of figures, past pytest's capture: `figures("kill proof: ...")`."""

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}", flush=True)

    return show


@pytest.fixture
def proof_size(request):
    """How much to do: `proof_size("PROOF_KILLS", 300)` is that environment variable, else 300."""

    def size(variable: str, default: int) -> int:
        return int(os.environ.get(variable, default))

    return size
