"""Fused layers: the kernels in Triton's interpreter, what the compiler makes of them, and where they are refused.

No GPU is needed, and none is used.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from protein_model.training import fusing
from protein_model.training.arguments import Settings
from protein_model.training.compatibility import run_differences
from protein_model.training.fused_layer import LAUNCHES, padded_width
from protein_model.training.launching import LaunchError

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed, which torch for a CPU comes without"
)
CHECKS = Path(__file__).with_name("fused_layer_checks.py")


@needs_triton
def test_kernels_agree_with_torch_in_the_interpreter():
    """In a process of its own: Triton decides when it is imported whether it interprets."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CHECKS)]
    done = subprocess.run(
        command,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=CHECKS.parents[2],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"[1-9]\d* passed", done.stdout) and "skipped" not in done.stdout


# Of an H100: bytes of shared memory for one program, of a multiprocessor for all, and its registers. A program of
# 4 or 8 warps may keep a few numbers of a thread in memory instead.
SHARED, ALL_SHARED, REGISTERS, SPILLED_BYTES = 227 * 1024, 228 * 1024, 65536, 64
RESERVED_SHARED = 1024  # by the system, for each program
MATRICES = ("from_neighbour", "from_residue", "weights", "edge_weight", "out_weight", "multiplier", "gathered")
OF_EDGES = ("edges", "new_edges", "of_new_edges", "of_edges")
IN_16_BITS = {*MATRICES, "of_gathered", "of_before", "of_from_residue", "messages"}


def compiled(name, width, num_neighbours, tmp_path):
    """Registers and bytes on the stack of a thread, bytes of shared memory of a program, for an H100."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from protein_model.training import fused_kernels

    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):
        pytest.skip("older releases of Triton describe the arguments of a kernel in another way")
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("this release of Triton comes without cuobjdump, which tells the registers")
    kernel, launch = getattr(fused_kernels, name), LAUNCHES[name]
    constants = {
        "H": width, "K": num_neighbours, "WIDE": padded_width(width), "ROWS": launch.rows, "MULTIPLIED": True,
    }  # fmt: skip
    constants = {argument: constants[argument] for argument in kernel.arg_names if argument in constants}
    signature = {
        argument: "constexpr" if argument in constants
        else "i32" if argument in ("num_residues", "num_edges")
        else "fp32" if argument == "epsilon"
        else "*i64" if argument == "neighbours"
        else "*bf16" if argument in IN_16_BITS
        else "*fp32"
        for argument in kernel.arg_names
    }  # fmt: skip
    # torch gives out memory at multiples of 16 bytes and more, which Triton sees when it launches.
    attributes = {
        (place,): [["tt.divisibility", 16]] for place, kind in enumerate(signature.values()) if kind.startswith("*")
    }
    found = triton.compile(
        ASTSource(kernel, signature, constexprs=constants, attrs=attributes),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": launch.warps, "num_stages": launch.stages},
    )
    (tmp_path / "kernel.cubin").write_bytes(found.asm["cubin"])
    usage = subprocess.run(
        [str(tool), "-res-usage", str(tmp_path / "kernel.cubin")], capture_output=True, text=True, check=True
    ).stdout
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
    return registers, stack, found.metadata.shared


@needs_triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="what is interpreted is not compiled")
@pytest.mark.parametrize("name", LAUNCHES)
@pytest.mark.parametrize(("width", "num_neighbours"), [(128, 48), (128, 30), (80, 30)])
def test_kernels_compile_for_an_h100_and_fit(name, width, num_neighbours, tmp_path):
    registers, stack, shared = compiled(name, width, num_neighbours, tmp_path)
    print(f"{name} H={width} K={num_neighbours}: {registers} registers, {stack} B of stack, {shared:,} B shared")
    launch = LAUNCHES[name]
    assert stack <= SPILLED_BYTES
    assert shared <= SHARED
    assert launch.at_once * (shared + RESERVED_SHARED) <= ALL_SHARED
    assert launch.at_once * launch.warps * 32 * registers <= REGISTERS


def test_the_package_does_not_import_triton_before_it_is_wanted():
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "import protein_model.training.trainer, protein_model.training.fused_layer"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=CHECKS.parents[2], timeout=300)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "for matrix products in 16 bits, but the precision is no: give --mixed_precision bf16"),
        ({"mixed_precision": "bf16"}, "needs a CUDA GPU, but this run is on the device cpu"),
    ],
)
def test_a_launch_without_what_it_needs_is_refused_before_training_begins(start, options, message, tmp_path):
    with pytest.raises(LaunchError, match=f"--fused_layers .*{message}"):
        start(fused_layers=True, **options)
    assert not (tmp_path / "run" / "settings.json").exists()


class SomeGpu:
    """What is asked of an Accelerator."""

    is_fsdp2 = False
    mixed_precision = "bf16"
    device = torch.device("cuda", 0)


def test_sharded_launches_missing_triton_and_kernels_that_fail_are_refused(monkeypatch):
    settings, accelerator = Settings(fused_layers=True), SomeGpu()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    accelerator.is_fsdp2 = True
    with pytest.raises(LaunchError, match=r"\(FSDP2\): leave it out, or launch with accelerate_configs/multi_gpu_8"):
        fusing.refuse_impossible_fusion(accelerator, settings)
    accelerator.is_fsdp2 = False
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "triton.errors", None)
        with pytest.raises(LaunchError, match="needs Triton, which cannot be imported"):
            fusing.refuse_impossible_fusion(accelerator, settings)

    def fails(*arguments):
        raise RuntimeError("\nout of resource: shared memory\nmore")

    monkeypatch.setitem(sys.modules, "triton.errors", type("Errors", (), {"TritonError": KeyError}))
    monkeypatch.setattr(fusing, "worst_difference", fails)
    with pytest.raises(LaunchError, match=r"do not run on Some GPU: out of resource: shared memory\. They need"):
        fusing.refuse_impossible_fusion(accelerator, settings)
    for worst in (0.5, float("nan"), float("inf")):
        monkeypatch.setattr(fusing, "worst_difference", lambda *arguments, worst=worst: ("the gradient of out", worst))
        with pytest.raises(LaunchError, match=r"do not compute what torch does \(the gradient of out is off by"):
            fusing.refuse_impossible_fusion(accelerator, settings)
    monkeypatch.setattr(fusing, "worst_difference", lambda *arguments: ("edges", 0.01))
    fusing.refuse_impossible_fusion(accelerator, settings)


def test_a_resume_may_change_it_and_is_warned():
    saved, now = ({"settings": {"fused_layers": on}, "data": {}, "versions": {}} for on in (False, True))
    (difference,) = run_differences(saved, now)
    assert difference.severity == "warn"
    assert "fused_layers: False in the checkpoint, True now; rounding and dropout are others" in str(difference)
