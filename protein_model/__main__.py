"""`python -m protein_model COMMAND`: everything beside training itself.

Each command imports what it needs only when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from .commands import cache, convert, design, evaluate, export, inspect, push, score
from .errors import UserError, in_words
from .processor import keep_memory

COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "cache": (cache.main, "build the data set of a folder of PDB / mmCIF files"),
    "convert": (convert.main, "checkpoint folder to a single .pt file, and back"),
    "design": (design.main, "design sequences for structures"),
    "evaluate": (evaluate.main, "measure recovery and perplexity on structures"),
    "export": (export.main, "a trained model as a folder of its own, to share or to ship"),
    "inspect": (inspect.main, "show what is in a checkpoint, and whether it is whole"),
    "push": (push.main, "push a trained model to the Hugging Face Hub"),
    "score": (score.main, "score sequences on structures, and all their single mutants"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    the exit status: 0 done, 1 done for a part of the files, 2 impossible as asked, 130 stopped by Ctrl-C
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m protein_model COMMAND [options]\n")
        for name, (_, text) in COMMANDS.items():
            print(f"  {name:10s} {text}")
        print("\nOptions of a command: python -m protein_model COMMAND --help")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"error: unknown command {arguments[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    keep_memory()
    try:
        return COMMANDS[arguments[0]][0](arguments[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full or gone, in the midst of the work
        print(f"error: {in_words(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        advice = "the same command goes on" if arguments[0] == "design" else "give the same command again"
        print(f"stopped by Ctrl-C; {advice}", file=sys.stderr)
        return cache.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
