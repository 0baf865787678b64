"""Small PDB files by hand: residues in a row, 3.8 angstrom from CA to CA and bonded, unless told otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PLACES = {
    "N": (0.0, 0.0, 0.0),
    "CA": (1.46, 0.0, 0.0),
    "C": (2.4, 1.2, 0.0),
    "O": (2.2, 2.4, 0.0),
    "CB": (1.5, -1.0, 1.1),
}
STEP = np.array([3.5, 1.6, 0.0])
BACKBONE = ("N", "CA", "C", "O")


def atom(
    name: str,
    residue: str = "ALA",
    number: int | str = 1,
    *,
    chain: str = "A",
    code: str = " ",
    altloc: str = " ",
    occupancy: float = 1.0,
    b_factor: float = 20.0,
    place: float = 0.0,
    shift: Sequence[float] = (0.0, 0.0, 0.0),
    record: str = "ATOM",
    serial: int | str = 1,
    element: str = "",
) -> str:
    """One atom line; `place` counts residues along the chain."""
    x, y, z = np.array(PLACES.get(name, (1.0, -2.0, 1.0))) + place * STEP + np.array(shift)
    full_name = name if len(name) == 4 else f" {name:<3}"
    return (
        f"{record:<6}{serial:>5} {full_name}{altloc}{residue:>3} {chain}{number:>4}{code}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{b_factor:6.2f}          {element or name[0]:>2}  \n"
    )


def residue(name: str, number: int | str, place: float, atoms: Sequence[str] = BACKBONE, **options) -> str:
    """All lines of a residue."""
    return "".join(atom(each, name, number, place=place, **options) for each in atoms)


def chain(names: Sequence[str], first: int = 1, chain: str = "A", **options) -> str:
    """Consecutive bonded residues."""
    return "".join(residue(name, first + index, index, chain=chain, **options) for index, name in enumerate(names))
