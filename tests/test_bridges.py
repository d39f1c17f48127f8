"""The rows of a set in Ray Data and in Dask are those that the set has."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import gemsdata as gd
from gemsdata.inspect.shard_rows import read_shard
from gemsdata.inspect.to_ray import _read
from gemsdata.shards.shard_set import ShardSet
from tests.stream_support import make_set

pytestmark = pytest.mark.once


@pytest.fixture(scope="module", params=["arrow", "webdataset"])
def shards(request, tmp_path_factory):
    return ShardSet.open(make_set(tmp_path_factory.mktemp("bridges") / "set", format=request.param))


def check(table: pa.Table, shards: ShardSet, split: str) -> None:
    """The table has the rows of a split in order."""
    expected = shards.read(split, np.arange(shards.num_rows(split)))
    assert table.column("row").to_pylist() == list(range(len(expected)))
    assert table.column("contig").to_pylist() == [shards.contig_names[contig] for contig in expected.contig]
    assert table.column("start").to_pylist() == expected.start.tolist()
    assert table.column("num_tokens").to_pylist() == expected.num_tokens.tolist()
    assert table.column("input_ids").to_pylist() == expected.input_ids.tolist()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_tasks_read_the_rows_of_their_shard(shards, split):
    tables = [_read(shards, split, pa.table({"id": [i]})) for i in range(len(shards.manifest.shards(split)))]
    check(pa.concat_tables(tables), shards, split)


def test_a_dask_dataframe_has_the_rows(shards):
    pytest.importorskip("dask.dataframe")
    frame = gd.to_dask(shards)
    assert frame.npartitions == len(shards.manifest.shards("train"))
    found = frame.compute(scheduler="synchronous")
    assert (found.dtypes == frame.dtypes).all()
    check(pa.Table.from_pandas(found, preserve_index=False), shards, "train")
    assert int(frame.num_tokens.sum().compute(scheduler="synchronous")) == found.num_tokens.sum()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_a_ray_dataset_has_the_rows(shards, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        rows = gd.to_ray_dataset(shards).sort("row").take_all()
    finally:
        ray.shutdown()
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    check(pa.table({**columns, "input_ids": [list(ids) for ids in columns["input_ids"]]}), shards, "train")


@pytest.mark.parametrize("bridge", ["to_dask", pytest.param("to_ray_dataset", marks=pytest.mark.slow)])
def test_what_has_no_rows_is_refused(tmp_path, shards, bridge):
    pytest.importorskip("dask.dataframe" if bridge == "to_dask" else "ray.data")
    packed = make_set(tmp_path / "packed", format="packed", row_tokens=510, scheme="fixed", rows_per_shard=None)
    with pytest.raises(ValueError, match="holds packed bases, not rows"):
        getattr(gd, bridge)(packed)
    with pytest.raises(ValueError, match="split 'test' is unknown"):
        getattr(gd, bridge)(shards, split="test")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        getattr(gd, bridge)(tmp_path / "nothing")


def test_a_shard_is_read_block_by_block(shards):
    assert read_shard(shards, "train", 0).column("row").num_chunks == 5
