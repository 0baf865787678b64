"""Real coordinates -> arrays and back: reading and writing of structure and sequence files, residue tables.

NumPy, gemmi and Biopython only, nothing else of the package but the base of its errors.
"""

from .errors import StructureError
from .files import (
    LIST_ENDINGS,
    STRUCTURE_ENDINGS,
    find_structure_files,
    missing_files,
    structure_name,
    walk_structure_files,
)
from .reading import read_structure
from .residues import (
    CHI_ATOMS,
    CHI_PI_PERIODIC,
    HEAVY_ATOMS,
    RESIDUE_LETTERS,
    RESIDUE_NAMES,
    UNKNOWN_RESIDUE,
    encode_sequence,
    sequence_of,
)
from .structure import BACKBONE_ATOM_COUNT, MAX_HEAVY_ATOMS, Structure
from .writing import read_fasta, write_fasta, write_structure

__all__ = [
    "BACKBONE_ATOM_COUNT",
    "CHI_ATOMS",
    "CHI_PI_PERIODIC",
    "HEAVY_ATOMS",
    "LIST_ENDINGS",
    "MAX_HEAVY_ATOMS",
    "RESIDUE_LETTERS",
    "RESIDUE_NAMES",
    "STRUCTURE_ENDINGS",
    "UNKNOWN_RESIDUE",
    "Structure",
    "StructureError",
    "encode_sequence",
    "find_structure_files",
    "missing_files",
    "read_fasta",
    "read_structure",
    "sequence_of",
    "structure_name",
    "walk_structure_files",
    "write_fasta",
    "write_structure",
]
