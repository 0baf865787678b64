"""The processes of a launch (`accelerate launch`, `torchrun`) that share the files of a folder; usually just one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch

Item = TypeVar("Item")
LONGEST_WAIT = timedelta(days=7)  # processes meet at the end only, and one may have the slower part of the files


class Processes:
    """This process and the others of its launch.

    Attributes
    ----------
    index, count : which one this is, of how many
    device : that this process computes on
    """

    def __init__(self) -> None:
        self.index, self.count = 0, 1
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState
            from accelerate.utils import parse_flag_from_env

            cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
            state = PartialState(cpu=cpu, timeout=LONGEST_WAIT)
            self.index, self.count, self.device = state.process_index, state.num_processes, state.device

    @property
    def first(self) -> bool:
        """True for the process that speaks and writes what belongs to all."""
        return self.index == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """The items of this process, dealt out in turn."""
        return list(items[self.index :: self.count])

    def gather(self, items: list[Item]) -> list[Item]:
        """The items of all processes, on all of them; waits for the slowest."""
        if self.count == 1:
            return items
        from accelerate.utils import gather_object

        return list(gather_object(items))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def close(self) -> None:
        """Part from the others when all are done; PyTorch warns of a launch that ends without.

        A launcher stops the others as soon as one has ended with a status other than 0, whatever they still write.
        """
        if self.count > 1:
            from accelerate import PartialState

            self.wait()
            PartialState().destroy_process_group()
