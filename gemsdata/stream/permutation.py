"""The order of the rows of one shard set in every epoch: a keyed permutation with random access, in O(1) memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gemsdata.kernels.keys import key_of
from gemsdata.kernels.order import permute_range
from gemsdata.kernels.random_streams import RandomStream

PADDING = -1
"""row id of a slot without a row"""


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Rows of one epoch of one shard set within a rank's batch."""

    source: int
    """which shard set"""
    epoch: int
    slots: slice | np.ndarray
    """places in the rank's batch: a slice, or int64[n]"""
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
        if not isinstance(self.shuffle, bool | int | np.integer) or (self.shuffle is not False and self.shuffle < 1):
            raise ValueError(f"shuffle = {self.shuffle!r}; give True, False or a number of rows from 1")

    @property
    def windowed(self) -> bool:
        """Whether rows are shuffled within windows only."""
        return not isinstance(self.shuffle, bool)

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
        """Write full chunks in permuted order, then the short chunk at the end."""
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

    def row_groups(self, first: int, count: int) -> list[tuple[int, int, np.ndarray]]:
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
