"""Topology as a value: which rank of how many, which worker of how many."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch.distributed
import torch.utils.data


@dataclass(frozen=True, kw_only=True)
class World:
    """A place in a run: which of the processes that train, and which of its workers."""

    rank: int = 0
    num_ranks: int = 1
    worker: int = 0
    num_workers: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.num_ranks and 0 <= self.worker < self.num_workers):
            raise ValueError(
                f"rank {self.rank} of {self.num_ranks}, worker {self.worker} of {self.num_workers}: there is no such"
                " place; ranks and workers count from 0"
            )

    @classmethod
    def detect(cls) -> World:
        """Return this process's place: by torch.distributed if initialised, else by RANK and WORLD_SIZE, else alone."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, num_ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            rank, num_ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        info = torch.utils.data.get_worker_info()
        if info is None:
            return cls(rank=rank, num_ranks=num_ranks)
        return cls(rank=rank, num_ranks=num_ranks, worker=info.id, num_workers=info.num_workers)

    def share(self, count: int) -> range:
        """Return which of ``count`` things in a row are this rank's.

        Consecutive; the first ``count % num_ranks`` ranks have one more. A rank's share of fewer things is never
        larger.
        """
        base, extra = divmod(count, self.num_ranks)
        first = self.rank * base + min(self.rank, extra)
        return range(first, first + base + (self.rank < extra))
