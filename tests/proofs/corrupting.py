"""Random damage to the files of checkpoints, and its repair."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

MANIFEST = "manifest.json"
KINDS = (
    "flip",
    "truncate",
    "empty",
    "delete",
    "append",
    "insert",
    "zero",
    "swap with another checkpoint",
    "swap within the checkpoint",
    "delete a folder",
    "add a file",
)


class Checkpoints:
    """The checkpoints of a run, which can be damaged and put right again.

    Parameters
    ----------
    save_dir : of a finished run

    Attributes
    ----------
    steps : optimizer steps of each checkpoint, by its name
    """

    def __init__(self, save_dir: Path):
        self.save_dir = save_dir
        folders = sorted(path.parent for path in save_dir.glob(f"*/{MANIFEST}"))
        self._contents = {
            path: path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()
        }
        self.steps: dict[str, int] = {
            folder.name: json.loads((folder / MANIFEST).read_text())["checkpoint"]["step"] for folder in folders
        }
        self._touched: set[Path] = set()

    def files(self, name: str) -> list[Path]:
        """Every file of a checkpoint."""
        return [path for path in self._contents if self._checkpoint(path) == name]

    def damage(self, name: str, kind: str, randomness: random.Random) -> set[str]:
        """Damage a checkpoint in one way. Returns the names of all that are damaged now, none if nothing changed."""
        path = randomness.choice(self.files(name))
        content = bytearray(self._contents[path])
        if kind == "flip":
            for _ in range(randomness.randint(1, 8)):
                content[randomness.randrange(len(content))] ^= 1 << randomness.randrange(8)
        elif kind == "truncate":
            del content[randomness.randrange(len(content)) :]
        elif kind == "empty":
            content.clear()
        elif kind == "append":
            content += randomness.randbytes(randomness.randint(1, 64))
        elif kind == "insert":
            place = randomness.randrange(len(content))
            content[place:place] = randomness.randbytes(randomness.randint(1, 64))
        elif kind == "zero":  # what a power failure leaves of a block that had not reached the disk
            place = randomness.randrange(len(content))
            end = min(len(content), place + 4096)
            content[place:end] = bytes(end - place)
        elif kind == "add a file":
            stranger = (
                self.save_dir / name / "state" / randomness.choice(("random_states_0.pkl", "pytorch_model.bin", "x"))
            )
            return self._write(stranger, randomness.randbytes(20))
        elif kind == "delete":
            return self._remove(path)
        elif kind == "delete a folder":
            return self._remove(self.save_dir / name / "state")
        elif kind.startswith("swap"):
            return self._swap(path, kind, randomness)
        return self._write(path, bytes(content))

    def repair(self) -> None:
        """Undo all damage."""
        for path in self._touched:
            if path in self._contents:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(self._contents[path])
            else:
                path.unlink(missing_ok=True)
        self._touched.clear()

    def _swap(self, path: Path, kind: str, randomness: random.Random) -> set[str]:
        name = self._checkpoint(path)
        if kind == "swap within the checkpoint":
            other = randomness.choice([file for file in self.files(name) if file != path])
        else:
            place = path.relative_to(self.save_dir / name)
            other = self.save_dir / randomness.choice([n for n in self.steps if n != name]) / place
        if other in self._touched or path in self._touched or other not in self._contents:
            return set()
        return self._write(path, self._contents[other]) | self._write(other, self._contents[path])

    def _write(self, path: Path, content: bytes) -> set[str]:
        if content == self._contents.get(path) or not path.parent.is_dir():
            return set()
        self._touched.add(path)
        path.write_bytes(content)
        return {self._checkpoint(path)}

    def _remove(self, path: Path) -> set[str]:
        self._touched.update(file for file in self._contents if file == path or path in file.parents)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return {self._checkpoint(path)}

    def _checkpoint(self, path: Path) -> str:
        return path.relative_to(self.save_dir).parts[0]
