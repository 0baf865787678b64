"""Residue types, their heavy atoms and side-chain torsions, and the parents of modified residues.

Pure tables and look-ups. Which atoms and residues of a file are used is decided in `reading`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from Bio.Data.PDBData import protein_letters_3to1_extended

RESIDUE_LETTERS = "ACDEFGHIKLMNPQRSTVWYX"
UNKNOWN_RESIDUE = 20
RESIDUE_NAMES = (
    "ALA", "CYS", "ASP", "GLU", "PHE", "GLY", "HIS", "ILE", "LYS", "LEU", "MET",
    "ASN", "PRO", "GLN", "ARG", "SER", "THR", "VAL", "TRP", "TYR", "UNK",
)  # fmt: skip

# Side chains branch by branch outwards from CB, the order of the PDB format (version 3.3).
_SIDE_CHAINS = {
    "A": "CB",
    "C": "CB SG",
    "D": "CB CG OD1 OD2",
    "E": "CB CG CD OE1 OE2",
    "F": "CB CG CD1 CD2 CE1 CE2 CZ",
    "G": "",
    "H": "CB CG ND1 CD2 CE1 NE2",
    "I": "CB CG1 CG2 CD1",
    "K": "CB CG CD CE NZ",
    "L": "CB CG CD1 CD2",
    "M": "CB CG SD CE",
    "N": "CB CG OD1 ND2",
    "P": "CB CG CD",
    "Q": "CB CG CD OE1 NE2",
    "R": "CB CG CD NE CZ NH1 NH2",
    "S": "CB OG",
    "T": "CB OG1 CG2",
    "V": "CB CG1 CG2",
    "W": "CB CG CD1 CD2 NE1 CE2 CE3 CZ2 CZ3 CH2",
    "Y": "CB CG CD1 CD2 CE1 CE2 CZ OH",
    "X": "CB",
}
HEAVY_ATOMS: tuple[tuple[str, ...], ...] = tuple(
    ("N", "CA", "C", "O", *_SIDE_CHAINS[letter].split()) for letter in RESIDUE_LETTERS
)

_CHI_ENDS = {
    "C": "SG",
    "D": "CG OD1",
    "E": "CG CD OE1",
    "F": "CG CD1",
    "H": "CG ND1",
    "I": "CG1 CD1",
    "K": "CG CD CE NZ",
    "L": "CG CD1",
    "M": "CG SD CE",
    "N": "CG OD1",
    "P": "CG CD",
    "Q": "CG CD OE1",
    "R": "CG CD NE CZ",
    "S": "OG",
    "T": "OG1",
    "V": "CG1",
    "W": "CG CD1",
    "Y": "CG CD1",
}


def _chi_quadruples(letter: str) -> tuple[tuple[str, str, str, str], ...]:
    # Each torsion goes one atom further along N, CA, CB and the fourth atoms of the torsions before it.
    path = ["N", "CA", "CB", *_CHI_ENDS.get(letter, "").split()]
    return tuple((path[i], path[i + 1], path[i + 2], path[i + 3]) for i in range(len(path) - 3))


# Atoms of chi 1 to 4 by residue type (IUPAC-IUB 1970; the choice of branches is that of the Dunbrack rotamer library).
CHI_ATOMS: tuple[tuple[tuple[str, str, str, str], ...], ...] = tuple(map(_chi_quadruples, RESIDUE_LETTERS))

# Torsions whose last atom has an indistinguishable twin, so that chi and chi + 180 degrees are the same conformation.
_TWINS = {"D": 2, "E": 3, "F": 2, "Y": 2}
CHI_PI_PERIODIC: tuple[tuple[bool, ...], ...] = tuple(
    tuple(_TWINS.get(letter) == number for number in range(1, len(CHI_ATOMS[index]) + 1))
    for index, letter in enumerate(RESIDUE_LETTERS)
)

# Names that Biopython's table, made from the wwPDB Chemical Component Dictionary, lacks or reads otherwise: protonation
# and disulphide states of the AMBER and CHARMM force fields, and genetically coded residues beyond the twenty. GLH and
# HSE are rare components of the dictionary (a glutamine, homoserine) but in practice states of glutamate and histidine.
_FURTHER_PARENTS = {
    "ARN": "R",
    "ASH": "D",
    "CYM": "C",
    "CYX": "C",
    "GLH": "E",
    "HID": "H",
    "HIE": "H",
    "HIP": "H",
    "HSD": "H",
    "HSE": "H",
    "HSP": "H",
    "LYN": "K",
    "TYM": "Y",
    "SEC": "C",
    "PYL": "K",
    "ASX": "X",  # aspartate or asparagine, glutamate or glutamine: the file does not say which
    "GLX": "X",
    "XLE": "X",
    "UNK": "X",
}
_PARENT_LETTERS = {name.strip(): letter for name, letter in protein_letters_3to1_extended.items()} | _FURTHER_PARENTS
_TYPE_OF_LETTER = {letter: index for index, letter in enumerate(RESIDUE_LETTERS)}
_TYPE_OF_NAME = {name: _TYPE_OF_LETTER[letter] for name, letter in _PARENT_LETTERS.items() if letter in _TYPE_OF_LETTER}

# (parent, atom name in the file, the parent's atom): the same position of the side chain under another name. Used only
# where the file does not have the parent's own name in that residue.
ATOM_ALIASES: tuple[tuple[str, str, str], ...] = (
    ("M", "SE", "SD"),  # selenomethionine
    ("C", "SE", "SG"),  # selenocysteine
    ("I", "CD", "CD1"),  # CHARMM and GROMACS
    ("Q", "OE", "OE1"),  # pyroglutamate
    *((letter, oxygen, "O") for letter in RESIDUE_LETTERS for oxygen in ("OT1", "OC1")),  # CHARMM, GROMACS: C-terminus
)


def parent_type(name: str) -> int | None:
    """Residue type of a three-letter name, of a modified residue that of its parent.

    Parameters
    ----------
    name : component name as in the file, such as MSE or HIE

    Returns
    -------
    index into `RESIDUE_LETTERS` (20 for residues that are known to be of no single type), None for a name that
    neither Biopython's table of modified residues nor the force fields have
    """
    return _TYPE_OF_NAME.get(name)


def sequence_of(residue_type: Iterable[int] | np.ndarray) -> str:
    """One-letter sequence of residue types.

    Parameters
    ----------
    residue_type : (N,) integers, 0 to 20

    Raises
    ------
    ValueError : a number is no residue type
    """
    types = np.asarray(residue_type if isinstance(residue_type, np.ndarray) else list(residue_type), np.int64)
    if len(types) and (types.min() < 0 or types.max() > UNKNOWN_RESIDUE):
        raise ValueError(f"residue types must be 0 to {UNKNOWN_RESIDUE}, found {types.min()} to {types.max()}")
    return _LETTER_CODES[types].tobytes().decode("ascii")


def encode_sequence(sequence: str) -> np.ndarray:
    """Residue types of a one-letter sequence, in either case.

    Letters for ambiguous residues (B, J, Z, X) become 20; U and O become their parents C and K.

    Returns
    -------
    (N,) int8

    Raises
    ------
    ValueError : a character is no residue letter; the message names the first and its place, counted from 1
    """
    codes = np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)
    types = _TYPE_CODES[codes]
    if (types < 0).any():
        place = int(np.argmax(types < 0))
        raise ValueError(f"{sequence[place]!r} at place {place + 1} of the sequence is no residue letter")
    return types


def _type_codes() -> np.ndarray:
    codes = np.full(256, -1, np.int8)
    letters = {**_TYPE_OF_LETTER, "B": 20, "J": 20, "Z": 20, "U": _TYPE_OF_LETTER["C"], "O": _TYPE_OF_LETTER["K"]}
    for letter, index in letters.items():
        codes[[ord(letter), ord(letter.lower())]] = index
    return codes


_LETTER_CODES = np.frombuffer(RESIDUE_LETTERS.encode("ascii"), np.uint8)
_TYPE_CODES = _type_codes()
