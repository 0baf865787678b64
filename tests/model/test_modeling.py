"""The model as a whole: what it starts from, what it must not see, loading and saving."""

import math

import numpy as np
import pytest
import torch

from protein_model.model.configuration import ProteinModelConfig
from protein_model.model.modeling import ProteinModel, sequence_loss
from protein_model.structures import read_structure
from protein_model.training.arguments import EXAMPLES


@pytest.fixture(scope="module")
def inputs():
    """One real protein with a residue whose backbone is incomplete, and a second one behind it."""
    structures = [read_structure(EXAMPLES / name) for name in ("1orc.pdb.gz", "5PTI.cif.gz")]
    backbone = torch.from_numpy(np.concatenate([structure.coordinates[:, :4] for structure in structures]))
    lengths = torch.tensor([len(structure) for structure in structures])
    mask = torch.ones(len(backbone), dtype=torch.bool)
    mask[5] = False
    return {
        "backbone": backbone,
        "backbone_mask": mask,
        "structure_index": torch.repeat_interleave(torch.arange(2), lengths),
        "chain_index": torch.zeros(len(backbone), dtype=torch.int64),
        "position": torch.cat([torch.arange(int(length)) for length in lengths]),
    }


def model_of(**changed):
    torch.manual_seed(0)
    settings = {"hidden_dim": 24, "num_encoder_layers": 2, "num_decoder_layers": 1, "num_neighbors": 8, **changed}
    return ProteinModel(ProteinModelConfig(use_discrete_diffusion=True, **settings)).eval()


def trained(model):
    """With weights that are no longer at zero anywhere, as after training."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_training_starts_from_even_probabilities(inputs):
    tokens = torch.full((len(inputs["position"]),), 20)
    output = model_of()(**inputs, tokens=tokens, noise_level=torch.ones(2), labels=torch.zeros_like(tokens))
    assert output.loss.item() == pytest.approx(math.log(20), abs=1e-6)


def test_predictions_do_not_change_under_rotation_and_translation(inputs):
    model = trained(model_of())
    tokens = torch.randint(0, 21, (len(inputs["position"]),))
    expected = model(**inputs, tokens=tokens, noise_level=torch.full((2,), 0.5)).logits
    rotation, _ = torch.linalg.qr(torch.randn(3, 3))
    rotation = rotation * torch.linalg.det(rotation).sign()
    moved = {**inputs, "backbone": inputs["backbone"] @ rotation.T + torch.tensor([30.0, -20.0, 10.0])}
    found = model(**moved, tokens=tokens, noise_level=torch.full((2,), 0.5)).logits
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_a_residue_without_a_backbone_gives_no_messages(inputs):
    model = trained(model_of())
    tokens = torch.randint(0, 20, (len(inputs["position"]),))
    other_tokens, other_backbone = tokens.clone(), inputs["backbone"].clone()
    other_tokens[5] = (tokens[5] + 1) % 20
    other_backbone[5] += 3.0
    one = model(**inputs, tokens=tokens, noise_level=torch.zeros(2)).logits
    other = model(**{**inputs, "backbone": other_backbone}, tokens=other_tokens, noise_level=torch.zeros(2)).logits
    rest = torch.arange(len(tokens)) != 5
    torch.testing.assert_close(one[rest], other[rest], rtol=0, atol=0)


def test_structures_of_a_batch_do_not_see_each_other(inputs):
    model = trained(model_of())
    tokens = torch.randint(0, 20, (len(inputs["position"]),))
    together = model(**inputs, tokens=tokens, noise_level=torch.tensor([0.3, 0.7])).logits
    first = inputs["structure_index"] == 0
    alone = model(
        **{name: value[first] for name, value in inputs.items()}, tokens=tokens[first], noise_level=torch.tensor([0.3])
    ).logits
    torch.testing.assert_close(together[first], alone, rtol=1e-4, atol=1e-4)


def test_neighbours_in_space_matter_and_their_types_do(inputs):
    model = trained(model_of())
    tokens = torch.randint(0, 20, (len(inputs["position"]),))
    before = model(**inputs, tokens=tokens, noise_level=torch.zeros(2)).logits
    changed = tokens.clone()
    changed[20] = (tokens[20] + 1) % 20
    after = model(**inputs, tokens=changed, noise_level=torch.zeros(2)).logits
    assert ((before - after).abs().amax(-1) > 1e-3).sum() > 3


def test_saved_and_loaded_it_predicts_the_same(inputs, tmp_path):
    model = trained(model_of())
    model.save_pretrained(tmp_path)
    again = ProteinModel.from_pretrained(tmp_path).eval()
    tokens = torch.full((len(inputs["position"]),), 20)
    for one in (model, again):
        one.requires_grad_(False)
    assert torch.equal(
        model(**inputs, tokens=tokens, noise_level=torch.ones(2)).logits,
        again(**inputs, tokens=tokens, noise_level=torch.ones(2)).logits,
    )


def test_sums_of_the_loss_are_those_of_its_definition():
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 20), torch.tensor([3, 0, 19, 20, 5, 5, 1])
    scored = torch.tensor([True, True, False, False, True, True, True])
    sums = sequence_loss(logits, labels, scored, label_smoothing=0.2)
    logp = logits.log_softmax(-1)
    nll = [-logp[row, labels[row]] for row in range(7) if scored[row]]
    smooth = [0.8 * value - 0.2 * logp[row].mean() for value, row in zip(nll, [0, 1, 4, 5, 6], strict=True)]
    assert sums.count == 5
    torch.testing.assert_close(sums.nll, torch.stack(nll).sum())
    torch.testing.assert_close(sums.objective, torch.stack(smooth).sum())


def test_recomputing_layers_changes_no_bit(inputs):
    """Dropout included."""
    tokens, results = torch.full((len(inputs["position"]),), 20), []
    for recompute in (False, True):
        model = trained(model_of(dropout=0.3)).train()
        model.encoder.recompute = recompute
        torch.manual_seed(7)
        model(**inputs, tokens=tokens, noise_level=torch.zeros(2), labels=torch.zeros_like(tokens)).loss.backward()
        results.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
