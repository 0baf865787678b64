"""What constraints mean, which are refused, and that designs keep to them, whatever they are."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from protein_model.inference.constraints import (
    ConstraintError,
    Constraints,
    constraints_from,
    design_plan,
    read_constraints_file,
)
from protein_model.inference.design import design
from protein_model.inference.orders import ORDERS
from protein_model.structures import RESIDUE_LETTERS, Structure
from protein_model.structures.selections import residue_name
from tests.inference.backbones import made_structure, numbered
from tests.inference.evaluation_cases import tiny_model, with_sequence

# Rows 0 to 5 are A1 to A6, 6 to 11 B1 to B6, of which B3 lacks atoms and A5 is of unknown type.
PAIR = made_structure({"A": numbered(1, 6), "B": numbered(1, 6)})
PAIR.atom_mask[8, 2] = False
PAIR.residue_type[4] = 20
KEPT = PAIR.residue_type.tolist()


def letters(rows) -> str:
    return "".join(RESIDUE_LETTERS[PAIR.residue_type[row]] for row in rows)


def test_without_constraints_everything_visible_is_designed():
    plan = design_plan(PAIR)
    assert plan.designed.tolist() == plan.visible.tolist() == [row != 8 for row in range(12)]
    assert (plan.fixed_type == -1).all() and (plan.bias == 0).all() and np.isnan(plan.temperature).all()
    assert plan.weight[plan.designed].tolist() == [1.0] * 11


def test_fixed_designed_excluded():
    plan = design_plan(PAIR, Constraints(fixed="A1-2,B3"))
    assert plan.fixed_type.tolist() == [*KEPT[:2], *[-1] * 6, KEPT[8], *[-1] * 3]
    plan = design_plan(PAIR, Constraints(designed="A", fixed="A2", excluded="B6"))
    assert np.flatnonzero(plan.designed).tolist() == [0, 2, 3, 4, 5]
    assert plan.fixed_type.tolist() == [-1, KEPT[1], -1, -1, -1, -1, *KEPT[6:11], -1]
    assert not plan.visible[[8, 11]].any() and plan.visible.sum() == 10


def test_given_sequence():
    plan = design_plan(PAIR, Constraints(sequence={"B": "ac_X-w"}))
    assert plan.fixed_type.tolist() == [-1] * 6 + [0, 1, -1, -1, -1, 18]
    plan = design_plan(PAIR, Constraints(sequence={"B": "K_____"}, fixed="B1-2"))
    assert plan.fixed_type[6:8].tolist() == [8, KEPT[7]]


def test_ties():
    plan = design_plan(PAIR, Constraints(tied=("A=B",)))
    assert (plan.unit[:6] == plan.unit[6:]).all() and len(plan.bias) == 6
    assert plan.weight[[0, 6]].tolist() == [0.5, 0.5]
    assert plan.weight[[2, 8]].tolist() == [1.0, 0.0]  # B3 is not seen: it follows A3
    plan = design_plan(PAIR, Constraints(tied=("A1-2=0.5*B5-6", "A3=A4=-1*B1")))
    assert plan.unit[0] == plan.unit[10] and plan.unit[1] == plan.unit[11]
    assert plan.unit[2] == plan.unit[3] == plan.unit[6] and len(plan.bias) == 7
    assert plan.weight[[0, 10]].tolist() == [0.5, 0.25]
    np.testing.assert_allclose(plan.weight[[2, 3, 6]], [1 / 3, 1 / 3, -1 / 3])


def test_homo_oligomer_matches_by_number():
    structure = made_structure({"A": numbered(1, 4), "B": [(2, " "), (2, "A"), (4, " ")], "C": numbered(3, 5)})
    plan = design_plan(structure, Constraints(homo_oligomer=True))
    groups = defaultdict(list)
    for row, unit in enumerate(plan.unit.tolist()):
        groups[unit].append(residue_name(structure, row))
    assert sorted(groups.values()) == [["A1"], ["A2", "B2"], ["A3", "C3"], ["A4", "B4", "C4"], ["B2A"], ["C5"]]
    alone = design_plan(made_structure({"A": numbered(1, 4)}), Constraints(homo_oligomer=True))
    assert len(alone.bias) == 4


def test_what_is_fixed_for_one_is_fixed_for_all():
    plan = design_plan(PAIR, Constraints(tied=("A=B",), fixed="A1"))
    assert plan.fixed_type[[0, 6]].tolist() == [KEPT[0]] * 2 and len(plan.bias) == 5


def test_biases_and_omitted_types_of_groups():
    plan = design_plan(
        PAIR,
        Constraints(
            tied=("A1=B1=B2",),
            bias={"a": 0.5},
            bias_at={"A1": {"K": 3.0}, "B1": {"K": 1.0}, "A2": {"A": 2.0}, "A2-3": {"A": 1.0}},
            omit="C",
            omit_at={"B2": "WY"},
        ),
    )
    group, second, third = plan.unit[0], plan.unit[1], plan.unit[2]
    assert plan.bias[group, 8] == 2.0  # the mean of those that have one
    assert (
        plan.bias[:, 0] == 0.5 + np.where(np.arange(9) == second, 3.0, np.where(np.arange(9) == third, 1.0, 0))
    ).all()
    assert np.isneginf(plan.bias[:, 1]).all()
    assert np.isneginf(plan.bias[group, [18, 19]]).all() and np.isneginf(plan.bias).sum() == 11


def test_temperatures():
    plan = design_plan(PAIR, Constraints(temperature=0.3, tied=("A1=B1",), temperature_at={"A1": 0.0, "A2-3": 1.5}))
    assert plan.temperature[plan.unit[[0, 1, 2, 3]]].tolist() == [0.0, 1.5, 1.5, 0.3]


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"fixed": "C"}, "fixed: made: 'C' names no chain; the chains are 'A', 'B'"),
        ({"designed": "a1"}, "designed: .* the nearest chain is 'A'"),
        ({"fixed": "A1-9"}, "there is no residue 9; the nearest are A4, A5, A6"),
        ({"fixed": "A1", "excluded": "A1-2"}, "A1 is both fixed and excluded"),
        ({"sequence": {"A": "KKK"}}, "3 letters, but the chain has 6 residues"),
        ({"sequence": {"a": "KKKKKK"}}, "no chain 'a'; the nearest is"),
        ({"sequence": {"A": "KKBKKK"}}, "'B' is no residue type"),
        ({"sequence": {"A": "K_____"}, "excluded": "A1"}, "A1 is excluded, but has a type"),
        ({"tied": ("A1",)}, "does not tie anything"),
        ({"tied": ("A1=",)}, "does not tie anything"),
        ({"tied": ("A1=x*B1",)}, "'x' is no weight"),
        ({"tied": ("A1-2=B1-3",)}, "A1-2 has 2 and B1-3 has 3 residues"),
        ({"tied": ("A1=A1",)}, "ties a residue to itself"),
        ({"tied": ("A1=B1", "B1=B2")}, "B1 is in two ties"),
        ({"tied": ("A=B",), "fixed": "A1,B1"}, "A1 and B1 are tied, but fixed to"),
        ({"tied": ("A5=B5",), "fixed": "A5"}, "A5 is tied and fixed, but its type is unknown"),
        ({"omit": "B"}, "omit: 'B' is no residue type; the types are ACDE"),
        ({"omit": RESIDUE_LETTERS[:20]}, "all residue types are omitted at A1"),
        ({"omit": "ACDEFGHIKLMNPQRSTV", "omit_at": {"B2": "WY"}}, "all residue types are omitted at B2"),
        ({"bias": {"AC": 1.0}}, "'AC' is no residue type"),
        ({"temperature_at": {"A1-2": 0.5, "A2": 1.0}}, "A2, or what it is tied to, has two temperatures, 0.5 and 1"),
    ],
)  # fmt: skip
def test_refused(constraints, message):
    with pytest.raises(ConstraintError, match=message):
        design_plan(PAIR, Constraints(**constraints))


def test_chains_without_a_common_number_are_not_tied_by_number():
    structure = made_structure({"A": numbered(1, 4), "B": numbered(11, 14)})
    with pytest.raises(ConstraintError, match="no residue number in common"):
        design_plan(structure, Constraints(tied=("A=B",)))
    assert len(design_plan(structure, Constraints(tied=("A1-4=B11-14",))).bias) == 4


def test_file(tmp_path):
    path = tmp_path / "constraints.json"
    everything = {
        "fixed": "A1", "designed": "A", "excluded": "", "sequence": {"A": "K_____"}, "tied": ["A2=0.5*A3"],
        "homo_oligomer": False, "omit": "C", "omit_at": {"A3": "P"}, "bias": {"K": -1}, "bias_at": {"A4": {"E": 2}},
        "temperature": 0.2, "temperature_at": {"A5": 1},
    }  # fmt: skip
    path.write_text(json.dumps({"*": {"omit": "CM"}, "made": everything}))
    document = read_constraints_file(path)
    assert document == {"*": {"omit": "CM"}, "made": everything}
    constraints = constraints_from(document["made"], "made: ")
    assert constraints.tied == ("A2=0.5*A3",) and set(vars(constraints)) == set(everything)
    assert design_plan(PAIR, constraints).fixed_type[0] == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ('{"ä": {}}', "is no JSON: 'utf-8' codec"),
        ("[]", "must be an object of objects"),
        ('{"a": 1}', "must be an object of objects"),
        ('{"a": {"fixd": "A1"}}', "'a': unknown constraint 'fixd'; did you mean fixed"),
        ('{"a": {"fixed": 3}}', "fixed must be text"),
        ('{"a": {"fixed": "A1"}, "a": {}}', "'a' is there twice"),
        ('{"a": {"bias": {"A": "1"}}}', "bias must be an object from letters to numbers"),
        ('{"a": {"bias": {"A": NaN}}}', "bias must be"),
        ('{"a": {"temperature": -1}}', "temperature must be a number of at least 0"),
        ('{"a": {"tied": "A=B"}}', "tied must be a list"),
        ('{"a": {"homo_oligomer": 1}}', "homo_oligomer must be true or false"),
    ],
)
def test_files_that_are_refused(tmp_path, text, message):
    path = tmp_path / "constraints.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConstraintError, match=message):
        read_constraints_file(path)


@dataclass
class Demand:
    """A random set of constraints, and what they must come to, row by row, found without the code under test."""

    structure: Structure
    values: dict
    groups: list[list[int]] = field(default_factory=list)
    fixed: dict[int, int] = field(default_factory=dict)
    omitted: dict[int, set[int]] = field(default_factory=dict)
    forced: dict[int, int] = field(default_factory=dict)
    unseen: set[int] = field(default_factory=set)
    native: set[int] = field(default_factory=set)


def random_demand(seed: int) -> Demand:
    """Two or three chains of 5 to 13 residues, with gaps and insertion codes, under constraints of all kinds."""
    generator = np.random.default_rng(seed)
    chain_ids = list(generator.permutation(["A", "B", "C", "H", "L"])[: generator.integers(2, 4)])
    chains = {}
    for chain in chain_ids:
        numbers = np.sort(generator.choice(np.arange(-2, 25), generator.integers(4, 13), replace=False)).tolist()
        residues = [(number, " ") for number in numbers]
        place = int(generator.integers(len(residues)))
        chains[str(chain)] = [*residues[: place + 1], (residues[place][0], "A"), *residues[place + 1 :]]
    structure = made_structure(chains, seed, name=f"made{seed}")
    for row in range(len(structure)):
        if generator.random() < 0.05:
            structure.atom_mask[row, generator.integers(4)] = False
    names = [residue_name(structure, row) for row in range(len(structure))]
    demand = Demand(structure, {}, unseen=set(np.flatnonzero(~structure.backbone_complete).tolist()))
    free = generator.permutation(len(structure)).tolist()

    def take(most: int) -> list[int]:
        return [free.pop() for _ in range(min(int(generator.integers(most + 1)), len(free) - 1))]

    excluded = take(2)
    demand.values["excluded"] = ",".join(names[row] for row in excluded)
    demand.unseen |= set(excluded)
    demand.groups = [group for group in (take(4) for _ in range(3)) if len(group) > 1]
    weights = [generator.choice(["", "0.5*", "2*", "-0.25*"], size=len(group)) for group in demand.groups]
    demand.values["tied"] = [
        "=".join(f"{weight}{names[row]}" for weight, row in zip(each, group, strict=True))
        for each, group in zip(weights, demand.groups, strict=True)
    ]
    kept = take(6)
    demand.values["fixed"] = " ".join(names[row] for row in kept)
    demand.fixed |= {row: int(structure.residue_type[row]) for row in kept}
    demand.native |= set(kept)
    given = dict.fromkeys(take(4), 0)
    if demand.groups and generator.random() < 0.5:
        given[demand.groups[0][0]] = 0  # and with it the whole group
    sequences = {chain: ["_"] * len(residues) for chain, residues in chains.items()}
    starts = {chain: int(np.flatnonzero(structure.chain_index == i)[0]) for i, chain in enumerate(chains)}
    for row in given:
        given[row] = int(generator.integers(20))
        chain = structure.chain_ids[structure.chain_index[row]]
        sequences[chain][row - starts[chain]] = RESIDUE_LETTERS[given[row]]
        members = next((group for group in demand.groups if row in group), [row])
        demand.fixed |= dict.fromkeys(members, given[row])
    demand.values["sequence"] = {chain: "".join(parts) for chain, parts in sequences.items() if set(parts) != {"_"}}
    everywhere = set(generator.choice(19, 3, replace=False).tolist())  # one type is always left
    demand.values["omit"] = "".join(RESIDUE_LETTERS[kind] for kind in everywhere)
    demand.omitted = {row: set(everywhere) for row in range(len(structure))}
    demand.values["omit_at"], demand.values["bias_at"], demand.values["temperature_at"] = {}, {}, {}
    open_rows = [row for row in range(len(structure)) if row not in demand.fixed and row not in excluded]
    for row in generator.permutation(open_rows)[:6].tolist():
        members = next((group for group in demand.groups if row in group), [row])
        types = set(generator.choice(19, 8, replace=False).tolist())
        demand.values["omit_at"][names[row]] = "".join(RESIDUE_LETTERS[kind] for kind in types)
        for member in members:
            demand.omitted[member] |= types
    for row in generator.permutation(open_rows)[:3].tolist():
        members = next((group for group in demand.groups if row in group), [row])
        if any(member in demand.forced for member in members):
            continue
        kind = int(generator.integers(20))
        demand.values["bias_at"][names[row]] = {RESIDUE_LETTERS[kind]: 1000.0}
        demand.values["temperature_at"][names[row]] = float(generator.choice([0.0, 0.5]))
        demand.forced |= dict.fromkeys(members, kind)
    demand.values["bias"] = {RESIDUE_LETTERS[kind]: float(generator.normal()) for kind in range(0, 20, 3)}
    if generator.random() < 0.3:
        keeps = {names[row] for row in range(len(structure)) if row not in set(kept)}
        demand.values["designed"] = ",".join(sorted(keeps))
    return demand


MODELS = [tiny_model(), tiny_model(diffusion_kernel="uniform"), tiny_model(use_discrete_diffusion=False)]


def assert_kept(seed: int) -> None:
    """Design under the random demand number `seed`, and look at every residue of every design."""
    demand = random_demand(seed)
    structure, generator = demand.structure, np.random.default_rng(seed)
    model = MODELS[int(generator.integers(3)) if seed % 3 == 0 else 0]
    absorbing = model is MODELS[0]
    how = {
        "num_sequences": 2,
        "constraints": constraints_from(demand.values, "random: "),
        "temperature": float(generator.choice([0.0, 0.1, 1.0])),
        "num_steps": [1, 3, "L"][generator.integers(3)],
        "order": str(generator.choice(ORDERS)) if absorbing else None,
        "remask": float(generator.choice([0.0, 0.3])) if absorbing else 0.0,
        "seed": seed,
    }
    result = design(model, structure, **how)
    for types in result.designs.residue_type.tolist():
        for group in demand.groups:
            assert len({types[row] for row in group if not (set(group) <= demand.unseen)}) <= 1
        for row, kind in enumerate(types):
            group = next((group for group in demand.groups if row in group), [row])
            if row in demand.fixed:
                assert kind == demand.fixed[row]
            elif set(group) <= demand.unseen:
                assert kind == 20
            elif kind in range(20):
                assert kind not in demand.omitted[row]
                if row in demand.forced and demand.forced[row] not in demand.omitted[row]:
                    assert kind == demand.forced[row]
            else:
                raise AssertionError(f"{residue_name(structure, row)} has no type")
    # Another native sequence under the same demands: the same designs, but for what was to stay native.
    other = with_sequence(structure, seed)
    types = other.residue_type.copy()
    kept = sorted(demand.native)
    types[kept] = structure.residue_type[kept]
    again = design(model, replace(other, residue_type=types), **how)
    np.testing.assert_array_equal(again.designs.residue_type, result.designs.residue_type)
    np.testing.assert_array_equal(again.scores, result.scores)


@pytest.mark.parametrize("block", range(6))
def test_designs_keep_to_random_constraints(block):
    for seed in range(10 * block, 10 * block + 10):
        assert_kept(seed)


@pytest.mark.proof
def test_designs_keep_to_a_thousand_random_sets_of_constraints():
    ties_across_chains = 0
    for seed in range(1000, 2000):
        assert_kept(seed)
        demand = random_demand(seed)
        ties_across_chains += any(len(set(demand.structure.chain_index[group])) > 1 for group in demand.groups)
    print(f"1,000 sets of constraints kept, {ties_across_chains} of them with ties across chains")
    assert ties_across_chains > 500
