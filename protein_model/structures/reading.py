"""PDB and mmCIF files -> `Structure`. gemmi reads the text (see `parsing`); what of it is the protein is decided here.

What is decided, case by case:

- Format: by content, not by ending; gzip likewise.
- Models: the first one that has atoms. A PDB file ends at END.
- An empty chain identifier is an empty string.
- Chains: author identifiers. Chains without an amino-acid residue (nucleic acids, ligands, waters) are left out.
- Members of a chain: in mmCIF the residues with a label_seq_id. In PDB, ATOM residues that are amino acids, and
  HETATM residues that are amino acids and stand before the chain's TER record; in a file without TER (or with several
  for one chain) those that a peptide bond joins to a neighbour, that an ATOM amino acid follows, or that MODRES names.
  So a free amino acid as a ligand is none.
- Amino acids: names of Biopython's table of modified residues or of the force fields (see `residues`), names for which
  the file itself gives a parent (MODRES, _pdbx_struct_mod_residue), and unknown residues with N, CA and C; these are X.
  Caps such as ACE and NH2 are none.
- Modified residues become their parents: atoms that the parent has too are kept, SE of MSE is SD, others are left out.
- Hydrogen, deuterium, OXT and all other atoms outside the 14 of `HEAVY_ATOMS` are left out.
- Alternate locations: one per residue, the one with the greatest sum of occupancies over its heavy atoms, of equals
  the first in the alphabet. Atoms without an alternate location are always kept.
- Different residues at one number (microheterogeneity): the one with the greatest mean occupancy, of equals the one
  whose alternate location comes first.
- Missing atoms, backbone or not: the residue stays, the mask says what is there.
- Atoms of zero occupancy are kept, with occupancy 0.
- Numbers: author numbers as they are, negative, out of order or with insertion codes; file order is chain order.
- An atom that is there twice without alternate locations (programs that lost the indicators): the first one counts.
- A number that a chain uses again, for a residue elsewhere: after a TER record it is a further residue, else an error.
- Position index: see `positions`; SEQRES or label numbering give the size of a gap, else author numbers.
- Traces: a file in which no residue has N, CA, C and O is an error. In other files such chains stay.
- Damaged files: cut or damaged gzip data, a cut last line or mmCIF table, coordinates and residue numbers that are no
  numbers are errors. Other encodings than UTF-8 in headers are not. A PDB text that was cut exactly between two lines
  cannot be told from a whole one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from .errors import StructureError
from .files import read_content, sniff_format, structure_name
from .parsing import parse_mmcif, parse_pdb
from .positions import NO_LABEL, peptide_bonds, position_index
from .residues import ATOM_ALIASES, HEAVY_ATOMS, RESIDUE_LETTERS, UNKNOWN_RESIDUE, parent_type
from .sequence_records import seqres_labels
from .structure import BACKBONE_ATOM_COUNT, MAX_HEAVY_ATOMS, Structure

_BACKBONE_ATOMS_OF_AMINO_ACIDS = 3  # N, CA and C
_CALPHA = 1
_SAME_RESIDUE = 2.0  # angstrom; the CA of two residues are never this near, those of two conformers hardly ever further


def _name_codes(names: np.ndarray) -> np.ndarray:
    """(K,) uint64 of (K, 8) characters, for fast comparison."""
    return np.ascontiguousarray(names).view(np.uint64)[:, 0]


def _slot_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted codes of all atom names; the place of each among the heavy atoms of each type, -1 for none; aliases."""
    names = sorted({name for atoms in HEAVY_ATOMS for name in atoms} | {alias for _, alias, _ in ATOM_ALIASES})
    codes = np.array([name.encode() for name in names], "S8").view(np.uint64)
    order = np.argsort(codes)
    column = {names[index]: place for place, index in enumerate(order)}
    slots = np.full((len(RESIDUE_LETTERS), len(names) + 1), -1, np.int8)  # the last column is for all other names
    aliases = np.zeros(slots.shape, bool)
    for letter, alias, name in ATOM_ALIASES:
        residue_type = RESIDUE_LETTERS.index(letter)
        slots[residue_type, column[alias]] = HEAVY_ATOMS[residue_type].index(name)
        aliases[residue_type, column[alias]] = True
    for residue_type, atoms in enumerate(HEAVY_ATOMS):
        for slot, name in enumerate(atoms):
            slots[residue_type, column[name]] = slot
            aliases[residue_type, column[name]] = False
    return codes[order], slots, aliases


