"""Shards at URLs are fetched before they are read, a few at a time."""

from __future__ import annotations

import threading

import pytest

import gemsdata as gd
from gemsdata.shards.shard_fetcher import ShardFetcher
from gemsdata.shards.shard_set import ShardSet
from tests.stream_support import digest, global_batches, loaders_of_ranks, make_set

pytestmark = pytest.mark.once
pytest.importorskip("fsspec")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("ahead") / "set")


@pytest.fixture
def remote(shards, tmp_path) -> ShardSet:
    return ShardSet.open(f"file://{shards}", cache_dir=tmp_path / "cache")


def test_two_shards_are_fetched_ahead_and_more_when_they_are_read(remote, monkeypatch):
    fetched, allowed = [], threading.Event()
    files = [shard.files["arrow"] for shard in remote.manifest.shards("train")]
    assert len(files) > 3

    def fetch(file):
        allowed.wait(60)
        fetched.append(files.index(file))
        return True

    monkeypatch.setattr(remote.store, "fetch_ahead", fetch)
    fetcher = ShardFetcher(remote, "train")
    assert fetcher.has_room
    fetcher.request([1, 2, 3])
    assert not fetcher.has_room
    fetcher.request([0])
    allowed.set()
    fetcher.begin(1)
    fetcher.begin(2)
    assert sorted(fetched) == [1, 2]
    fetcher.request([1, 2, 3])  # of which two are read
    fetcher.begin(3)
    assert sorted(fetched) == [1, 2, 3]
    fetcher.forget(1)
    fetcher.request([1])
    fetcher.begin(1)
    assert sorted(fetched) == [1, 1, 2, 3]


def test_a_shard_that_another_process_fetches_makes_room_for_the_next(remote, monkeypatch):
    asked = []
    monkeypatch.setattr(remote.store, "fetch_ahead", lambda file: (asked.append(file.path), len(asked) > 1)[1])
    fetcher = ShardFetcher(remote, "train")
    for shard in (0, 0, 1, 2, 3):
        fetcher.request([shard])
        for thread in list(fetcher._ahead.values()):
            thread.join()
    assert [path[-8:-6] for path in asked] == ["00", "01", "02"]
    fetcher.begin(0)


def test_a_local_set_and_a_small_cache_fetch_nothing(shards, tmp_path):
    largest = max(s.files["arrow"].num_bytes for s in ShardSet.open(shards).manifest.shards("train"))
    small = ShardSet.open(f"file://{shards}", cache_dir=tmp_path, cache_bytes=8 * largest - 1)
    for opened in (ShardSet.open(shards), small):
        fetcher = ShardFetcher(opened, "train")
        fetcher.request([0])
        assert not fetcher.has_room
        fetcher.begin(0)
    assert not list(tmp_path.iterdir())


def test_a_loader_fetches_the_shards_of_later_batches_and_gives_the_same_ones(shards, remote, monkeypatch):
    asked, read = [], []
    fetch, path = remote.store.fetch_ahead, remote.store.path
    monkeypatch.setattr(remote.store, "fetch_ahead", lambda file: (asked.append(file.path), fetch(file))[1])
    monkeypatch.setattr(remote.store, "path", lambda file: (read.append((file.path, list(asked))), path(file))[1])
    options = {"masking": "genemask", "seed": 3, "num_steps": 20, "shuffle": 20}
    loader = gd.build_loader(remote, batch_size=7, **options)
    batches = [batch["labels"].numpy() for batch in loader]
    wanted = [batch["labels"] for batch in global_batches(loaders_of_ranks(shards, 1, **options))]
    assert all((found == right).all() for found, right in zip(batches, wanted, strict=True))
    later = [(name, before) for name, before in read[1:] if name.startswith("train")]
    assert later
    assert all(name in before for name, before in later)


@pytest.mark.slow
def test_a_view_of_a_packed_set(shards, tmp_path):
    gd.shard([f"{shards}.fa"], tmp_path / "packed", gd.ShardOptions(format="packed", min_count=1))
    remote = ShardSet.open(f"file://{tmp_path}/packed", cache_dir=tmp_path / "cache")
    views = [gd.view(place, tokens="base", row_bases=60) for place in (tmp_path / "packed", remote)]
    local, at_url = (digest(global_batches(loaders_of_ranks(view, 1, num_steps=5))) for view in views)
    assert at_url == local
