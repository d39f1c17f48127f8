"""Which rows form batch s: a pure function of integers, in O(1) memory.

The stream is endless and indexed by the step. Global batch ``s`` holds ``global_batch`` consecutive slots of it; a
rank's batch is its share of them (`World.share`). Epoch ``e`` visits the rows in the order of a keyed permutation,
and what happens where an epoch ends inside a batch is the stated option ``remainder``:

``wrap``
    the batch goes on with the next epoch's first rows. Every row exactly once per epoch; no slot is wasted.
``pad``
    the batch is filled up with padding (row id -1); every epoch begins with a batch. Every row exactly once per epoch.
``drop``
    the rows of the incomplete batch are left out, other ones in every epoch; every epoch begins with a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemsdata.kernels.keys import key_of
from gemsdata.kernels.order import permute_range
from gemsdata.kernels.random_streams import RandomStream

if TYPE_CHECKING:
    from gemsdata.stream.world import World

REMAINDERS = ("wrap", "pad", "drop")
PADDING = -1


@dataclass(frozen=True, kw_only=True)
class Run:
    """Rows of one epoch of one shard set within a rank's batch."""

    source: int
    """which shard set"""
    epoch: int
    slots: slice | np.ndarray
    """their places in the rank's batch: a slice, or int64[n]"""
    row_ids: np.ndarray
    """rows of the set's split, int64[n]; -1 is padding"""


@dataclass(frozen=True, kw_only=True)
class Permutation:
    """The order of the rows of one shard set in every epoch."""

    num_rows: int
    seed: int
    source: int = 0
    shuffle: bool | int = True
    """True: over all rows; an integer: chunks of this many neighbouring rows are permuted, and the rows within each
    chunk, so that a reader touches few shards at a time; False: as they are stored"""

    def __post_init__(self) -> None:
        if self.num_rows < 1:
            raise ValueError("the split has no rows; give another split, or shard more of the genome")
        if self.shuffle is not True and self.shuffle is not False and self.shuffle < 1:
            raise ValueError(f"shuffle = {self.shuffle}; give True, False or a number of rows from 1")

    def rows(self, epoch: int, first: int, out: np.ndarray) -> None:
        """Write the rows at places first, first+1, ... of an epoch to ``out`` (int64); all places < num_rows."""
        if self.shuffle is False:
            out[:] = np.arange(first, first + out.size)
        elif self.shuffle is True:
            permute_range(
                first, self.num_rows, np.uint64(key_of(self.seed, RandomStream.EPOCH_ORDER, self.source, epoch)), out
            )
        else:
            self._windowed_rows(self.shuffle, epoch, first, out)

    def _windowed_rows(self, window: int, epoch: int, first: int, out: np.ndarray) -> None:
        """Whole chunks in permuted order, then the short chunk that is left at the end."""
        num_whole = self.num_rows // window
        chunk_key = np.uint64(key_of(self.seed, RandomStream.EPOCH_ORDER, self.source, epoch))
        chunk = np.empty(1, np.int64)
        done = 0
        while done < out.size:
            place, within = divmod(first + done, window)
            size = window if place < num_whole else self.num_rows - num_whole * window
            chunk[0] = place
            if place < num_whole:
                permute_range(place, num_whole, chunk_key, chunk)
            part = out[done : done + size - within]
            row_key = np.uint64(key_of(self.seed, RandomStream.WINDOW_ORDER, self.source, epoch, int(chunk[0])))
            permute_range(within, size, row_key, part)
            part += chunk[0] * window
            done += part.size

    def runs(self, first: int, count: int) -> list[tuple[int, int, np.ndarray]]:
        """Return places first .. first+count-1 of the endless concatenation of epochs, as (epoch, offset, row_ids)."""
        found = []
        done = 0
        while done < count:
            epoch, place = divmod(first + done, self.num_rows)
            row_ids = np.empty(min(count - done, self.num_rows - place), np.int64)
            self.rows(epoch, place, row_ids)
            found.append((epoch, done, row_ids))
            done += row_ids.size
        return found


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
        """Batches of an epoch; with ``wrap`` as many as show every row, the last shared with the next epoch."""
        return self.num_steps(1)

    def num_steps(self, num_epochs: int) -> int:
        """Return how many batches show the first ``num_epochs`` epochs."""
        if self.remainder == "wrap":
            return -(-num_epochs * self.permutation.num_rows // self.global_batch)
        return num_epochs * self._batches()

    def epoch(self, step: int) -> int:
        """Return the epoch of the first row of global batch ``step``."""
        if self.remainder == "wrap":
            return step * self.global_batch // self.permutation.num_rows
        return step // self._batches()

    def runs(self, step: int, world: World) -> list[Run]:
        """Return the rows of a rank's batch ``step``: its slots in order, none missing."""
        if self.remainder == "wrap":
            mine = world.share(self.global_batch)
            return [
                Run(source=0, epoch=epoch, slots=slice(offset, offset + row_ids.size), row_ids=row_ids)
                for epoch, offset, row_ids in self.permutation.runs(step * self.global_batch + mine.start, len(mine))
            ]
        epoch, batch = divmod(step, self._batches())
        first = batch * self.global_batch
        mine = world.share(min(self.global_batch, self.permutation.num_rows - first))
        row_ids = np.full(len(world.share(self.global_batch)), PADDING, np.int64)
        self.permutation.rows(epoch, first + mine.start, row_ids[: len(mine)])
        return [Run(source=0, epoch=epoch, slots=slice(0, row_ids.size), row_ids=row_ids)]

    def _batches(self) -> int:
        whole, left = divmod(self.permutation.num_rows, self.global_batch)
        return whole + (left > 0 and self.remainder == "pad")