_ATOM_CODES, _SLOTS, _IS_ALIAS = _slot_tables()


class _DuplicateAtom(Exception):
    """Two residues of a chain have the same number, insertion code and name."""


@dataclass
class _Residues:
    """Residues that may belong to proteins, `R` of them in gemmi's order, which is the file's.

    Attributes
    ----------
    source : (R,) index among all residues of the model
    chain : (R,) index into `chain_names`
    name_known : (R,) bool, False for those of which only the atoms show that they are amino acids
    het : (R,) bool, HETATM records
    entity : (R,) gemmi's entity types; in PDB files Polymer before the only TER record of a chain, NonPolymer after it
    label : (R,) int, label_seq_id, -1 where there is none
    residue_type, number, insertion_code : (R,)
    coordinates : (R, 14, 3) float32; mask : (R, 14) bool; b_factor, occupancy : (R, 14) float32
    """

    source: np.ndarray
    chain: np.ndarray
    chain_names: list[str]
    name_known: np.ndarray
    het: np.ndarray
    entity: np.ndarray
    label: np.ndarray
    residue_type: np.ndarray
    number: np.ndarray
    insertion_code: np.ndarray
    coordinates: np.ndarray
    mask: np.ndarray
    b_factor: np.ndarray
    occupancy: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: np.ndarray) -> _Residues:
        """Those at `rows`."""
        values = {name: value[rows] if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}
        return _Residues(**values)


def read_structure(path: str | Path) -> Structure:
    """Read the protein chains of the first model of a PDB or mmCIF file, plain or compressed by gzip.

    Parameters
    ----------
    path : the file; its content decides what it is

    Returns
    -------
    all protein residues; coordinates in angstrom; named after the file, without its endings

    Raises
    ------
    StructureError : the file is empty, damaged or of another kind, or has no protein with a backbone
    OSError : the file cannot be opened
    """
    path = Path(path)
    content = read_content(path)
    if sniff_format(content) == "mmcif":
        parsed = parse_mmcif(path, content)
        residues = _collect_or_refuse(path, parsed)
    else:
        parsed = parse_pdb(path, content)
        try:
            residues = _collect(path, parsed)
        except _DuplicateAtom:
            # Numbers used again after TER were merged into one residue.
            parsed = parse_pdb(path, content, split_at_ter=True)
            residues = _collect_or_refuse(path, parsed)
    members = residues.take(_members(residues, parsed))
    if not len(members):
        raise StructureError(path, "no protein residues: only nucleic acids, ligands or waters")
    if not members.mask[:, :BACKBONE_ATOM_COUNT].all(axis=1).any():
        kind = "CA-only trace: " if not members.mask[:, [0, 2, 3]].any() else ""
        raise StructureError(path, f"{kind}no residue has a complete backbone (N, CA, C, O)")
    return _finish(structure_name(path), parsed, members)


