"""Cutting whole tensors into what each process holds; putting them together again is tested with real processes."""

from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.tensor import DTensor, Shard, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from protein_model.training.slices import drop_gathered, is_sliced, own_slice, sliced_like, whole


@contextmanager
def process(rank: int, processes: int):
    """As if this were one of several processes; what it sends goes nowhere."""
    dist.init_process_group("fake", rank=rank, world_size=processes, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (processes,))
    finally:
        dist.destroy_process_group()


def slice_of(shape: list[int], mesh) -> DTensor:
    """A tensor of zeros that is cut along its first dimension, as FSDP2 cuts weights."""
    rows = [len(part) for part in torch.arange(shape[0]).chunk(mesh.size())] + [0] * mesh.size()
    local = torch.zeros(rows[mesh.get_local_rank()], *shape[1:])
    return DTensor.from_local(
        local, mesh, [Shard(0)], shape=torch.Size(shape), stride=torch.zeros(shape).stride(), run_check=False
    )


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 5))
def test_the_slices_of_all_processes_are_the_whole(shape, processes):
    tensor = torch.arange(float(torch.Size(shape).numel())).view(shape)
    parts = []
    for rank in range(processes):
        with process(rank, processes) as mesh:
            pattern = slice_of(shape, mesh)
            cut = sliced_like(tensor, pattern)
            assert is_sliced(cut) and cut.shape == tensor.shape and cut.placements == pattern.placements
            assert own_slice(cut).shape == own_slice(pattern).shape
            # No memory of the whole is kept, nor changed.
            assert own_slice(cut).untyped_storage().nbytes() == 4 * own_slice(cut).numel()
            parts.append(own_slice(cut).clone())
            own_slice(cut).fill_(-1)
    assert torch.equal(torch.cat(parts), tensor)
    assert tensor.min() == 0


def test_what_is_done_to_the_own_slice_is_done_to_the_tensor():
    with process(0, 2) as mesh:
        tensor = slice_of([3, 2], mesh)
        own_slice(tensor).add_(1)
        assert torch.equal(tensor.to_local(), torch.ones(2, 2))


@pytest.mark.parametrize("function", [own_slice, whole, lambda tensor: sliced_like(tensor, torch.zeros(2))])
def test_whole_tensors_are_left_as_they_are(function):
    tensor = torch.ones(2)
    assert not is_sliced(tensor)
    assert function(tensor) is tensor
    drop_gathered(torch.nn.Linear(1, 1))
