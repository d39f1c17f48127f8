"""The rows of one shard as an Arrow table, for the tasks of Ray Data and Dask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from gemsdata.shards.shard_set import ShardSet


def open_rows(place: str | Path | ShardSet, split: str) -> tuple[ShardSet, int]:
    """Open a set of rows of tokens; return it and the number of shards of a split.

    Raises ValueError for a split that does not exist and for a set of packed bases, FileNotFoundError if there is no
    set.
    """
    shards = place if isinstance(place, ShardSet) else ShardSet.open(place)
    num_shards = len(shards.manifest.shards(split))
    if shards.manifest.packed:
        raise ValueError(
            f"{shards.store} holds packed bases, not rows; write the rows of a view with gemsdata.view(SET,"
            " tokens=...).write(OUT), and open OUT"
        )
    return shards, num_shards


def empty_table(shards: ShardSet) -> pa.Table:
    """Return a table without rows and with the columns of `read_shard`."""
    return _schema(shards).empty_table()


def read_shard(shards: ShardSet, split: str, index: int) -> pa.Table:
    """Return the rows of a shard.

    The columns are row (int64, in the split), contig (its name), start (int64, 0-based), num_tokens (uint16) and
    input_ids (fixed-size list of row_tokens ids, [PAD] beyond num_tokens).
    """
    manifest, schema = shards.manifest, _schema(shards)
    entry = manifest.shards(split)[index]
    opened = shards.open_shard(split, index, num_cached=0)
    names = pa.array(shards.contig_names)
    batches = []
    for block in range(-(-entry.num_rows // manifest.block_rows)):
        rows = opened.block(block)
        first_row = entry.first_row + block * manifest.block_rows
        columns = [
            pa.array(np.arange(first_row, first_row + len(rows))),
            pa.DictionaryArray.from_arrays(pa.array(rows.contig), names).cast(pa.string()),
            pa.array(rows.start),
            pa.array(rows.num_tokens),
            pa.FixedSizeListArray.from_arrays(pa.array(rows.input_ids.ravel()), shards.row_tokens),
        ]
        batches.append(pa.record_batch(columns, schema=schema))
    return pa.Table.from_batches(batches, schema)


def _schema(shards: ShardSet) -> pa.Schema:
    ids = pa.from_numpy_dtype(np.dtype(shards.manifest.token_dtype))
    return pa.schema(
        {
            "row": pa.int64(),
            "contig": pa.string(),
            "start": pa.int64(),
            "num_tokens": pa.uint16(),
            "input_ids": pa.list_(ids, shards.row_tokens),
        }
    )
