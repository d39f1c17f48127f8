"""Long runs of the loader: is memory flat, do descriptors, threads or mappings grow? ``make soak``.

Every mode (threads, worker processes, a server) runs for a third of the time. Each pass takes some thousand batches,
stops in the middle, resumes in a new loader from the saved state, and closes it; memory and the rest are read at the
end of each pass, of the workers and the server too. The first third of the passes warms up (allocators, page tables);
from then on nothing may grow. Ends with 1 when something does.
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

MODES = ("threads", "processes", "remote")
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


def one_pass(place: str, first_step: int, options: dict, server: psutil.Process | None) -> Census:
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


def soak(mode: str, shards: Path, minutes: float) -> list[Census]:
    """Run one mode for so long; return the census after each pass."""
    options: dict = {"num_workers": 2}
    server, place = None, str(shards)
    if mode == "threads":
        options["threads"] = True
    if mode == "remote":
        command = [sys.executable, "-m", "gemsdata.cli", "serve", shards, "--port", "0"]
        serving = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert serving.stdout is not None
        place = next(line.split()[-1] for line in serving.stdout if line.startswith("serving "))
        server = psutil.Process(serving.pid)
    counts, step = [], 0
    end = time.monotonic() + 60 * minutes
    try:
        while time.monotonic() < end or len(counts) < 6:
            counts.append(one_pass(place, step, options, server))
            step += 2 * _STEPS
    finally:
        if server is not None:
            server.terminate()
            serving.wait(60)
    print(f"{mode}: {len(counts)} passes, {step:,} batches of {_BATCH_ROWS} rows", flush=True)
    return counts


def growth(counts: list[Census]) -> dict[str, float]:
    """Return how much each figure is larger in the last third than in the middle one, by their medians."""
    third = len(counts) // 3
    middle, last = counts[third : 2 * third], counts[-third:]
    names = [field.name for field in fields(Census)]
    parts = [zip(*map(astuple, part), strict=True) for part in (middle, last)]
    values = [[statistics.median(column) for column in part] for part in parts]
    for name, before, after in zip(names, *values, strict=True):
        print(f"  {name:16} {before:14,.0f} then {after:14,.0f}")
    return {name: after - before for name, before, after in zip(names, *values, strict=True)}


def main(arguments: list[str] | None = None) -> int:
    """Run the modes that are asked for; return 1 when something grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60, help="altogether")
    parser.add_argument("--modes", default=",".join(MODES), help="comma-separated, of %(default)s")
    chosen = parser.parse_args(arguments)
    modes = chosen.modes.split(",")
    grown = []
    with tempfile.TemporaryDirectory(prefix="gemsdata-soak-") as folder:
        shards = make_set(Path(folder))
        for mode in modes:
            limits = {"anonymous_bytes": MAX_GROWTH_BYTES, "mappings": MAX_MORE_MAPPINGS}
            changes = growth(soak(mode, shards, chosen.minutes / len(modes)))
            too_much = {name: change for name, change in changes.items() if change > limits.get(name, 0)}
            grown += [f"{mode}: {name} +{change:,.0f}" for name, change in too_much.items()]
    print("\n".join(["grew:", *grown]) if grown else "nothing grew")
    return int(bool(grown))


def make_set(folder: Path) -> Path:
    """Make a set of some ten thousand rows of random bases, in many shards."""
    import numpy as np

    bases = np.frombuffer(b"ACGT", np.uint8)[np.random.default_rng(0).integers(0, 4, 6_000_000)].tobytes().decode()
    fasta = folder / "genome.fa"
    fasta.write_text(f">one\n{bases}\n")
    gd.shard([fasta], folder / "set", gd.ShardOptions(rows_per_shard=1024, block_rows=256, valid_fraction=0))
    return folder / "set"


if __name__ == "__main__":
    sys.exit(main())
