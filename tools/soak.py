"""Long runs of the loader: is memory flat, do descriptors, threads or mappings grow? ``make soak``.

Every mode takes as many steps as a training job of ten steps a second does in an hour, 36,000, as fast as it can:
threads, worker processes, a server, a set at a URL with a cache smaller than the set. Each pass takes 3,000 batches,
stops in the middle, resumes in a new loader from the saved state, and closes it; memory and the rest are read at the
end of each pass, of the workers and the server too. The first third of the passes warms up (allocators, page tables);
from then on nothing may grow. The mode "opened" opens and closes 200 loaders, in turn with threads and processes, and
reads one batch of each. Ends with 1 when something grows.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import psutil

import gemsdata as gd
from tools.fault_server import serving

MODES = ("threads", "processes", "server", "url", "opened")
STEPS_OF_AN_HOUR = 36_000
NUM_OPENED = 200
MAX_GROWTH_BYTES = 16 << 20
MAX_MORE_MAPPINGS = 16
"""malloc adds and drops an arena now and then; a pass that leaked a shard would leak a mapping each time"""
_BATCH_ROWS = 128
_STEPS = 1500


@dataclass(frozen=True, kw_only=True)
class Census:
    """What this process, its workers and its server have."""

    anonymous_bytes: int
    """memory that is not a page of a file"""
    descriptors: int
    mappings: int
    threads: int
    processes: int
    shared_files: int
    """names in /dev/shm"""


def census(server: psutil.Process | None) -> Census:
    """Count what is held now."""
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
    """Take batches, stop, resume in another loader, take as many again; return the census before that is closed."""
    arguments = {"masking": "genemask", "batch_size": _BATCH_ROWS, "reverse_complement": 0.5, "seed": 1, **options}
    loader = gd.build_loader(place, **arguments)
    loader.load_state_dict({**loader.state_dict(), "step": first_step})
    for _ in itertools.islice(loader, _STEPS):
        pass
    state = json.loads(json.dumps(loader.state_dict()))
    loader.close()
    resumed = gd.build_loader(place, **arguments)
    resumed.load_state_dict(state)
    iterator = iter(resumed)
    for expected in range(first_step + _STEPS, first_step + 2 * _STEPS):
        assert next(iterator)["step"] == expected
    counts = census(server)
    resumed.close()
    return counts


def opened(shards: Path) -> list[Census]:
    """Open and close loaders; return the census after every tenth of them."""
    counts = []
    for number in range(NUM_OPENED):
        options = {"num_workers": 2, "threads": number % 2 == 0}
        loader = gd.build_loader(str(shards), masking="genemask", batch_size=_BATCH_ROWS, seed=number, **options)
        next(iter(loader))
        loader.close()
        if number % (NUM_OPENED // 10) == NUM_OPENED // 10 - 1:
            del loader
            counts.append(census(None))
    print(f"opened: {NUM_OPENED} loaders", flush=True)
    return counts


def soak(mode: str, shards: Path, num_steps: int) -> list[Census]:
    """Run one mode for so many steps; return the census after each pass."""
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
        return _passes(mode, place, num_steps, options, server)
    finally:
        if server is not None:
            server.terminate()
            process.wait(60)


def _soak_url(shards: Path, num_steps: int, options: dict) -> list[Census]:
    """Run from a set at a URL, through a cache of a third of its size."""
    num_bytes = sum(path.stat().st_size for path in shards.rglob("*.arrow"))
    with serving(shards) as server, tempfile.TemporaryDirectory() as cache:
        place = gd.ShardSet.open(server.url, cache_dir=cache, cache_bytes=num_bytes // 3)
        counts = _passes("url", place, num_steps, {**options, "shuffle": 1000}, None)
        cached = sum(path.stat().st_size for path in Path(cache).iterdir())
        print(f"  cache: {cached:,} of {num_bytes // 3:,} bytes", flush=True)
        assert cached <= num_bytes // 3
    return counts


def _passes(
    mode: str, place: str | gd.ShardSet, num_steps: int, options: dict, server: psutil.Process | None
) -> list[Census]:
    """Run passes until ``num_steps`` are taken, six at least; return the census after each."""
    counts: list[Census] = []
    began, step = time.monotonic(), 0
    while step < num_steps or len(counts) < 6:
        counts.append(one_pass(place, step, options, server))
        step += 2 * _STEPS
    seconds = time.monotonic() - began
    print(f"{mode}: {len(counts)} passes, {step:,} batches of {_BATCH_ROWS} rows in {seconds:,.0f} s", flush=True)
    return counts


def growth(mode: str, counts: list[Census], rows: list[str]) -> dict[str, float]:
    """Return how much larger each median is in the last third than in the middle one; add a table to ``rows``."""
    third = len(counts) // 3
    middle, last = counts[third : 2 * third], counts[-third:]
    names = [field.name for field in fields(Census)]
    parts = [zip(*map(astuple, part), strict=True) for part in (middle, last)]
    values = [[statistics.median(column) for column in part] for part in parts]
    for name, before, after in zip(names, *values, strict=True):
        print(f"  {name:16} {before:14,.0f} then {after:14,.0f}")
        rows.append(f"| {mode} | {name} | {before:,.0f} | {after:,.0f} |")
    return {name: after - before for name, before, after in zip(names, *values, strict=True)}


def main(arguments: list[str] | None = None) -> int:
    """Run the modes that are asked for; return 1 when something grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS_OF_AN_HOUR, help="of each mode; default: %(default)s")
    parser.add_argument("--markdown", type=Path, help="file to write the table to")
    parser.add_argument("--modes", default=",".join(MODES), help="comma-separated, of %(default)s")
    chosen = parser.parse_args(arguments)
    modes = chosen.modes.split(",")
    grown: list[str] = []
    rows: list[str] = []
    with tempfile.TemporaryDirectory(prefix="gemsdata-soak-") as folder:
        shards = make_set(Path(folder))
        for mode in modes:
            limits = {"anonymous_bytes": MAX_GROWTH_BYTES, "mappings": MAX_MORE_MAPPINGS}
            changes = growth(mode, soak(mode, shards, chosen.steps), rows)
            too_much = {name: change for name, change in changes.items() if change > limits.get(name, 0)}
            grown += [f"{mode}: {name} +{change:,.0f}" for name, change in too_much.items()]
    result = "; ".join(["grew", *grown]) if grown else "nothing grew"
    print(result)
    if chosen.markdown:
        chosen.markdown.write_text(_HEAD.format(steps=chosen.steps, result=result) + "\n".join(rows) + "\n")
    return int(bool(grown))


def make_set(folder: Path) -> Path:
    """Make a set of some ten thousand rows of random bases, in many shards."""
    import numpy as np

    bases = np.frombuffer(b"ACGT", np.uint8)[np.random.default_rng(0).integers(0, 4, 6_000_000)].tobytes().decode()
    fasta = folder / "genome.fa"
    fasta.write_text(f">one\n{bases}\n")
    gd.shard([fasta], folder / "set", gd.ShardOptions(rows_per_shard=1024, block_rows=256, valid_fraction=0))
    return folder / "set"


_HEAD = f"""# Long runs

Written by `make soak`. Each mode took {{steps:,}} steps of {_BATCH_ROWS} rows, in passes of {2 * _STEPS:,}; an hour of
training at ten steps a second is {STEPS_OF_AN_HOUR:,}. `opened` opened and closed {NUM_OPENED} loaders. Figures are
medians over the middle and the last third of the passes, of the process, its workers and its server together. Limits:
{MAX_GROWTH_BYTES >> 20} MiB of memory and {MAX_MORE_MAPPINGS} mappings, for the allocator's arenas; no more of anything
else. Result: **{{result}}**.

| mode | figure | middle third | last third |
|---|---|---|---|
"""

if __name__ == "__main__":
    sys.exit(main())
