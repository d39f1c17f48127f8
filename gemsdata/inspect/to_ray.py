"""``to_ray_dataset``: the rows of a shard set for Ray Data."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from gemsdata.inspect.shard_rows import open_rows, read_shard
from gemsdata.shards.shard_set import ShardSet

if TYPE_CHECKING:
    import ray.data


def to_ray_dataset(place: str | Path | ShardSet, *, split: str = "train") -> ray.data.Dataset:
    """Return the rows of a split, unmasked, as a lazy `ray.data.Dataset` that reads one shard in a task.

    Parameters
    ----------
    place
        folder or URL of a shard set of rows, which all nodes can reach, or the opened set.
    split
        "train" or "valid".

    Returns
    -------
    ray.data.Dataset
        columns row (number of the row in the split), contig, start (0-based base position), num_tokens and input_ids
        (row_tokens ids, without special tokens, [PAD] beyond num_tokens).

    Raises
    ------
    FileNotFoundError, ValueError
        if there is no such set or split, or the set holds packed bases.
    """
    import ray.data

    shards, num_shards = open_rows(place, split)
    return ray.data.range(num_shards).map_batches(
        functools.partial(_read, shards, split), batch_size=1, batch_format="pyarrow"
    )


def _read(shards: ShardSet, split: str, number: pa.Table) -> pa.Table:
    return read_shard(shards, split, number.column("id")[0].as_py())
