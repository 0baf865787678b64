"""What the programs ask of the processor holds, where it can be asked."""

import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, torch
from protein_model.processor import keep_memory
torch.set_num_threads(1)
done = keep_memory()
def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.zeros(12_000_000).add_(1)  # 48 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults(5)
print(done, first, min(faults(5) for _ in range(5)))
"""


def _pages(**environment: str) -> tuple[bool, int, int]:
    """Whether memory is kept, and the pages that the system provided for five arrays, and for five more at best."""
    program = [sys.executable, "-c", PAGES]
    ended = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    done, first, later = ended.stdout.split()
    return done == "True", int(first), int(later)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_is_provided_once():
    done, first, later = _pages()
    assert done
    assert later < first / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_the_environment_decides():
    done, first, later = _pages(MALLOC_TRIM_THRESHOLD_="131072")
    assert not done
    assert later > first / 2
