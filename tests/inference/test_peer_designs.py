"""Designs of other tools: which structure and which residues a record is for, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protein_model.inference.constraints import design_plan
from protein_model.inference.design import DesignResult
from protein_model.inference.evaluation import EvaluationError
from protein_model.inference.evaluation_report import build_report
from protein_model.inference.metrics import recovery, scored_residues
from protein_model.inference.peer_designs import find_fasta_files, match_designs
from protein_model.inference.sampling import SamplingSettings
from protein_model.structures import Structure, sequence_of, write_fasta
from tests.inference.evaluation_cases import designs_of, example, stretch


def two_chains() -> Structure:
    """Chains A (40 residues) and B (24), of one protein."""
    structure = example("1orc.pdb.gz")
    chain_index = (np.arange(len(structure)) >= 40).astype(np.int16)
    return replace(structure, name="pair", chain_index=chain_index, chain_ids=("A", "B"))


def with_gap() -> Structure:
    """Residue numbers 21 to 33 are missing; one residue has an insertion code, one lacks its O."""
    structure = example("pdb1ubi.pdb.gz")
    part = structure.take(np.r_[0:20, 33:60])
    code = part.insertion_code.copy()
    number = part.residue_number.copy()
    number[6], code[6] = number[5], "A"
    mask = part.atom_mask.copy()
    mask[11, 3] = False
    return replace(part, name="gap", insertion_code=code, residue_number=number, atom_mask=mask)


def mutated(types: np.ndarray, seed: int, share: float = 0.5) -> np.ndarray:
    generator = np.random.default_rng(seed)
    changed = generator.random(len(types)) < share
    return np.where(changed, (types + 1) % 20, types).astype(np.int8)


def numbered(structure: Structure, types: np.ndarray) -> str:
    """One letter for each author number and insertion code between the first and the last, X where there is none."""
    letters = []
    for number in range(structure.residue_number.min(), structure.residue_number.max() + 1):
        rows = np.flatnonzero(structure.residue_number == number)
        letters.append(sequence_of(types[rows]) if len(rows) else "X")
    return "".join(letters)


def write(path: Path, *records: tuple[str, str]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    write_fasta(path, records)
    return path


def test_designs_as_proteinmpnn_writes_them(tmp_path):
    """The native sequence under the name of the structure, then samples without a name."""
    structure = example("1orc.pdb.gz")
    first, second = mutated(structure.residue_type, 1), mutated(structure.residue_type, 2)
    write(
        tmp_path / "seqs" / "1orc.fa",
        (
            "1orc, score=1.4, global_score=1.4, fixed_chains=[], designed_chains=['A'], model_name=v_48_020, seed=37",
            sequence_of(structure.residue_type),
        ),
        ("T=0.1, sample=1, score=0.8, global_score=0.8, seq_recovery=0.5", sequence_of(first)),
        ("T=0.1, sample=2, score=0.9, global_score=0.9, seq_recovery=0.5", sequence_of(second)),
    )
    [found], problems = match_designs(tmp_path / "seqs", [structure])
    assert problems == []
    assert np.array_equal(found.designs, [first, second])
    expected = recovery(np.stack([first, second]), structure).mean()
    assert build_report([found], 0).summary.sampled_recovery.mean.value == pytest.approx(expected)


def test_designed_chains_only_and_in_the_order_that_the_header_says(tmp_path):
    structure = two_chains()
    a, b = structure.residue_type[:40], structure.residue_type[40:]
    design = mutated(b, 3)
    path = write(
        tmp_path / "pair.fa",
        ("pair, score=1.4, fixed_chains=['A'], designed_chains=['B'], model_name=v_48_020", sequence_of(b)),
        ("T=0.1, sample=1, score=0.8", sequence_of(design)),
    )
    [found], problems = match_designs(path, [structure])
    assert problems == []
    # The fixed chain is not compared.
    assert np.array_equal(scored_residues(found.structure), structure.chain_index == 1)
    assert recovery(found.designs, found.structure)[0] == pytest.approx((design == b).mean())

    path = write(tmp_path / "swapped.fa", ("pair, chains=B:A", f"{sequence_of(design)}/{sequence_of(a)}"))
    [found], problems = match_designs(path, [structure])
    assert problems == []
    assert np.array_equal(found.designs[0], np.concatenate([a, design]))


def test_designs_as_ligandmpnn_writes_them(tmp_path):
    structure = two_chains()
    design = mutated(structure.residue_type, 4)
    native, designed = (
        f"{sequence_of(types[:40])}:{sequence_of(types[40:])}" for types in (structure.residue_type, design)
    )
    path = write(
        tmp_path / "pair.fa",
        ("pair, T=0.1, seed=111, num_res=64, num_ligand_res=0, use_ligand_context=True, batch_size=1", native),
        ("pair, id=1, T=0.1, seed=111, overall_confidence=0.4, ligand_confidence=0.4, seq_rec=0.5", designed),
    )
    [found], problems = match_designs(path, [structure])
    assert problems == [] and np.array_equal(found.designs, [design])


def test_designs_as_this_package_writes_them(tmp_path):
    structures = [example("1orc.pdb.gz"), two_chains()]
    designs = [designs_of(np.stack([mutated(one.residue_type, seed) for seed in range(3)])) for one in structures]
    (tmp_path / "out").mkdir()
    for structure, own in zip(structures, designs, strict=True):
        result = DesignResult(structure, design_plan(structure), SamplingSettings(), own)
        result.write_fasta(tmp_path / "out" / f"{structure.name}.fasta")
    found, problems = match_designs(tmp_path / "out", structures)
    assert problems == []
    for entry, own in zip(found, designs, strict=True):
        assert np.array_equal(entry.designs, own.residue_type)


def test_one_file_for_many_structures(tmp_path):
    structures = [example("1orc.pdb.gz"), example("pdb1ubi.pdb.gz")]
    path = write(
        tmp_path / "all.fasta.gz",
        ("pdb1ubi some tool, version 3", sequence_of(structures[1].residue_type)),
        ("1orc", sequence_of(structures[0].residue_type)),
        ("pdb1ubi again", sequence_of(mutated(structures[1].residue_type, 0))),
    )
    first, second = match_designs(path, structures)[0]
    assert (first.structure.name, len(first.designs)) == ("1orc", 1)
    assert (second.structure.name, len(second.designs)) == ("pdb1ubi", 2)


def test_a_file_may_say_by_its_name_what_it_is_for(tmp_path):
    structure = example("1orc.pdb.gz")
    write(tmp_path / "1orc.fasta", ("design number 1", sequence_of(structure.residue_type)))
    assert match_designs(tmp_path, [structure])[1] == []


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), form=st.sampled_from(["all", "complete", "numbered", "dashes"]))
def test_every_way_of_counting_residues_puts_a_design_on_the_same_residues(tmp_path_factory, seed, form):
    structure = with_gap()
    design = mutated(structure.residue_type, seed)
    design[11] = 20
    letters = {
        "all": sequence_of(design),
        "complete": sequence_of(design[structure.backbone_complete]),
        "numbered": numbered(structure, design),
        "dashes": numbered(structure, design).replace("X", "-"),
    }[form]
    path = write(tmp_path_factory.mktemp("form") / "gap.fa", ("gap, sample=1", letters))
    [found], problems = match_designs(path, [structure])
    assert problems == [] and np.array_equal(found.designs[0], design)


def test_the_native_sequence_of_another_protein_is_noticed(tmp_path):
    structure = example("1orc.pdb.gz")
    other = stretch(example("pdb1ake.pdb.gz"), 10, len(structure)).residue_type
    path = write(
        tmp_path / "1orc.fa",
        ("1orc, native", sequence_of(other)),
        ("1orc, sample=1", sequence_of(structure.residue_type)),
    )
    _, [problem] = match_designs(path, [structure])
    assert "agrees with that of the structure in" in problem


@pytest.mark.parametrize(
    ("header", "sequence", "message"),
    [
        (
            "1orc, sample=1",
            "A" * 63,
            "has 63 letters for chain 'A' of 64 residues, 64 of them with a complete backbone",
        ),
        ("1orc, sample=1", "A" * 40 + "/" + "A" * 24, "has 2 chains where the structure has 1"),
        ("1orc, sample=1", "A" * 63 + "1", "'1' at place 64 of the sequence is no residue letter"),
        ("1orc, chains=A:B", "A" * 40, "has 1 chain where its header names 2"),
        ("1orc, chains=A:Q", "A" * 64 + "/A", "names chain 'Q'; the structure has A"),
        ("2abc, sample=1", "A" * 64, "no structure is called '2abc'"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, header, sequence, message):
    structure = example("1orc.pdb.gz")
    names = structure.chain_ids
    assert names == ("A",)
    good = write(tmp_path / "one" / "good.fa", ("1orc", sequence_of(structure.residue_type)))
    write(good.with_name("other.fa"), (header, sequence))
    [found], [problem] = match_designs(good.parent, [structure])
    assert message in problem and "other.fa" in problem
    assert len(found.designs) == 1
    good.unlink()
    with pytest.raises(EvaluationError, match="no design fits a structure"):
        match_designs(good.parent, [structure])


def test_damaged_files_and_structures_without_designs_are_listed(tmp_path):
    structures = [example("1orc.pdb.gz"), example("pdb1ubi.pdb.gz")]
    write(tmp_path / "a.fa", ("1orc", sequence_of(structures[0].residue_type)))
    (tmp_path / "b.fasta").write_text("no sequences here")
    found, problems = match_designs(tmp_path, structures)
    assert [entry.structure.name for entry in found] == ["1orc"]
    assert "b.fasta: not a FASTA file" in problems[0] and problems[1] == "pdb1ubi: has no design"


def test_nothing_to_read_and_names_that_are_there_twice(tmp_path):
    with pytest.raises(EvaluationError, match="no FASTA file found"):
        find_fasta_files(tmp_path)
    with pytest.raises(EvaluationError, match="two structures are called 1orc"):
        match_designs(tmp_path, [example("1orc.pdb.gz"), example("1orc.pdb.gz")])
