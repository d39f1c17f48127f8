"""Sets at URLs whose server fails, and a cache without room."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import multiprocessing
import os
import re
import threading

import pytest

pytest.importorskip("obstore")
import gemsdata as gd
from gemsdata.files import remote_folder
from gemsdata.files.cache import FileCache
from gemsdata.shards.shard_set import ShardSet
from tests.stream_support import make_set
from tests.test_remote import content_of
from tools.fault_server import serving
from tools.remote_faults import CASES, READ_TIMEOUT_S, fetch, make_file

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    return folder, make_file(folder)


_WAITS = [
    name for name in CASES if name.endswith("always") and name.startswith(("answer stalls", "no answer", "status 500"))
]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in _WAITS else []) for name in CASES]
)
def test_a_fault_is_repaired_or_ends_in_one_clear_error(shard, name, monkeypatch):
    monkeypatch.setattr(remote_folder, "READ_TIMEOUT_S", READ_TIMEOUT_S)
    case = CASES[name]
    for scheme in ("http", "s3"):
        if case.only in (None, scheme):
            error, requests = fetch(*shard, case, scheme)
            assert re.match(case.error, error) if case.error else error == "", error
            assert "\n" not in error
            assert "obstore" not in error
            assert requests < 100


def test_an_answer_that_breaks_off_is_continued_not_repeated(shard, tmp_path):
    folder, file = shard
    with serving(folder, lambda name, before: "cut" if before == 0 else None) as server:
        with open(tmp_path / "copy", "wb") as target:
            remote_folder.remote_folder(server.url, {}).copy(file.path, target)
        assert [first for _, first in server.ranges] == [0, file.num_bytes // 2]
    assert (tmp_path / "copy").read_bytes() == (folder / file.path).read_bytes()


@pytest.fixture(scope="module")
def versions_of_a_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("versions")
    return [make_set(folder / name, genome_seed=seed) for seed, name in enumerate(("old", "new"))]


@pytest.mark.parametrize("name", ["_index.json", "npmi.parquet", "train/000001.arrow"])
def test_what_a_proxy_kept_of_an_older_set_is_one_clear_error(versions_of_a_set, tmp_path, name):
    old, new = versions_of_a_set
    content = (old / name).read_bytes()
    with serving(new, lambda asked, before: content if asked == name else None) as server:
        shards = ShardSet.open(server.url, cache_dir=tmp_path)
        with pytest.raises(ValueError, match=r"of another (version of the )?set") as caught:
            list(gd.build_loader(shards, masking="genemask", batch_size=7, num_steps=20))
        assert server.url in str(caught.value)
        assert "\n" not in str(caught.value)


def test_requests_for_a_manifest_are_repeated(versions_of_a_set, tmp_path):
    with serving(versions_of_a_set[0], lambda name, before: ("500", "cut", None)[min(before, 2)]) as server:
        assert ShardSet.open(server.url, cache_dir=tmp_path).manifest == ShardSet.open(versions_of_a_set[0]).manifest


def test_the_time_for_retries_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("GEMSDATA_RETRY_S", "7.5")
    assert remote_folder.default_retry_s() == 7.5
    monkeypatch.setenv("GEMSDATA_RETRY_S", "soon")
    with pytest.raises(ValueError, match="GEMSDATA_RETRY_S = 'soon'; give a number of seconds"):
        remote_folder.default_retry_s()


def read_in_child(url, result):
    try:
        with open(os.devnull, "wb") as target:
            remote_folder.remote_folder(url, {}, 1).copy("train/000000.arrow", target)
    except RuntimeError as error:
        result.put(str(error))


def test_a_forked_process_says_that_it_cannot_read(shard):
    context = multiprocessing.get_context("fork")
    result = context.SimpleQueue()
    with serving(shard[0]) as server:
        with open(os.devnull, "wb") as target:
            remote_folder.remote_folder(server.url, {}, 1).copy("train/000000.arrow", target)
        process = context.Process(target=read_in_child, args=(server.url, result))
        process.start()
        process.join(60)
    assert process.exitcode == 0
    assert 'start method "spawn"' in result.get()


def fetched(cache, i, num_bytes=1000):
    sha256, content = content_of(i, num_bytes)
    return cache.fetch(sha256, num_bytes, lambda stream: stream.write(content))


def test_a_full_cache_is_waited_for(tmp_path):
    pins = [fetched(FileCache(tmp_path, 3000), i) for i in range(3)]
    timer = threading.Timer(0.2, pins[1].release)
    timer.start()
    pin = fetched(FileCache(tmp_path, 3000, wait_s=60), 3)
    timer.join()
    assert pin.path.exists()
    assert not (tmp_path / content_of(1)[0]).exists()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000


def test_a_file_is_renamed_while_nobody_counts(tmp_path, monkeypatch):
    """Who lists the folder between its two names finds it under neither, and lets the cache grow beyond its limit."""
    counted = []

    def replace(partial, path):
        with open(tmp_path / "lock", "ab") as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            counted.append(path)
        os.rename(partial, path)

    monkeypatch.setattr("gemsdata.files.cache.os.replace", replace)
    assert fetched(FileCache(tmp_path, 3000), 1).path.exists()
    assert counted == []


def test_waiting_ends(tmp_path):
    pins = [fetched(FileCache(tmp_path, 3000), i) for i in range(3)]
    with pytest.raises(OSError, match=r"was full of files in use for 0.1 s: 4,000 bytes are needed, 3,000 allowed"):
        fetched(FileCache(tmp_path, 3000, wait_s=0.1), 3)
    own = FileCache(tmp_path, 3000, wait_s=3600)
    pins += [fetched(own, i) for i in range(3)]
    with pytest.raises(OSError, match="is full of files that this process uses"):
        fetched(own, 3)


def test_a_download_of_another_process_is_waited_for_and_not_for_ever(tmp_path):
    begun, goes_on = threading.Event(), threading.Event()
    sha256, content = content_of(1)

    def slow(stream):
        begun.set()
        goes_on.wait(60)
        stream.write(content)

    thread = threading.Thread(target=FileCache(tmp_path, 3000).fetch, args=(sha256, 1000, slow))
    thread.start()
    begun.wait(60)
    with pytest.raises(TimeoutError, match=r"another process has been downloading .* for 0.1 s"):
        fetched(FileCache(tmp_path, 3000, wait_s=0.1), 1)
    goes_on.set()
    thread.join()
    assert fetched(FileCache(tmp_path, 3000), 1).path.read_bytes() == content


def test_a_full_disk_is_an_error_that_names_the_folder_and_leaves_nothing(tmp_path):
    def full(stream):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="free some space, or set GEMSDATA_CACHE") as caught:
        FileCache(tmp_path, 3000).fetch(content_of(1)[0], 1000, full)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_cached_files_have_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        pin = fetched(FileCache(tmp_path, 3000), 1)
    finally:
        os.umask(before)
    assert pin.path.stat().st_mode & 0o777 == 0o640


def test_an_endpoint_of_azure_without_tls_may_come_from_the_environment(tmp_path, monkeypatch):
    with serving(tmp_path) as server:
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.url)
        folder = remote_folder.remote_folder(
            "az://bucket/set", {"account_name": "a", "account_key": "a2V5"}, retry_s=0.1
        )
        with pytest.raises(FileNotFoundError, match="az://bucket/set/absent: no such file"):
            folder.copy("absent", io.BytesIO())
        assert list(server.requests) == ["set/absent"]
