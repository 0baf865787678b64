"""Compiled runs: how often is compiled, what the results are, and what is refused.

Graphs are taken as the compiler would get them, and run as they are: a C++ compiler would need minutes.
"""

import pytest
import torch

from protein_model.training import compiling
from protein_model.training.launching import LaunchError

from .comparison import assert_same, state_of

# geometry, encoder layer, decoder layer; the last two once with gradients and once without
GRAPHS = [
    (False, "backbone"),
    (False, "edge_norm"),
    (False, "message_norm"),
    (True, "edge_norm"),
    (True, "message_norm"),
]


@pytest.fixture
def graphs(monkeypatch):
    """What was compiled: with gradients or without, and a part of the name of the first input."""
    found = []

    def backend(graph, inputs):
        first = next(iter(graph.graph.nodes)).name
        part = next((part for part in ("edge_norm", "message_norm", "backbone") if part in first), "trial")
        if part != "trial":
            found.append((torch.is_grad_enabled(), part))
        return graph.forward

    monkeypatch.setattr(compiling, "BACKEND", backend)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(optimize_ddp=True):  # and back, whatever a run makes of it
        yield found
    torch._dynamo.reset()


def seen_shapes(trainer):
    """Gets (structures, residues) of every micro-batch that is trained on."""
    shapes, accumulate = set(), trainer.steps.accumulate

    def recorded(batch, *arguments):
        shapes.add((len(batch["row"]), len(batch["residue_type"])))
        accumulate(batch, *arguments)

    trainer.steps.accumulate = recorded
    return shapes


def test_all_layers_are_compiled_once_for_training_and_once_for_validation(start, graphs):
    """With all that goes on around the layers: 16 bits, recomputed layers, noise levels, varying batches."""
    options = {"mixed_precision": "bf16", "gradient_checkpointing": True, "diffusion_kernel": "uniform"}
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2}
    trainer = start(epochs=2, batch_residues=450, compile=True, **layers, **options)
    shapes = seen_shapes(trainer)
    trainer.fit()
    assert sorted(graphs) == GRAPHS
    assert len({structures for structures, _ in shapes}) > 1 and len({residues for _, residues in shapes}) > 2


def test_results_are_those_of_a_run_that_is_not_compiled(start, graphs, capsys):
    """Without dropout, up to rounding, also where validation structures are longer than the batches."""
    options = {"epochs": 2, "batch_residues": 108, "dropout": 0.0}
    plain = start(save_dir="plain", **options)
    plain.fit()
    assert not graphs
    compiled = start(save_dir="compiled", compile=True, **options)
    compiled.fit()
    assert "1 validation structure is longer, and validated without" in capsys.readouterr().out
    assert sorted(graphs) == GRAPHS
    (weights, history, _, _), (found, found_history, _, _) = state_of(plain), state_of(compiled)
    assert weights.keys() == found.keys()
    for epoch, found_epoch in zip(history, found_history, strict=True):
        # Recoveries may turn on the last bit of a logit.
        names = [name for name in epoch if not name.endswith("recovery")]
        assert [found_epoch[name] for name in names] == pytest.approx([epoch[name] for name in names], rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_compiled_again_a_run_goes_on_bitwise_and_not_compiled_it_is_warned_of(start, graphs, capsys):
    whole = start(save_dir="whole", epochs=2, save_every_steps=2, compile=True)
    whole.fit()
    middle = str(min(whole.save_dir.glob("checkpoint_step_*")))
    capsys.readouterr()
    resumed = start(resume_from=middle, save_dir="again", compile=True)
    assert "compile" not in capsys.readouterr().out.split("Resumed from")[0]
    resumed.fit()
    assert_same(state_of(resumed), state_of(whole))
    start(resume_from=middle, save_dir="plain", dry_run=True)
    assert "compile: True in the checkpoint, False now; rounding and dropout are others" in capsys.readouterr().out


def test_a_machine_that_cannot_compile_is_told_of_before_training_begins(start, graphs, monkeypatch, tmp_path):
    def backend(graph, inputs):
        raise RuntimeError("No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')")

    monkeypatch.setattr(compiling, "BACKEND", backend)
    with pytest.raises(LaunchError, match=r"--compile: .*No working C\+\+ compiler found.* It needs g\+\+"):
        start(compile=True)
    assert not (tmp_path / "run" / "settings.json").exists()


def test_compilation_by_the_launcher_is_refused(start, monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    with pytest.raises(LaunchError, match=r"dynamo_backend EAGER.* give --compile"):
        start()
