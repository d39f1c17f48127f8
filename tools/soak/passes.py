"""Run many steps of the loader in passes, and count the resources of the processes after each.

Every mode takes its steps as fast as it can: threads, worker processes, a server, a set at a URL with a cache smaller
than the set. Each pass takes 3,000 batches, stops in the middle, resumes in a new loader from the saved state, and
closes it. The first third of the passes warms up (allocators, page tables); after that, nothing may grow.
"""

from __future__ import annotations

import gc
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import psutil

import gemsdata as gd
from tools.fault_server import serving

MODES = ("threads", "processes", "server", "url", "opened")
STEPS_OF_AN_HOUR = 36_000
NUM_OPENED = 200
LIMITS = {"anonymous_bytes": 16 << 20, "mappings": 16, "threads": 2, "descriptors": 2}
"""allowed growth of each figure, 0 for others: malloc adds and drops arenas occasionally, a thread of the previous
loader may be about to end, a client may keep one connection more, while a leak would add to every pass, four times
between the medians"""
BATCH_ROWS = 128
STEPS_OF_A_PASS = 3000


@dataclass(frozen=True, kw_only=True)
class Census:
    """Resources of this process, its workers and its server."""

    anonymous_bytes: int
    """memory that is not backed by a file"""
    descriptors: int
    mappings: int
    threads: int
    processes: int
    shared_files: int
    """names in /dev/shm"""


def census(server: psutil.Process | None) -> Census:
    """Count the current resources."""
    gc.collect()
    own = psutil.Process()
    children = own.children(recursive=True)
    processes = [own, *children]
    if server is not None and server not in children:
        processes.append(server)
    anonymous = descriptors = mappings = threads = 0
    for process in processes:
        status = Path(f"/proc/{process.pid}/status").read_text()
        anonymous += next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon"))
        descriptors += process.num_fds()
        mappings += len(Path(f"/proc/{process.pid}/maps").read_text().splitlines())
        threads += process.num_threads()
    return Census(
        anonymous_bytes=anonymous,
        descriptors=descriptors,
        mappings=mappings,
        threads=threads,
        processes=len(processes),
        shared_files=len(list(Path("/dev/shm").iterdir())),
    )


def one_pass(place: str | gd.ShardSet, first_step: int, options: dict, server: psutil.Process | None) -> Census:
    """Take batches, stop, resume in another loader, take as many again; return the census before closing it."""
    arguments = {"masking": "genemask", "batch_size": BATCH_ROWS, "reverse_complement": 0.5, "seed": 1, **options}
    loader = gd.build_loader(place, **arguments)
    loader.load_state_dict({**loader.state_dict(), "step": first_step})
    for _ in itertools.islice(loader, STEPS_OF_A_PASS // 2):
        pass
    state = json.loads(json.dumps(loader.state_dict()))
    loader.close()
    resumed = gd.build_loader(place, **arguments)
    resumed.load_state_dict(state)
    iterator = iter(resumed)
    for expected in range(first_step + STEPS_OF_A_PASS // 2, first_step + STEPS_OF_A_PASS):
        assert next(iterator)["step"] == expected
    counts = census(server)
    resumed.close()
    return counts


def opened(shards: Path) -> list[Census]:
    """Open and close loaders; return the census after every tenth of them."""
    counts = []
    for number in range(NUM_OPENED):
        options = {"num_workers": 2, "threads": number % 2 == 0}
        loader = gd.build_loader(str(shards), masking="genemask", batch_size=BATCH_ROWS, seed=number, **options)
        next(iter(loader))
        loader.close()
        if number % (NUM_OPENED // 10) == NUM_OPENED // 10 - 1:
            del loader
            counts.append(census(None))
    return counts


def soak(mode: str, shards: Path, num_steps: int) -> list[Census]:
    """Run one mode for a number of steps; return the census after each pass."""
    if mode == "opened":
        return opened(shards)
    options: dict = {"num_workers": 2}
    server: psutil.Process | None = None
    place: str | gd.ShardSet = str(shards)
    if mode in ("threads", "url"):
        options["threads"] = True
    if mode == "url":
        return _soak_url(shards, num_steps, options)
    if mode == "server":
        command = [sys.executable, "-m", "gemsdata.cli", "serve", shards, "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        place = next(line.split()[-1] for line in process.stdout if line.startswith("serving "))
        server = psutil.Process(process.pid)
    try:
        return _passes(place, num_steps, options, server)
    finally:
        if server is not None:
            server.terminate()
            process.wait(60)


def _soak_url(shards: Path, num_steps: int, options: dict) -> list[Census]:
    """Read a set at a URL through a cache of half its size."""
    num_bytes = sum(path.stat().st_size for path in shards.rglob("*.arrow"))
    with serving(shards) as server, tempfile.TemporaryDirectory() as cache:
        place = gd.ShardSet.open(server.url, cache_dir=cache, cache_bytes=num_bytes // 2)
        counts = _passes(place, num_steps, {**options, "shuffle": 1000}, None)
        cached = sum(path.stat().st_size for path in Path(cache).iterdir())
        assert cached <= num_bytes // 2, f"{cached:,} bytes in a cache of {num_bytes // 2:,}"
    return counts


def _passes(place: str | gd.ShardSet, num_steps: int, options: dict, server: psutil.Process | None) -> list[Census]:
    """Run passes until ``num_steps`` are taken, six at least; return the census after each."""
    counts: list[Census] = []
    while len(counts) * STEPS_OF_A_PASS < num_steps or len(counts) < 6:
        counts.append(one_pass(place, len(counts) * STEPS_OF_A_PASS, options, server))
    return counts


def growth(counts: list[Census]) -> list[tuple[str, float, float]]:
    """Return (name of a figure, median over the middle third of the passes, median over the last third)."""
    third = len(counts) // 3
    parts = [zip(*map(astuple, part), strict=True) for part in (counts[third : 2 * third], counts[-third:])]
    medians = [[statistics.median(column) for column in part] for part in parts]
    return [(field.name, *values) for field, *values in zip(fields(Census), *medians, strict=True)]


def grown(counts: list[Census]) -> list[str]:
    """Return the figures that grew by more than their limit."""
    return [
        f"{name} +{after - before:,.0f}"
        for name, before, after in growth(counts)
        if after - before > LIMITS.get(name, 0)
    ]


def make_set(folder: Path) -> Path:
    """Make a set of some ten thousand rows of random bases, in many shards."""
    bases = np.frombuffer(b"ACGT", np.uint8)[np.random.default_rng(0).integers(0, 4, 6_000_000)].tobytes().decode()
    fasta = folder / "genome.fa"
    fasta.write_text(f">one\n{bases}\n")
    gd.shard([fasta], folder / "set", gd.ShardOptions(rows_per_shard=1024, block_rows=256, valid_fraction=0))
    return folder / "set"
