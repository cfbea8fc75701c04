"""Several processes that train one model (started by torchrun): each computes its part of every batch.

All processes hold the same weights and draw the same random numbers for the whole batch, and each takes its own part.
Gradients are averaged before the optimisers see them, so that two processes do what one does with their batch together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed


@dataclass(frozen=True)
class Workers:
    """The processes of one training, as one of them sees them."""

    rank: int = 0  # of this process, from 0
    world: int = 1  # how many there are

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by their mean over all processes, in place, by one exchange."""
        if self.world == 1:
            return
        listed = list(tensors)
        if not listed:
            return
        flat = torch.cat([tensor.reshape(-1).float() for tensor in listed])
        distributed.all_reduce(flat)
        flat /= self.world
        for tensor, part in zip(listed, flat.split([tensor.numel() for tensor in listed]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        if self.world == 1:
            return tensor
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether any process says yes."""
        if self.world == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=device)).item() > 0)

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.world > 1:
            distributed.barrier()

    def part_of(self, batch: int) -> range:
        """Which samples of a batch over all processes are this one's. ValueError if it cannot be shared out evenly."""
        if batch % self.world:
            raise ValueError(f"a batch of {batch} cannot be shared by {self.world} processes: choose a multiple")
        size = batch // self.world
        return range(self.rank * size, (self.rank + 1) * size)


ALONE = Workers()

# While the first process looks at the reals, or measures figures of quality, the others wait for it: 50,000 pictures at
# 10 per second are 83 minutes, and the libraries' own limits 10 (NCCL) and 30 (gloo). A process that has died ends the
# others at once, whatever this says: torchrun sees to that.
LONGEST_WAIT = timedelta(hours=12)


def find_workers() -> Workers:
    """Who this process is, by the environment that torchrun sets; alone without it."""
    return Workers(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


@contextmanager
def joined_workers() -> Iterator[Workers]:
    """Within, the processes that torchrun started can exchange tensors: by NCCL on GPUs, else by gloo."""
    workers = find_workers()
    if workers.world == 1:
        yield workers
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=LONGEST_WAIT)
    try:
        yield workers
    finally:
        distributed.destroy_process_group()
