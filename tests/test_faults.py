"""Damaged shards, killed workers: an error that says what to do, or a deterministic and counted loss; never a hang."""

from __future__ import annotations

import collections
import itertools
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.shards.shard_set import ShardSet
from tests.stream_support import digest, global_batches, loaders_of_ranks, make_set

pytestmark = pytest.mark.once

NUM_STEPS = 45


@pytest.fixture(scope="module", params=["arrow", "webdataset"])
def whole(request, tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("faults") / "set", format=request.param)


@pytest.fixture
def shards(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "set")


def second_shard(shards):
    entry = ShardSet.open(shards).manifest.shards("train")[1]
    (file,) = entry.files.values()
    return shards / file.path, set(range(entry.first_row, entry.first_row + entry.num_rows))


def remove(path):
    path.unlink()


def truncate(path):
    size = path.stat().st_size
    os.truncate(path, (size - 1) // 512 * 512)
    assert path.stat().st_size < size


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = [
    (remove, "size", FileNotFoundError, "missing; restore it"),
    (truncate, "size", ValueError, "its manifest says .* truncated"),
    (flip_a_byte, "hash", ValueError, "xxh3 is not the manifest's"),
]


@pytest.mark.parametrize(("damage", "check", "error", "message"), DAMAGES)
@pytest.mark.parametrize(
    "options", [{}, {"num_workers": 2, "start_method": "fork"}, {"num_workers": 2, "threads": True}]
)
def test_a_damaged_shard_raises_at_first_touch(shards, damage, check, error, message, options):
    path, _ = second_shard(shards)
    damage(path)
    loader = gd.build_loader(shards, batch_size=7, check=check, num_steps=NUM_STEPS, **options)
    with pytest.raises(error, match=message) as raised:
        list(loader)
    assert path.name in str(raised.value)
    loader.close()


@pytest.mark.parametrize(("damage", "check", "error", "message"), DAMAGES)
def test_a_damaged_shard_is_skipped_and_counted_the_same_in_every_topology(shards, damage, check, error, message):
    whole = global_batches(loaders_of_ranks(shards, 1, num_steps=NUM_STEPS))
    path, lost = second_shard(shards)
    damage(path)
    options = {"num_steps": NUM_STEPS, "check": check, "faults": "skip-and-count"}

    def read(num_ranks, **more):
        loaders = loaders_of_ranks(shards, num_ranks, **options, **more)
        with pytest.warns(UserWarning, match=path.name):
            batches = global_batches(loaders)
        return batches, sum(loader.num_skipped for loader in loaders)

    batches, num_skipped = read(1)
    assert (digest(batches), num_skipped) == (digest(read(3)[0]), read(3)[1])
    for topology in ({"num_workers": 2, "start_method": "fork"}, {"num_workers": 3, "threads": True}):
        again = read(2, **topology)
        assert (digest(again[0]), again[1]) == (digest(batches), num_skipped)
    wanted = 0
    for before, after in zip(whole, batches, strict=True):
        kept = ~np.isin(before["sample_ids"], list(lost))
        wanted += np.count_nonzero(~kept)
        for name in ("sample_ids", "input_ids", "labels"):
            np.testing.assert_array_equal(before[name][kept], after[name])
    assert num_skipped == wanted > 0


def test_what_was_skipped_reads_as_padding(shards):
    path, lost = second_shard(shards)
    remove(path)
    loader = gd.build_loader(shards, batch_size=7, num_steps=NUM_STEPS, faults="skip-and-count")
    with pytest.warns(UserWarning, match="missing"):
        batches = list(loader)
    for batch in batches:
        assert batch["input_ids"].shape == (7, 32)
        empty = batch["sample_ids"] < 0
        assert (batch["labels"][empty] == -100).all()
        assert (batch["attention_mask"][empty].sum(dim=1) == 2).all()
        assert not set(batch["sample_ids"].tolist()) & lost


def test_a_block_that_is_not_what_the_manifest_says_is_damage(shards, tmp_path):
    other = make_set(tmp_path / "other", row_tokens=29, format=ShardSet.open(shards).manifest.formats[0])
    path, _ = second_shard(shards)
    shutil.copy(second_shard(other)[0], path)
    opened = ShardSet.open(shards)
    opened.manifest.splits["train"] = list(opened.manifest.shards("train"))
    object.__setattr__(opened.manifest.shards("train")[1].files[opened.file_format], "num_bytes", path.stat().st_size)
    with pytest.raises(ValueError, match=r"its manifest says uint16 .*of another set"):
        list(gd.build_loader(opened, batch_size=7, num_steps=NUM_STEPS, check="size"))


@pytest.mark.parametrize(
    "start_method", ["fork", pytest.param("spawn", marks=[pytest.mark.compiled, pytest.mark.slow])]
)
def test_a_killed_worker_is_an_error_and_not_a_hang(whole, start_method):
    loader = gd.build_loader(whole, batch_size=7, num_workers=2, start_method=start_method)
    iterator = iter(loader)
    next(iterator)
    victim = multiprocessing.active_children()[0]
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=rf"worker.*{victim.pid}.*(killed|exited unexpectedly)"):
        collections.deque(itertools.islice(iterator, 10_000), maxlen=0)
    del iterator
    loader.close()
    assert not multiprocessing.active_children()


def test_a_damaged_compressed_block_is_found(tmp_path):
    shards = make_set(tmp_path / "zstd", compression="zstd")
    path, lost = second_shard(shards)
    flip_a_byte(path)
    with pytest.raises(ValueError, match="xxh3"):
        list(gd.build_loader(shards, batch_size=7, num_steps=NUM_STEPS, check="hash"))
    loader = gd.build_loader(shards, batch_size=7, num_steps=NUM_STEPS, check="hash", faults="skip-and-count")
    with pytest.warns(UserWarning, match="xxh3"):
        ids = {int(i) for batch in loader for i in batch["sample_ids"]}
    assert ids == (set(range(137)) - lost) | {-1}
