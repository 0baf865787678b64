"""A second reader of structure files, on Bio.PDB, atom by atom in plain Python, to hold `read_structure` against.

It follows the decisions listed in `protein_model.structures.reading`, but shares nothing with that module but the
tables of residue and atom names. Also the measure of "the same with Biopython" in the reading benchmark.
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from Bio.PDB.Atom import Atom
from Bio.PDB.Chain import Chain
from Bio.PDB.MMCIFParser import MMCIFParser
from Bio.PDB.PDBParser import PDBParser
from Bio.PDB.Residue import Residue

from protein_model.structures.residues import ATOM_ALIASES, HEAVY_ATOMS, RESIDUE_LETTERS, parent_type

ALIASES = {(letter, alias): name for letter, alias, name in ATOM_ALIASES}


@dataclass
class OracleResidue:
    """One residue; atoms by their place among the heavy atoms of the type."""

    chain: str
    number: int
    insertion_code: str
    residue_type: int
    het: bool
    label: int | None
    region: str  # "before TER", "after TER" or "" where TER says nothing
    modified: bool = False  # MODRES names it
    atoms: dict[int, Atom] = field(default_factory=dict)

    def bonded_to(self, after: OracleResidue) -> bool:
        if 2 in self.atoms and 0 in after.atoms:
            return math.dist(self.atoms[2].coord, after.atoms[0].coord) <= 2.5
        if 1 in self.atoms and 1 in after.atoms:
            return math.dist(self.atoms[1].coord, after.atoms[1].coord) <= 4.3
        if self.label is not None and after.label is not None:
            return after.label - self.label == 1
        step = after.number - self.number
        return step == 1 or (step == 0 and self.insertion_code != after.insertion_code)


@dataclass
class OracleStructure:
    """The same arrays as `Structure` has, and which neighbours are bonded."""

    residue_type: np.ndarray
    coordinates: np.ndarray
    atom_mask: np.ndarray
    b_factor: np.ndarray
    occupancy: np.ndarray
    chain_index: np.ndarray
    chain_ids: tuple[str, ...]
    residue_number: np.ndarray
    insertion_code: np.ndarray
    label: list[int | None]
    bonded: np.ndarray
    resolution: float | None
    method: str


def read_with_biopython(path: Path) -> OracleStructure:
    """Read the protein chains of the first model of a file, whose ending says what it is."""
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rt", encoding="latin-1") as handle:
        text = handle.read()
    lines = text.splitlines()
    is_mmcif = ".cif" in path.name or ".mmcif" in path.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if is_mmcif:
            parser = MMCIFParser(QUIET=True)
            structure = parser.get_structure(path.stem, io.StringIO(text))
            table = parser._mmcif_dict
            labels, regions, modified = _labels(table), {}, set()
            parents = _named_parents(
                table.get("_pdbx_struct_mod_residue.label_comp_id", []),
                table.get("_pdbx_struct_mod_residue.parent_comp_id", []),
            )
            method = "; ".join(table.get("_exptl.method", []))
        else:
            structure = PDBParser(PERMISSIVE=True, QUIET=True).get_structure(path.stem, io.StringIO(text))
            records = [line for line in lines if line.startswith("MODRES")]
            labels, regions = {}, _regions(lines)
            modified = {(line[16], int(line[18:22]), line[22], line[12:15].strip()) for line in records}
            parents = _named_parents([line[12:15] for line in records], [line[24:27] for line in records])
            method = " ".join(line[10:].strip() for line in lines if line.startswith("EXPDTA"))

    by_chain = {}
    for chain in next(iter(structure)):
        candidates = _candidates(chain, parents, labels, regions)
        for residue, name in candidates:
            residue.modified = (residue.chain, residue.number, residue.insertion_code, name) in modified
        by_chain[chain.id] = [residue for residue, _ in candidates]
    some_labels = any(residue.label is not None for residues in by_chain.values() for residue in residues)
    kept = []
    for residues in by_chain.values():
        kept += [residue for i, residue in enumerate(residues) if _is_member(residues, i, some_labels)]
    return _arrays(kept, structure.header.get("resolution"), method)


def _named_parents(names: list[str], parents: list[str]) -> dict[str, int]:
    found = defaultdict(set)
    for name, parent in zip(names, parents, strict=True):
        if parent_type(parent.strip()) is not None:
            found[name.strip()].add(parent_type(parent.strip()))
    return {name: min(types) if len(types) == 1 else 20 for name, types in found.items()}


def _labels(table: dict) -> dict[tuple[str, int, str, str], int]:
    labels = {}
    columns = ("auth_asym_id", "auth_seq_id", "pdbx_PDB_ins_code", "label_comp_id", "label_seq_id")
    rows = zip(*(table.get(f"_atom_site.{name}", table["_atom_site.label_seq_id"]) for name in columns), strict=True)
    for chain, number, code, name, label in rows:
        if label not in ".?":
            labels[chain, int(number), " " if code in ".?" else code, name] = int(label)
    return labels


def _regions(lines: list[str]) -> dict[tuple[str, int, str, str], str]:
    """Before or after the only TER of its chain, by residue; empty if TER ends a chain more than once in the file."""
    ends: dict[str, int] = {}
    first_record: dict[tuple[str, int, str, str], int] = {}
    chain = None
    for record, line in enumerate(lines):
        if line.startswith(("ATOM", "HETATM")):
            chain = line[21]
            first_record.setdefault((chain, int(line[22:26]), line[26], line[17:20].strip()), record)
        elif line.startswith("TER") and chain is not None:
            if chain in ends:
                return {}
            ends[chain] = record
            chain = None
        elif line.startswith("ENDMDL") and first_record:
            break
    return {
        key: "before TER" if record < ends[key[0]] else "after TER"
        for key, record in first_record.items()
        if key[0] in ends
    }


@dataclass
class _Variant:
    """A residue as one component, and what decides between several components at one number."""

    residue: OracleResidue
    name: str
    mean_occupancy: float
    first_altloc: str


def _candidates(chain: Chain, parents: dict[str, int], labels: dict, regions: dict) -> list[tuple[OracleResidue, str]]:
    groups: list[list[_Variant]] = []
    for residue in chain.get_unpacked_list():
        variant = _variant(chain, residue, parents, labels, regions)
        if variant is None:
            continue
        before = groups[-1][-1] if groups else None
        if (
            before is not None
            and (before.residue.number, before.residue.insertion_code)
            == (variant.residue.number, variant.residue.insertion_code)
            and before.first_altloc
            and variant.first_altloc
        ):
            groups[-1].append(variant)
        else:
            groups.append([variant])
    best = [min(group, key=lambda variant: (-variant.mean_occupancy, variant.first_altloc)) for group in groups]
    return [(variant.residue, variant.name) for variant in best]


def _variant(chain: Chain, source: Residue, parents: dict[str, int], labels: dict, regions: dict) -> _Variant | None:
    name = source.resname.strip()
    residue_type = parent_type(name)
    if residue_type is None:
        residue_type = parents.get(name)
    known = residue_type is not None
    residue_type = 20 if residue_type is None else residue_type
    names = HEAVY_ATOMS[residue_type]
    own: dict[int, list[Atom]] = defaultdict(list)
    renamed: dict[int, list[Atom]] = defaultdict(list)
    for atom in source.get_unpacked_list():
        if atom.name in names:
            own[names.index(atom.name)].append(atom)
        elif (RESIDUE_LETTERS[residue_type], atom.name) in ALIASES:
            renamed[names.index(ALIASES[RESIDUE_LETTERS[residue_type], atom.name])].append(atom)
    atoms_of = {**renamed, **own}
    if not atoms_of or not (known or all(slot in atoms_of for slot in (0, 1, 2))):
        return None
    atoms = [atom for several in atoms_of.values() for atom in several]
    altlocs = sorted({atom.altloc for atom in atoms} - {" "})
    total = {altloc: sum(_occupancy(atom) for atom in atoms if atom.altloc == altloc) for altloc in altlocs}
    best = min(altlocs, key=lambda altloc: (-round(total[altloc], 4), altloc)) if altlocs else " "
    flag, number, insertion_code = source.id
    key = (chain.id, number, insertion_code, name)
    residue = OracleResidue(
        chain=chain.id.strip(),  # a blank in PDB files
        number=number,
        insertion_code=insertion_code,
        residue_type=residue_type,
        het=flag != " ",
        label=labels.get(key),
        region=regions.get(key, ""),
    )
    for slot, several in atoms_of.items():
        usable = [atom for atom in several if atom.altloc in (" ", best)]
        if usable:
            residue.atoms[slot] = usable[0]
    mean = round(sum(map(_occupancy, atoms)) / len(atoms), 4)
    return _Variant(residue, name, mean, altlocs[0] if altlocs else "")


def _occupancy(atom: Atom) -> float:
    return 1.0 if atom.occupancy is None else atom.occupancy


def _is_member(residues: list[OracleResidue], index: int, some_labels: bool) -> bool:
    residue = residues[index]
    if some_labels:
        return residue.label is not None
    if not residue.het or residue.region == "before TER":
        return True
    if residue.region == "after TER":
        return False
    neighbours = residues[max(index - 1, 0) : index + 2]
    linked = any(
        2 in before.atoms and 0 in after.atoms and before.bonded_to(after)
        for before, after in itertools.pairwise(neighbours)
    )
    return residue.modified or linked or any(not later.het for later in residues[index + 1 :])


def _arrays(residues: list[OracleResidue], resolution: float | None, method: str) -> OracleStructure:
    count = len(residues)
    coordinates = np.zeros((count, 14, 3), np.float32)
    mask = np.zeros((count, 14), bool)
    b_factor, occupancy = np.zeros((count, 14), np.float32), np.zeros((count, 14), np.float32)
    for row, residue in enumerate(residues):
        for slot, atom in residue.atoms.items():
            mask[row, slot] = True
            coordinates[row, slot] = atom.coord
            b_factor[row, slot] = atom.bfactor
            occupancy[row, slot] = _occupancy(atom)
    chain_ids = tuple(dict.fromkeys(residue.chain for residue in residues))
    pairs = itertools.pairwise(residues)
    return OracleStructure(
        residue_type=np.array([residue.residue_type for residue in residues], np.int8),
        coordinates=coordinates,
        atom_mask=mask,
        b_factor=b_factor,
        occupancy=occupancy,
        chain_index=np.array([chain_ids.index(residue.chain) for residue in residues], np.int16),
        chain_ids=chain_ids,
        residue_number=np.array([residue.number for residue in residues], np.int32),
        insertion_code=np.array([residue.insertion_code for residue in residues], "U1"),
        label=[residue.label for residue in residues],
        bonded=np.array([a.chain == b.chain and a.bonded_to(b) for a, b in pairs], bool),
        resolution=resolution,
        method=method,
    )