def _finish(name: str, parsed: gemmi.Structure, residues: _Residues) -> Structure:
    used, first, chain_index = np.unique(residues.chain, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # chains in the order of their first residues
    chain_index = rank[chain_index]
    if (np.diff(chain_index) < 0).any():
        order = np.argsort(chain_index, kind="stable")
        residues, chain_index = residues.take(order), chain_index[order]
    geometry = (residues.coordinates, residues.mask, chain_index, residues.number, residues.insertion_code)
    bonded = peptide_bonds(*geometry, residues.label)
    gaps = ~bonded & (chain_index[1:] == chain_index[:-1])
    if gaps.any() and parsed.input_format == gemmi.CoorFormat.Pdb:
        residues.label = seqres_labels(parsed, residues.source, residues.chain)
    return Structure(
        name=name,
        residue_type=residues.residue_type,
        coordinates=residues.coordinates,
        atom_mask=residues.mask,
        b_factor=residues.b_factor,
        occupancy=residues.occupancy,
        chain_index=chain_index.astype(np.int16),
        chain_ids=tuple(residues.chain_names[used[index]] for index in np.argsort(rank)),
        residue_number=residues.number,
        insertion_code=residues.insertion_code,
        position=position_index(bonded, chain_index, residues.number, residues.label),
        resolution=parsed.resolution or None,
        method=parsed.info["_exptl.method"] if "_exptl.method" in parsed.info else "",  # noqa: SIM401 (gemmi's map has no get)
    )


def _collect_or_refuse(path: Path, parsed: gemmi.Structure) -> _Residues:
    try:
        return _collect(path, parsed)
    except _DuplicateAtom as error:
        raise StructureError(path, str(error)) from None


def _collect(path: Path, parsed: gemmi.Structure) -> _Residues:
    """All residues that may be amino acids of a chain, with one conformation each.

    Raises
    ------
    _DuplicateAtom : two residues have one number
    """
    chain_names: dict[str, int] = {}
    counts: list[int] = []
    labels: list[int | None] = []
    chains: list[int] = []
    for chain in parsed[0]:
        index = chain_names.setdefault(chain.name, len(chain_names))
        chains += [index] * len(chain)
        for residue in chain:
            counts.append(len(residue))
            labels.append(residue.label_seq)
    flat = _flat(path, parsed)
    residue_of_atom = np.repeat(np.arange(len(counts)), counts)
    first_atom = np.cumsum(counts) - counts

    residue_type, name_known = _residue_types(np.asarray(flat.residue_names)[first_atom], parsed)
    atom_codes = _name_codes(np.asarray(flat.atom_names))
    column = np.searchsorted(_ATOM_CODES, atom_codes)
    column[column == len(_ATOM_CODES)] = 0
    column[_ATOM_CODES[column] != atom_codes] = len(_ATOM_CODES)
    slot = _SLOTS[residue_type[residue_of_atom], column]

    backbone_names = np.zeros((len(counts), MAX_HEAVY_ATOMS + 1), bool)
    backbone_names[residue_of_atom, slot] = True  # the last column collects the other atoms
    amino_acid = name_known | backbone_names[:, :_BACKBONE_ATOMS_OF_AMINO_ACIDS].all(axis=1)

    atoms = np.flatnonzero((slot >= 0) & amino_acid[residue_of_atom])
    atoms, alternatives = _without_alternatives(atoms, flat, residue_of_atom, residue_type, column, chains, first_atom)
    amino_acid[alternatives] = False
    # Known residues without any atom that is used (only hydrogens) say nothing about the structure of the chain.
    has_atoms = np.zeros(len(counts), bool)
    has_atoms[residue_of_atom[atoms]] = True
    source = np.flatnonzero(amino_acid & has_atoms)
    row_of_residue = np.full(len(counts), -1)
    row_of_residue[source] = np.arange(len(source))
    place = row_of_residue[residue_of_atom[atoms]] * MAX_HEAVY_ATOMS + slot[atoms]
    xyz = flat.pos[atoms]
    if len(place) and np.bincount(place).max() > 1:
        first = _first_of_each(place, xyz, parsed, source)
        place, xyz, atoms = place[first], xyz[first], atoms[first]
    if not np.isfinite(xyz).all():
        atom = int(np.argmin(np.isfinite(xyz).all(axis=1)))
        where = _atom_name(parsed, source, int(place[atom]))
        raise StructureError(path, f"a coordinate is no number: {where}")
    shape = (len(source), MAX_HEAVY_ATOMS)
    coordinates = np.zeros((shape[0] * shape[1], 3), np.float32)
    coordinates[place] = xyz
    mask = np.zeros(shape, bool)
    mask.flat[place] = True
    by_residue = coordinates.reshape(*shape, 3)
    b_factor, occupancy = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    b_factor.flat[place] = flat.b_iso[atoms]
    occupancy.flat[place] = flat.occ[atoms]

    first_of_source = first_atom[source]
    residues = _Residues(
        source=source,
        chain=np.array(chains)[source],
        chain_names=list(chain_names),
        name_known=name_known[source],
        het=flat.het_flags[first_of_source] == ord("H"),
        entity=flat.entity_type[first_of_source],
        label=np.array([NO_LABEL if label is None else label for label in labels])[source],
        residue_type=residue_type[source],
        number=flat.resnums[first_of_source].astype(np.int32),
        insertion_code=np.ascontiguousarray(flat.icodes[first_of_source]).view("S1").astype("U1"),
        coordinates=by_residue,
        mask=mask,
        b_factor=b_factor,
        occupancy=occupancy,
    )
    unknown = _without_geometry(by_residue, mask)
    if not unknown.any():
        return residues
    if unknown.all():
        raise StructureError(path, "no coordinates: two of N, CA and C lie at one point in each residue")
    return residues.take(np.flatnonzero(~unknown))


def _without_geometry(coordinates: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(R,) bool, residues with two of N, CA, C at one point, as where zeros stand for unknown coordinates."""
    at_one_point = np.zeros(len(mask), bool)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        equal = (coordinates[:, first] == coordinates[:, second]).all(axis=1)
        at_one_point |= equal & mask[:, first] & mask[:, second]
    return at_one_point


def _flat(path: Path, parsed: gemmi.Structure) -> gemmi.FlatStructure:
    try:
        return gemmi.FlatStructure(parsed)
    except RuntimeError:
        # It holds names of up to 7 characters; those of chains and entities are not taken from there.
        for index, chain in enumerate(parsed[0]):
            chain.name = str(index)
            for residue in chain:
                residue.subchain = residue.entity_id = ""
    try:
        return gemmi.FlatStructure(parsed)
    except RuntimeError as error:
        raise StructureError(path, f"a name of an atom or residue is too long: {error}") from error


def _residue_types(names: np.ndarray, parsed: gemmi.Structure) -> tuple[np.ndarray, np.ndarray]:
    """Residue types (20 where there is no parent) of (R, 8) names, and whether tables or the file know the name."""
    unique, inverse = np.unique(_name_codes(names), return_inverse=True)
    types = [parent_type(name.decode("utf-8", "replace")) for name in unique.view("S8").tolist()]
    if None in types and len(parsed.mod_residues):
        named = _parents_named_in_file(parsed)
        types = [
            named.get(name.decode("utf-8", "replace")) if known is None else known
            for name, known in zip(unique.view("S8").tolist(), types, strict=True)
        ]
    residue_type = np.array([UNKNOWN_RESIDUE if known is None else known for known in types], np.int8)
    return residue_type[inverse], np.array([known is not None for known in types], bool)[inverse]


def _parents_named_in_file(parsed: gemmi.Structure) -> dict[str, int]:
    parents: dict[str, int] = {}
    for record in parsed.mod_residues:
        parent = parent_type(record.parent_comp_id)
        if parent is not None:
            name = record.res_id.name
            # A chromophore made of several residues has several parents and is of no single type.
            parents[name] = parent if parents.get(name, parent) == parent else UNKNOWN_RESIDUE
    return parents


def _without_alternatives(
    atoms: np.ndarray,
    flat: gemmi.FlatStructure,
    residue_of_atom: np.ndarray,
    residue_type: np.ndarray,
    column: np.ndarray,
    chains: list[int],
    first_atom: np.ndarray,
) -> tuple[np.ndarray, list[int]]:
    """Those of `atoms` that belong to the one conformation used, and the residues that are left out for another one."""
    residue = residue_of_atom[atoms]
    left_out: list[int] = []
    alternate = flat.altlocs[atoms]
    if alternate.any():
        occupancy = flat.occ[atoms].astype(np.float64)
        left_out = _other_residues_of_same_number(residue, alternate, occupancy, flat, chains, first_atom)
        keep = ~np.isin(residue, left_out)
        keep[keep] = _best_alternate(residue[keep], alternate[keep], occupancy[keep])
        atoms, residue = atoms[keep], residue[keep]
    alias = _IS_ALIAS[residue_type[residue], column[atoms]]
    if alias.any():
        slot = _SLOTS[residue_type[residue], column[atoms]]
        place = residue * MAX_HEAVY_ATOMS + slot
        atoms = atoms[~(alias & np.isin(place, place[~alias]))]
    return atoms, left_out


def _best_alternate(residue: np.ndarray, alternate: np.ndarray, occupancy: np.ndarray) -> np.ndarray:
    """(A,) bool for atoms of (A,) residues: no alternate location, or the one of the residue with most occupancy."""
    located = alternate != 0
    keep = ~located
    groups, group_of_atom = np.unique(residue[located] * 256 + alternate[located], return_inverse=True)
    # Rounded, so that sums of the same occupancies in another order are equal.
    total = np.round(np.bincount(group_of_atom, occupancy[located]), 4)
    residue_of_group = groups // 256
    order = np.lexsort((groups, -total, residue_of_group))
    _, first = np.unique(residue_of_group[order], return_index=True)
    best = np.zeros(len(groups), bool)
    best[order[first]] = True
    keep[located] = best[group_of_atom]
    return keep


def _other_residues_of_same_number(
    residue: np.ndarray,
    alternate: np.ndarray,
    occupancy: np.ndarray,
    flat: gemmi.FlatStructure,
    chains: list[int],
    first_atom: np.ndarray,
) -> list[int]:
    """Of neighbouring residues with one number and alternate locations, all but the one with most mean occupancy."""
    candidates = np.unique(residue[alternate != 0])
    starts = first_atom[candidates]
    number, insertion_code = flat.resnums[starts], flat.icodes[starts]
    same = (
        (np.diff(candidates) == 1)
        & (np.diff(np.array(chains)[candidates]) == 0)
        & (np.diff(number) == 0)
        & (np.diff(insertion_code) == 0)
    )
    left_out: list[int] = []
    for start in np.flatnonzero(same & ~np.concatenate([[False], same[:-1]])).tolist():
        stop = start + 1
        while stop < len(same) and same[stop]:
            stop += 1
        group = candidates[start : stop + 1].tolist()
        ranks = []
        for member in group:
            own = residue == member
            first_alternate = alternate[own & (alternate != 0)].min()
            ranks.append((-round(float(occupancy[own].mean()), 4), int(first_alternate), member))
        best = min(ranks)[-1]
        left_out += [member for member in group if member != best]
    return left_out


def _first_of_each(place: np.ndarray, xyz: np.ndarray, parsed: gemmi.Structure, source: np.ndarray) -> np.ndarray:
    """Indices of the first atom at each place, where some places are taken twice.

    Raises
    ------
    _DuplicateAtom : two residues have one number
    """
    _, first, which = np.unique(place, return_index=True, return_inverse=True)
    apart = np.linalg.norm(xyz - xyz[first][which], axis=1) > _SAME_RESIDUE
    twice = apart & (place % MAX_HEAVY_ATOMS == _CALPHA)
    if twice.any():
        atom = _atom_name(parsed, source, int(place[np.argmax(twice)]))
        raise _DuplicateAtom(
            f"two residues have one number, or two chains one identifier: {atom} is there twice, at different places;"
            " make them different"
        )
    return first


def _atom_name(parsed: gemmi.Structure, source: np.ndarray, place: int) -> str:
    row, slot = divmod(place, MAX_HEAVY_ATOMS)
    index = int(source[row])
    for chain in parsed[0]:
        if index < len(chain):
            residue = chain[index]
            known = parent_type(residue.name)
            name = HEAVY_ATOMS[UNKNOWN_RESIDUE if known is None else known][slot]
            return f"atom {name} of residue {residue.name} {residue.seqid} of chain {chain.name!r}"
        index -= len(chain)
    raise AssertionError("there is no such residue")


def _members(residues: _Residues, parsed: gemmi.Structure) -> np.ndarray:
    """(R,) bool, True for residues of the protein chains, False for amino acids that are ligands."""
    labelled = residues.label != NO_LABEL
    if labelled.any():
        return labelled
    if not residues.het.any():
        return np.ones(len(residues), bool)
    polymer = residues.entity == gemmi.EntityType.Polymer.value
    unclear = residues.het & (residues.entity == gemmi.EntityType.Unknown.value)
    member = ~residues.het | polymer
    if unclear.any():
        last_atom_record = np.full(len(residues.chain_names), -1)
        rows = np.flatnonzero(~residues.het)
        np.maximum.at(last_atom_record, residues.chain[rows], rows)
        member |= unclear & (np.arange(len(residues)) < last_atom_record[residues.chain])
        member |= unclear & _linked(residues)
        modified = {(record.chain_name, str(record.res_id)) for record in parsed.mod_residues}
        if modified:
            names = _identifiers(residues, parsed)
            member |= unclear & np.array([name in modified for name in names])
    return member


def _linked(residues: _Residues) -> np.ndarray:
    unknown = np.full(len(residues), NO_LABEL)
    geometry = (residues.coordinates, residues.mask, residues.chain, residues.number, residues.insertion_code)
    bonded = peptide_bonds(*geometry, unknown) & residues.mask[:-1, 2] & residues.mask[1:, 0]
    return np.concatenate([bonded, [False]]) | np.concatenate([[False], bonded])


def _identifiers(residues: _Residues, parsed: gemmi.Structure) -> list[tuple[str, str]]:
    everyone = [(chain.name, f"{residue.seqid}({residue.name})") for chain in parsed[0] for residue in chain]
    return [everyone[index] for index in residues.source.tolist()]
