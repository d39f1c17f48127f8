"""Shard sets at URLs, through a cache of bounded size that several processes share."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import gemsdata as gd
from gemsdata.files.cache import FileCache
from gemsdata.files.partial_file import partial_bytes
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.write import shard
from tests.genomes import random_dna, write_fasta
from tests.stream_support import digest, global_batches, loaders_of_ranks, make_set

pytestmark = pytest.mark.once

fsspec = pytest.importorskip("fsspec")
OPTIONS = {"masking": "genemask", "seed": 3, "num_steps": 40, "reverse_complement": 0.5}
FORMATS = {"arrow": {}, "zstd": {"compression": "zstd"}, "tar": {"format": "webdataset"}}


@pytest.fixture(scope="module", params=FORMATS)
def shards(request, tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("remote") / "set", **FORMATS[request.param])


def sizes_of(shards) -> list[int]:
    opened = ShardSet.open(shards)
    return [shard.files[opened.file_format].num_bytes for shard in opened.manifest.shards("train")]


def cached_bytes(cache) -> int:
    return sum(path.stat().st_size for path in cache.iterdir())


@pytest.mark.parametrize(
    "options", [{}, {"num_workers": 2, "start_method": "fork"}, {"num_workers": 2, "threads": True}]
)
def test_a_set_at_a_url_gives_the_stream_of_the_local_one(shards, tmp_path, options):
    local = digest(global_batches(loaders_of_ranks(shards, 1, **OPTIONS)))
    cache = tmp_path / "cache"
    remote = ShardSet.open(f"file://{shards}", cache_dir=cache)
    assert digest(global_batches(loaders_of_ranks(remote, 2, **OPTIONS, **options))) == local
    fetched = sorted(path.name for path in cache.iterdir() if path.name != "lock")
    wanted = {shard.files[remote.file_format].sha256 for shard in remote.manifest.shards("train")}
    assert set(fetched) == wanted


def test_a_set_in_memory_of_another_file_system_and_the_default_cache(shards, tmp_path, monkeypatch):
    local = digest(global_batches(loaders_of_ranks(shards, 1, **OPTIONS)))
    fsspec.filesystem("memory").put(str(shards), "/bucket/set", recursive=True)
    monkeypatch.setenv("GEMSDATA_CACHE", str(tmp_path / "default"))
    assert digest(global_batches(loaders_of_ranks("memory://bucket/set", 1, **OPTIONS))) == local
    assert len(list((tmp_path / "default").iterdir())) == 1 + len(sizes_of(shards))
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_a_cache_smaller_than_the_split_stays_in_its_bounds(shards, tmp_path):
    sizes = sizes_of(shards)
    small = {"cache_bytes": sum(sizes) * 3 // 4, "cache_dir": tmp_path / "cache"}
    url = f"file://{shards}"
    with pytest.raises(ValueError, match="shuffle=ROWS"):
        gd.build_loader(ShardSet.open(url, **small), batch_size=7)
    windowed = {**OPTIONS, "shuffle": 20, "num_steps": 60}
    local = global_batches(loaders_of_ranks(shards, 1, **windowed))
    loader = gd.build_loader(ShardSet.open(url, **small), batch_size=7, **windowed)
    batches = []
    for batch in loader:
        batches.append(batch)
        assert cached_bytes(tmp_path / "cache") <= small["cache_bytes"]
    assert [batch["sample_ids"].tolist() for batch in batches] == [batch["sample_ids"].tolist() for batch in local]
    assert (batches[-1]["labels"].numpy() == local[-1]["labels"]).all()


def jobs_with_one_cache(place, cache, cache_bytes, source=lambda opened: opened):
    """What four jobs read at a time, through one cache, and what they should."""

    def read(seed, opened):
        return digest(global_batches(loaders_of_ranks(source(opened), 1, shuffle=20, seed=seed, num_steps=10)))

    def job(seed):
        opened = ShardSet.open(f"file://{place}", cache_dir=cache, cache_bytes=cache_bytes)
        opened.store.cache.wait_s = 30
        return read(seed, opened)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(job, range(4))), [read(seed, ShardSet.open(place)) for seed in range(4)]


def test_jobs_that_wait_for_room_leave_theirs_to_others(shards, tmp_path):
    """The cache has room for two shards, and each job needs two at a time."""
    found, right = jobs_with_one_cache(shards, tmp_path, 2 * max(sizes_of(shards)))
    assert found == right


def test_jobs_that_read_views_leave_room_to_others(tmp_path):
    fasta = write_fasta(tmp_path / "g.fa", {str(contig): random_dna(1200, contig) for contig in range(8)})
    options = ShardOptions(format="packed", k=3, min_count=1, valid_fraction=0, block_rows=1, rows_per_shard=1)
    shard([fasta], tmp_path / "packed", options)
    sizes = [path.stat().st_size for path in (tmp_path / "packed" / "train").iterdir()]
    place, cache = tmp_path / "packed", tmp_path / "cache"
    found, right = jobs_with_one_cache(
        place, cache, 9 * partial_bytes(max(sizes)), lambda opened: gd.view(opened, row_bases=60)
    )
    assert len(sizes) > 9
    assert found == right


def test_a_batch_that_needs_more_than_the_cache_holds_is_an_error(shards, tmp_path):
    opened = ShardSet.open(f"file://{shards}", cache_dir=tmp_path, cache_bytes=2 * max(sizes_of(shards)))
    loader = gd.build_loader(opened, batch_size=60, shuffle=20)
    if opened.manifest.compression == "none":
        with pytest.raises(OSError, match=r"a batch needs \d shards of .* at a time, .*; raise cache_bytes"):
            next(iter(loader))
    else:
        next(iter(loader))  # compressed shards are read one by one


def test_a_cache_below_one_shard_says_so(shards, tmp_path):
    opened = ShardSet.open(f"file://{shards}", cache_dir=tmp_path, cache_bytes=max(sizes_of(shards)) - 1)
    with pytest.raises((ValueError, OSError), match="raise cache_bytes"):
        list(gd.build_loader(opened, batch_size=7, shuffle=20, num_steps=60))


def test_what_is_damaged_or_missing_at_the_url_is_found_and_never_cached(shards, tmp_path):
    broken = shutil.copytree(shards, tmp_path / "broken")
    opened = ShardSet.open(broken)
    first, second = (shard.files[opened.file_format] for shard in opened.manifest.shards("train")[:2])
    content = bytearray((broken / first.path).read_bytes())
    content[len(content) // 2] ^= 4
    (broken / first.path).write_bytes(content)
    (broken / second.path).unlink()
    url, cache = f"file://{broken}", tmp_path / "cache"
    with pytest.raises((ValueError, FileNotFoundError), match=r"(damaged, truncated|missing; restore)"):
        list(gd.build_loader(ShardSet.open(url, cache_dir=cache), batch_size=7, **OPTIONS))
    loader = gd.build_loader(ShardSet.open(url, cache_dir=cache), batch_size=7, faults="skip-and-count", **OPTIONS)
    with pytest.warns(UserWarning, match=str(broken)):
        list(loader)
    assert loader.num_skipped > 0
    assert not {first.sha256, second.sha256} & {path.name for path in cache.iterdir()}
    assert not list(cache.glob("*.part"))


def test_a_url_without_a_set_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a shard set \(no _index\.json there\)"):
        ShardSet.open(f"file://{tmp_path}/nothing", cache_dir=tmp_path)


def content_of(i: int, num_bytes: int = 1000) -> tuple[str, bytes]:
    import hashlib

    content = bytes([i]) * num_bytes
    return hashlib.sha256(content).hexdigest(), content


def test_the_cache_evicts_what_was_used_longest_ago_and_never_what_is_pinned(tmp_path):
    cache = FileCache(tmp_path, 3500)
    pins = {}
    for i in range(3):
        sha256, content = content_of(i)
        pins[i] = cache.fetch(sha256, 1000, lambda stream, content=content: stream.write(content))
        os.utime(pins[i].path, ns=(i, i))
    pins[1].release()
    pins[2].release()
    fetched = []

    def fetch(i):
        sha256, content = content_of(i)
        return cache.fetch(sha256, 1000, lambda stream: (fetched.append(i), stream.write(content)))

    fetch(1).release()  # used now, so 2 is the oldest that is not pinned
    assert fetched == []
    fetch(3).release()
    assert not (tmp_path / content_of(2)[0]).exists()
    assert all((tmp_path / content_of(i)[0]).exists() for i in (0, 1, 3))
    kept = [fetch(1), fetch(3)]
    with pytest.raises(OSError, match="full of files that this process uses"):
        fetch(4)
    assert not list(tmp_path.glob("*.part"))
    del kept
    fetch(4)
    assert cached_bytes(tmp_path) <= 3500


def test_a_download_that_died_is_begun_anew(tmp_path):
    cache = FileCache(tmp_path, 1 << 20)
    sha256, content = content_of(7)

    def die(stream):
        stream.write(b"half")
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=cache.fetch, args=(sha256, 1000, die))
    process.start()
    process.join()
    assert (tmp_path / f"{sha256}.part").exists()
    pin = cache.fetch(sha256, 1000, lambda stream: stream.write(content))
    assert pin.path.read_bytes() == content
    assert not list(tmp_path.glob("*.part"))


def test_readers_of_one_file_download_it_once(tmp_path):
    cache = FileCache(tmp_path, 1 << 20)
    sha256, content = content_of(9)
    downloads, pins = [], []

    def slow(stream):
        downloads.append(1)
        time.sleep(0.2)
        stream.write(content)

    threads = [threading.Thread(target=lambda: pins.append(cache.fetch(sha256, 1000, slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(downloads) == 1
    assert [pin.path.read_bytes() for pin in pins] == [content] * 4


def churn(folder: Path, seed: int, result) -> None:
    """Fetch files of a cache that holds two at a time, and check what each holds."""
    cache = FileCache(folder, 2600)
    wrong = 0
    for n in range(40):
        sha256, content = content_of((n * 7 + seed) % 5)
        while True:
            try:
                pin = cache.fetch(sha256, 1000, lambda stream, content=content: stream.write(content))
                break
            except OSError:
                time.sleep(0.001)  # the others have two in use
        wrong += pin.path.read_bytes() != content if pin.path.exists() else 1
        pin.release()
    result.put(wrong)


def test_processes_that_fetch_and_evict_side_by_side_see_whole_files(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [context.Process(target=churn, args=(tmp_path, seed, results)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert [results.get() for _ in processes] == [0, 0, 0]
    assert cached_bytes(tmp_path) <= 2600
