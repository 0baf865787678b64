"""`Structure` -> PDB and mmCIF files, and FASTA files of sequences both ways.

gemmi lays out the structure files, Biopython the FASTA files. Coordinates are written to 0.001 angstrom, B-factors and
occupancies to 0.01, as both formats have them. mmCIF carries the position index as label_seq_id; PDB has no place for
it, so there the size of a gap is estimated from the author numbers when the file is read again.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable
from pathlib import Path

import gemmi
import numpy as np
from Bio.Seq import Seq
from Bio.SeqIO.FastaIO import FastaWriter, SimpleFastaParser
from Bio.SeqRecord import SeqRecord

from .errors import StructureError
from .files import STRUCTURE_ENDINGS, read_content
from .residues import HEAVY_ATOMS, RESIDUE_NAMES
from .structure import Structure

_PDB_ENDINGS = (".pdb", ".ent")
# What the columns of the PDB format hold.
_PDB_COORDINATES = (-999.9994, 9999.9994)
_PDB_NUMBERS = (-999, 9999)
_PDB_B_FACTORS = (-99.994, 999.994)


def write_structure(structure: Structure, path: str | Path) -> None:
    """Write a structure file.

    Parameters
    ----------
    structure : what to write; residues without any atom cannot be
    path : its ending gives the format: .pdb or .ent, .cif or .mmcif, each also followed by .gz

    Raises
    ------
    StructureError : the ending is another one, or the structure does not fit into the format
    OSError : the file cannot be written
    """
    path = Path(path)
    name = path.name.lower()
    if not name.endswith(STRUCTURE_ENDINGS):
        raise StructureError(path, f"unknown ending; use one of {', '.join(STRUCTURE_ENDINGS)}")
    _refuse_unwritable(structure, path)
    if name.removesuffix(".gz").endswith(_PDB_ENDINGS):
        _refuse_what_pdb_cannot_hold(structure, path)
        text = f"{_headers(structure)}{_to_gemmi(structure).make_minimal_pdb()}{'END':<80}\n"
    else:
        text = _mmcif_text(structure)
    _write(path, text)


def _refuse_unwritable(structure: Structure, path: Path) -> None:
    if not len(structure):
        raise StructureError(path, f"cannot write {structure.name}: there are no residues")
    empty = ~structure.atom_mask.any(axis=1)
    if empty.any():
        where = _residue(structure, int(np.argmax(empty)))
        raise StructureError(path, f"cannot write {structure.name}: {where} has no atoms")
    if not np.isfinite(structure.coordinates[structure.atom_mask]).all():
        raise StructureError(path, f"cannot write {structure.name}: some coordinates are not finite")


def _refuse_what_pdb_cannot_hold(structure: Structure, path: Path) -> None:
    def refuse(what: str) -> None:
        raise StructureError(path, f"{structure.name} does not fit into the PDB format: {what}; write .cif instead")

    for chain_id in structure.chain_ids:
        if len(chain_id) > 1:
            refuse(f"chain identifier {chain_id!r} has more than one character")
    for values, (low, high), what in (
        (structure.residue_number, _PDB_NUMBERS, "residue number"),
        (structure.coordinates[structure.atom_mask], _PDB_COORDINATES, "coordinate"),
        (structure.b_factor[structure.atom_mask], _PDB_B_FACTORS, "B-factor"),
    ):
        outside = (values < low) | (values > high)
        if outside.any():
            refuse(f"{what} {values[outside][0]:g} is outside {low:g} to {high:g}")


def _residue(structure: Structure, row: int) -> str:
    number = f"{structure.residue_number[row]}{structure.insertion_code[row].strip()}"
    return f"residue {number} of chain {structure.chain_ids[structure.chain_index[row]]!r}"


def _headers(structure: Structure) -> str:
    lines = []
    if structure.method:
        lines.append(f"EXPDTA    {structure.method}")
    if structure.resolution is not None:
        lines += ["REMARK   2", f"REMARK   2 RESOLUTION. {structure.resolution:7.2f} ANGSTROMS."]
    return "".join(f"{line:<80}\n" for line in lines)


def _mmcif_text(structure: Structure) -> str:
    groups = gemmi.MmcifOutputGroups(True, auth_all=True)
    # Of a crystal nothing is known here but the resolution.
    groups.cell = groups.symmetry = groups.scale = groups.refine = False
    block = _to_gemmi(structure).make_mmcif_block(groups)
    if structure.resolution is not None:
        # gemmi takes the resolution from a refinement that has a name, as the dictionary demands.
        block.set_pairs(
            "_refine.",
            {
                "entry_id": structure.name,
                "pdbx_refine_id": structure.method or "unknown",
                "ls_d_res_high": f"{structure.resolution:.2f}",
            },
        )
    return block.as_string()


def _to_gemmi(structure: Structure) -> gemmi.Structure:
    model = gemmi.Model(1)
    entities: list[gemmi.Entity] = []
    for index, chain_id in enumerate(structure.chain_ids):
        rows = np.flatnonzero(structure.chain_index == index)
        if not len(rows):
            continue
        entity = gemmi.Entity(str(len(entities) + 1))
        entity.entity_type = gemmi.EntityType.Polymer
        entity.polymer_type = gemmi.PolymerType.PeptideL
        entity.subchains = [chain_id]
        entities.append(entity)
        chain = gemmi.Chain(chain_id)
        for row in rows.tolist():
            residue = gemmi.Residue()
            residue.name = RESIDUE_NAMES[structure.residue_type[row]]
            residue.seqid = gemmi.SeqId(int(structure.residue_number[row]), str(structure.insertion_code[row]))
            residue.label_seq = int(structure.position[row]) + 1
            residue.subchain = chain_id
            residue.entity_id = entity.name
            residue.entity_type = gemmi.EntityType.Polymer
            residue.het_flag = "A"
            for slot in np.flatnonzero(structure.atom_mask[row]).tolist():
                residue.add_atom(_atom(structure, row, slot))
            chain.add_residue(residue)
        model.add_chain(chain)
    written = gemmi.Structure()
    written.name = structure.name
    written.add_model(model)
    written.entities = gemmi.EntityList(entities)
    written.resolution = structure.resolution or 0.0
    if structure.method:
        written.info["_exptl.method"] = structure.method
    written.assign_serial_numbers()
    return written


def _atom(structure: Structure, row: int, slot: int) -> gemmi.Atom:
    atom = gemmi.Atom()
    atom.name = HEAVY_ATOMS[structure.residue_type[row]][slot]
    atom.element = gemmi.Element(atom.name[0])  # carbon, nitrogen, oxygen and sulphur only
    atom.pos = gemmi.Position(*structure.coordinates[row, slot].tolist())
    atom.occ = float(structure.occupancy[row, slot])
    atom.b_iso = float(structure.b_factor[row, slot])
    return atom


def write_fasta(path: str | Path, records: Iterable[tuple[str, str]]) -> None:
    """Write sequences as FASTA, 60 letters a line.

    Parameters
    ----------
    path : the file; compressed if it ends with .gz
    records : (header without the ">", sequence) each

    Raises
    ------
    StructureError : a header or sequence cannot be written so that it reads back as it is
    OSError : the file cannot be written
    """
    stream = io.StringIO()
    writer = FastaWriter(stream, wrap=60)
    for header, sequence in records:
        if not header.isprintable() or header != header.strip():
            raise StructureError(path, f"header {header!r} has line breaks, control characters or blanks at its ends")
        if not sequence or not sequence.isprintable() or " " in sequence or sequence.startswith(">"):
            raise StructureError(path, f"sequence {sequence[:20]!r} of {header!r} is empty or has blanks in it")
        writer.write_record(SeqRecord(Seq(sequence), id=header, description=""))
    _write(Path(path), stream.getvalue())


def read_fasta(path: str | Path) -> list[tuple[str, str]]:
    """Read the sequences of a FASTA file, plain or compressed by gzip.

    Returns
    -------
    (header without the ">", sequence without line breaks) each

    Raises
    ------
    StructureError : the file is empty, damaged or no FASTA file, or has a header without a sequence
    OSError : the file cannot be opened
    """
    text = read_content(path).decode("utf-8").lstrip()
    if not text.startswith(">"):
        raise StructureError(path, "not a FASTA file: it does not begin with '>'")
    records = list(SimpleFastaParser(io.StringIO(text)))
    for header, sequence in records:
        if not sequence:
            raise StructureError(path, f"header {header!r} has no sequence; the file may be cut off")
    return records


def _write(path: Path, text: str) -> None:
    content = text.encode("utf-8")
    # No time stamp, so that the same structure gives the same file.
    path.write_bytes(gzip.compress(content, mtime=0) if path.name.lower().endswith(".gz") else content)
