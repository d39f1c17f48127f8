"""Where rows are: a law against a list of rows written out, and what a ShardSet keeps alive."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemsdata.shards.row_index import RowIndex
from gemsdata.shards.shard_set import ShardSet
from tests.stream_support import make_set


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 12))
def test_rows_are_where_a_list_of_them_says(rows_of_shards: list[int], block_rows: int) -> None:
    index = RowIndex.of([SimpleNamespace(num_rows=n) for n in rows_of_shards], block_rows)
    expected, sizes, block = [], {}, -1
    for shard, num_rows in enumerate(rows_of_shards):
        for row in range(num_rows):
            block += row % block_rows == 0
            expected.append((shard, block, row % block_rows))
            sizes[shard, block] = row % block_rows + 1
    assert (index.num_rows, index.num_blocks) == (len(expected), block + 1)
    assert list(zip(*(column.tolist() for column in index.locate(np.arange(len(expected)))), strict=True)) == expected
    assert {key: index.rows_of_block(*key) for key in sizes} == sizes
    assert [list(index.blocks(shard)) for shard in range(len(rows_of_shards))] == [
        [b for s, b in sizes if s == shard] for shard in range(len(rows_of_shards))
    ]


def test_a_shard_set_is_collected_and_says_what_it_is(tmp_path: Path) -> None:
    shards = ShardSet.open(make_set(tmp_path / "set"))
    rows = shards.read("train", np.array([3, 99, 3]))
    assert repr(shards).splitlines() == [
        f"<ShardSet {tmp_path / 'set'}: set, 4,091 bases",
        f" 137 train, {shards.num_rows('valid')} valid rows of 30 3-mers, arrow, {shards.manifest.fingerprint[:16]}>",
    ]
    with pytest.raises(IndexError, match="row -1 of split 'train', which has 137 rows"):
        shards.read("train", np.array([5, -1]))
    gone = weakref.ref(shards)
    del shards
    gc.collect()
    assert gone() is None
    assert len(rows) == 3
