"""The rows of batch s: a pure function of integers, in O(1) memory.

The stream is endless and indexed by the step. Global batch ``s`` holds ``global_batch`` consecutive slots of it; a
rank's batch is its slice of them (`World.rank_slice`). Epoch ``e`` visits the rows in the order of a keyed
permutation, and ``remainder`` says what happens if an epoch ends inside a batch:

``wrap``
    the batch continues with the next epoch's first rows. Every row exactly once per epoch; no padding.
``pad``
    the batch is filled up with padding (row id -1); every epoch begins with a batch. Every row exactly once per epoch.
``drop``
    the rows of the incomplete batch are dropped, different ones in every epoch (with ``shuffle=False`` always the last
    ones); every epoch begins with a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gemsdata.kernels.keys import key_of
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.stream.mixture import Mixture
from gemsdata.stream.permutation import PADDING, Permutation, RowGroup

if TYPE_CHECKING:
    from gemsdata.stream.world import World

REMAINDERS = ("wrap", "pad", "drop")


class RowSource(Protocol):
    """The properties of a split that the order of its rows depends on."""

    @property
    def num_rows(self) -> int:
        """Number of rows of an epoch."""

    @property
    def needs_windows(self) -> bool:
        """Whether the split is larger than the cache, so that only a windowed shuffle is possible."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """The batches of one shard set."""

    permutation: Permutation
    global_batch: int
    """rows of a batch over all ranks, G"""
    remainder: str = "wrap"

    def __post_init__(self) -> None:
        if self.global_batch < 1:
            raise ValueError(f"global_batch = {self.global_batch}; give 1 or more")
        if self.remainder not in REMAINDERS:
            raise ValueError(f"remainder = {self.remainder!r}; give one of {', '.join(REMAINDERS)}")
        if self.remainder == "drop" and self.permutation.num_rows < self.global_batch:
            raise ValueError(
                f"a global batch of {self.global_batch} rows is larger than the split ({self.permutation.num_rows}"
                " rows), and remainder='drop' would drop all of it; use 'wrap' or 'pad', or a smaller batch"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of an epoch; with ``wrap``, the last one is shared with the next epoch."""
        return self.num_steps(1)

    @property
    def rotates(self) -> bool:
        """Whether each epoch begins at a different place of its order.

        A windowed order ends with rows of the same window, or of the last few, in every epoch: without rotation, these
        would be dropped in every epoch.
        """
        uneven = self.permutation.num_rows % self.global_batch != 0
        return self.remainder == "drop" and self.permutation.windowed and uneven

    def num_steps(self, num_epochs: int) -> int:
        """Return the number of batches of the first ``num_epochs`` epochs."""
        if self.remainder == "wrap":
            return -(-num_epochs * self.permutation.num_rows // self.global_batch)
        return num_epochs * self._batches()

    def epoch(self, step: int) -> int:
        """Return the epoch of the first row of global batch ``step``."""
        if self.remainder == "wrap":
            return step * self.global_batch // self.permutation.num_rows
        return step // self._batches()

    def row_groups(self, step: int, world: World) -> list[RowGroup]:
        """Return the rows of a rank's batch ``step``: its slots in order, none missing."""
        if self.remainder == "wrap":
            mine = world.rank_slice(self.global_batch)
            first = step * self.global_batch + mine.start
            return [
                RowGroup(source=0, epoch=epoch, slots=slice(offset, offset + row_ids.size), row_ids=row_ids)
                for epoch, offset, row_ids in self.permutation.row_groups(first, len(mine))
            ]
        epoch, batch = divmod(step, self._batches())
        first = batch * self.global_batch
        mine = world.rank_slice(min(self.global_batch, self.permutation.num_rows - first))
        row_ids = np.full(len(world.rank_slice(self.global_batch)), PADDING, np.int64)
        self._epoch_rows(epoch, first + mine.start, row_ids[: len(mine)])
        return [RowGroup(source=0, epoch=epoch, slots=slice(0, row_ids.size), row_ids=row_ids)]

    def _epoch_rows(self, epoch: int, first: int, out: np.ndarray) -> None:
        """Write the rows at places first, first+1, ... of an epoch to ``out``; no batch has rows of two epochs."""
        if not self.rotates:
            self.permutation.rows(epoch, first, out)
            return
        num_rows = self.permutation.num_rows
        key = key_of(self.permutation.seed, RandomStream.EPOCH_START, self.permutation.source, epoch)
        first = (first + key % num_rows) % num_rows
        before_end = min(out.size, num_rows - first)
        self.permutation.rows(epoch, first, out[:before_end])
        self.permutation.rows(epoch, 0, out[before_end:])

    def _batches(self) -> int:
        whole, left = divmod(self.permutation.num_rows, self.global_batch)
        return whole + (left > 0 and self.remainder == "pad")


def build_order(
    sources: Sequence[RowSource],
    *,
    global_batch: int,
    seed: int,
    shuffle: bool | int,
    remainder: str,
    weights: Sequence[float] | None,
) -> Order | Mixture:
    """Return the order of the rows of one or several sources; the arguments are those of `build_loader`."""
    permutations = [
        Permutation(num_rows=source.num_rows, seed=seed, source=number, shuffle=shuffle)
        for number, source in enumerate(sources)
    ]
    if shuffle is True and any(source.needs_windows for source in sources):
        raise ValueError(
            "the split is larger than cache_bytes, so a shuffle over all rows would fetch every shard again and again;"
            " give ShardSet.open a larger cache_bytes, or shuffle=ROWS, the rows of a window, such as 100_000"
        )
    if len(sources) == 1:
        if weights is not None:
            raise ValueError("weights are for mixing several shard sets; one is given")
        return Order(permutation=permutations[0], global_batch=global_batch, remainder=remainder)
    if remainder != "wrap":
        raise ValueError(f"remainder = {remainder!r} is for a single shard set; the sets of a mixture always wrap")
    return Mixture(
        permutations=tuple(permutations),
        weights=tuple(float(source.num_rows) for source in sources) if weights is None else tuple(weights),
        global_batch=global_batch,
    )
