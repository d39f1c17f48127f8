"""The location of row i of a split: its shard, its block, and its place in the block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gemsdata.shards.manifest_fields import Shard
from gemsdata.shards.shard_table import column_of


class Location(NamedTuple):
    """Locations of rows; arrays int64[B]."""

    shard: np.ndarray
    """index of the shard in its split"""
    block: np.ndarray
    """index of the block in the split, over all of its shards"""
    row_in_block: np.ndarray


@dataclass(frozen=True)
class RowIndex:
    """The shards and blocks of one split, S shards in row order; the last block of a shard may be short."""

    first_row: np.ndarray
    """the first row of each shard, then the number of rows, int64[S + 1]"""
    first_block: np.ndarray
    """the first block of each shard, then the number of blocks, int64[S + 1]"""
    block_rows: int
    """rows of a full block"""

    @classmethod
    def of(cls, shards: Sequence[Shard], block_rows: int) -> RowIndex:
        """Index the shards of a split."""
        rows = np.array(column_of(shards, "num_rows"), np.int64)
        blocks = -(-rows // block_rows)
        zero = np.zeros(1, np.int64)
        return cls(np.concatenate([zero, np.cumsum(rows)]), np.concatenate([zero, np.cumsum(blocks)]), block_rows)

    @property
    def num_rows(self) -> int:
        """Rows of the split."""
        return int(self.first_row[-1])

    @property
    def num_blocks(self) -> int:
        """Blocks of the split."""
        return int(self.first_block[-1])

    def locate(self, row_ids: np.ndarray) -> Location:
        """Return the locations of rows ``row_ids`` (int64[B], 0 .. num_rows - 1)."""
        shard = np.searchsorted(self.first_row, row_ids, side="right") - 1
        row_in_shard = row_ids - self.first_row[shard]
        block_in_shard = row_in_shard // self.block_rows
        return Location(
            shard, self.first_block[shard] + block_in_shard, row_in_shard - block_in_shard * self.block_rows
        )

    def blocks(self, shard: int) -> range:
        """Return the blocks of a shard, as indices in the split."""
        return range(int(self.first_block[shard]), int(self.first_block[shard + 1]))

    def rows_of_block(self, shard: int, block: int) -> int:
        """Return the number of rows in a block of a shard; ``block`` is its index in the split."""
        first_row = (block - int(self.first_block[shard])) * self.block_rows
        return min(self.block_rows, int(self.first_row[shard + 1] - self.first_row[shard]) - first_row)
