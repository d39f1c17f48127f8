"""The rank of a process and the number of ranks, as a value."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch.distributed


@dataclass(frozen=True, kw_only=True)
class World:
    """The rank of this process among the processes of a training run."""

    rank: int = 0
    num_ranks: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.num_ranks:
            raise ValueError(f"rank {self.rank} of {self.num_ranks} does not exist; ranks count from 0")

    @classmethod
    def detect(cls) -> World:
        """Return this process's rank from torch.distributed if initialised, else RANK and WORLD_SIZE, else 0 of 1."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(rank=torch.distributed.get_rank(), num_ranks=torch.distributed.get_world_size())
        return cls(rank=int(os.environ.get("RANK", "0")), num_ranks=int(os.environ.get("WORLD_SIZE", "1")))

    def rank_slice(self, count: int) -> range:
        """Return the slice of ``count`` consecutive items that belongs to this rank.

        The slices of all ranks are consecutive; the first ``count % num_ranks`` ranks have one more item. A smaller
        ``count`` never gives a larger slice.
        """
        base, extra = divmod(count, self.num_ranks)
        first = self.rank * base + min(self.rank, extra)
        return range(first, first + base + (self.rank < extra))
