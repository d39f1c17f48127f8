"""``to_dask``: the rows of a shard set as a Dask dataframe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gemsdata.inspect.shard_rows import empty_table, open_rows, read_shard
from gemsdata.shards.shard_set import ShardSet

if TYPE_CHECKING:
    import dask.dataframe


def to_dask(place: str | Path | ShardSet, *, split: str = "train") -> dask.dataframe.DataFrame:
    """Return the rows of a split, unmasked, as a lazy Dask dataframe with a partition for each shard.

    Arguments, columns and errors are those of `gemsdata.to_ray_dataset`; columns have Arrow types.
    """
    import dask.dataframe

    shards, num_shards = open_rows(place, split)
    return dask.dataframe.from_map(
        lambda index: _pandas(read_shard(shards, split, index)), range(num_shards), meta=_pandas(empty_table(shards))
    )


def _pandas(table: pa.Table) -> Any:
    import pandas

    return table.to_pandas(types_mapper=pandas.ArrowDtype)
