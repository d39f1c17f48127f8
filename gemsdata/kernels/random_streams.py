"""Tags that separate random streams: every use of random numbers folds its own tag into its keys."""

from __future__ import annotations

import enum


class RandomStream(enum.IntEnum):
    """Second word of a key, after the seed: ``key_of(seed, RandomStream.X, ...)``.

    The values determine the random numbers, and for shards their bytes; no value may ever change.
    """

    VALID_REGION = 1
    """which regions of a genome are validation rows (shards)"""
    PIECE_LENGTH = 2
    """lengths of the pieces of ``--windows dnabert`` (shards)"""
    ROW_ORDER = 3
    """order of the rows of a split (shards)"""
    STRAND = 0x5D
    """which rows are shown as their reverse complement"""
    EPOCH_ORDER = 0x0D3
    """order of rows or of blocks of rows in an epoch"""
    WINDOW_ORDER = 0x71D
    """order of rows within a shuffled window of them"""
    EPOCH_START = 0xD20
    """place in its order where an epoch begins that drops its incomplete batch"""
    CURRICULUM_ARM = 0xA43
    """which masking of a curriculum a step gets"""
    WINDOW_SHIFT = 0x71
    """shift of the windows of a view in an epoch"""
    ROW_REDRAW = 0x72
    """which row of a view replaces one that has nothing to predict"""
    MASK = 0x3A5C
    """masks and corruption: the row keys"""


class RowStream(enum.IntEnum):
    """Word that is folded into a row key, one for each purpose, so that their draws are independent.

    Numbers from 16 on are free for strategies outside gemsdata.
    """

    CENTRES = 1
    CORRUPTION = 2
    TIES = 3
    LENGTHS = 4
    TRIM = 5
