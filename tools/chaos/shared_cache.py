"""Sixteen jobs read one set at URLs through one cache folder that is smaller than the set."""

from __future__ import annotations

import fcntl
import multiprocessing
import random
import shutil
import time
import warnings
from pathlib import Path

import xxhash

import gemsdata as gd
from gemsdata.shards.shard_set import ShardSet
from tools.chaos.faults import Example, FaultError
from tools.fault_server import FaultServer, serving
from tools.remote_faults import place_of

NUM_JOBS = 16
_SHARES = (0.9, 0.6, 0.4)
"""sizes of the cache, as shares of that of the set"""
_NUM_STEPS = 60
_WINDOW_ROWS = 32
_ROWS_PER_SHARD = 64
_LONGEST_S = 120.0


def shared_cache(example: Example, rng: random.Random) -> int:
    """16 jobs, over HTTP and S3, share a cache smaller than the set; every tenth response fails: correct batches.

    The cache never holds more bytes than its limit.
    """
    shards = example.folder / "small-shards"
    options = gd.ShardOptions(
        k=3, row_tokens=30, block_rows=16, rows_per_shard=_ROWS_PER_SHARD, npmi=str(example.table)
    )
    gd.shard([example.fasta], shards, options)
    sizes = [path.stat().st_size for path in (shards / "train").iterdir()]
    right = [_digest(shards, seed) for seed in range(NUM_JOBS)]
    for share in _SHARES:
        cache = example.folder / "shared-cache"
        _run_jobs(shards, cache, int(sum(sizes) * share), right, rng.randrange(10))
        shutil.rmtree(cache)
    return NUM_JOBS * len(_SHARES)


def _digest(place: Path | ShardSet, seed: int) -> str:
    """Return a hash of the batches of one job."""
    digest = xxhash.xxh3_64()
    loader = gd.build_loader(place, batch_size=16, num_steps=_NUM_STEPS, shuffle=_WINDOW_ROWS, seed=seed)
    try:
        for batch in loader:
            digest.update(batch["input_ids"].numpy())
            digest.update(batch["sample_ids"].numpy())
    finally:
        loader.close()
    return digest.hexdigest()


def _run_jobs(shards: Path, cache: Path, limit: int, right: list[str], failing: int) -> None:
    """Run all jobs concurrently; raise FaultError unless each reads the correct batches, within the limit of bytes."""
    cache.mkdir()
    said = cache.with_name("said")
    said.mkdir()

    def fault(name: str, before: int) -> str | None:
        return ("500", "cut", "reset")[before % 3] if name.endswith(".arrow") and before % 10 == failing else None

    largest = 0
    with serving(shards, fault) as server, warnings.catch_warnings(action="ignore"):  # that this process has threads
        jobs = [_start(server, number, cache, limit, said) for number in range(NUM_JOBS)]
        end = time.monotonic() + _LONGEST_S
        while any(job.is_alive() for job in jobs) and time.monotonic() < end:
            largest = max(largest, _bytes_in(cache))
            time.sleep(0.005)
        hanging = [job for job in jobs if job.is_alive()]
        for job in hanging:
            job.kill()
        for job in jobs:
            job.join()
    results = [path.read_text() if (path := said / str(number)).exists() else "" for number in range(NUM_JOBS)]
    shutil.rmtree(said)
    wrong = [text or "no result" for text, expected in zip(results, right, strict=True) if text != expected]
    if hanging or wrong:
        raise FaultError(f"cache of {limit:,} bytes: {len(hanging)} jobs hang; {len(wrong)} fail: {wrong[:1]}")
    if not 0 < largest <= limit:
        raise FaultError(f"{largest:,} bytes in a cache of {limit:,}")


def _start(server: FaultServer, number: int, cache: Path, limit: int, said: Path) -> multiprocessing.Process:
    """Start a job, which writes the hash of its batches, or its error, to a file."""

    def work() -> None:
        url, options = place_of(server, ("http", "s3")[number % 2])
        try:
            shards = ShardSet.open(url, cache_dir=cache, cache_bytes=limit, storage_options=options)
            result = _digest(shards, number)
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
        (said / str(number)).write_text(result)

    job = multiprocessing.get_context("fork").Process(target=work)
    job.start()
    return job  # type: ignore[return-value]


def _bytes_in(cache: Path) -> int:
    """Return the bytes of the files of a cache, counted while nothing is added or evicted."""
    with open(cache / "lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = {}
        for path in cache.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:  # renamed meanwhile, and then seen under its other name
                continue
            found[status.st_ino] = status.st_size
    return sum(found.values())
