"""Masked batches over loopback from one and two servers, against the local loader in the same run.

    python -m bench.bench_serve [--megabases 50] [--rounds 3] [--seconds 4] [--write]

Rows of 512 tokens, batches of 256, `genemask`. Servers and client share the processors of one machine, so this measures
the overhead of the service, not its benefit: in use, the servers add their processors. "Its own processor time" is that
of the training process. Programs take turns; medians of the rounds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

import gemsdata as gd
from bench.table import machine, markdown, write_section
from gemsdata.shards import write as sharding
from gemsdata.shards.options import ShardOptions
from tools.synthesize import GenomeRecipe, write_fasta

BATCH = 256


@contextlib.contextmanager
def servers(folder: Path, count: int) -> Iterator[list[str]]:
    """Start servers of a set; yield their addresses."""
    command = [sys.executable, "-m", "gemsdata.cli", "serve", str(folder), "--port", "0", "--workers", "2"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        yield [process.stdout.readline().split()[-1] for process in processes]
    finally:
        for process in processes:
            process.terminate()
            process.communicate(timeout=60)


def processor_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measured(place: object, seconds: float, **options: object) -> tuple[float, float]:
    """Return (rows a second, processor microseconds a row of this process and its workers)."""
    loader = gd.build_loader(place, masking="genemask", batch_size=BATCH, **options)
    iterator = iter(loader)
    for _ in itertools.islice(iterator, 20):
        pass
    began, used, steps = time.perf_counter(), processor_seconds(), 0
    while time.perf_counter() - began < seconds:
        next(iterator)
        steps += 1
    elapsed = time.perf_counter() - began
    loader.close()
    return steps * BATCH / elapsed, (processor_seconds() - used) / (steps * BATCH) * 1e6


@click.command()
@click.option("--megabases", type=int, default=50, show_default=True)
@click.option("--seconds", type=float, default=4.0, show_default=True, help="Of each loader in a round.")
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--write", is_flag=True, help="Write the tables into docs/benchmarks.md.")
def main(megabases: int, seconds: float, rounds: int, write: bool) -> None:
    """Print a Markdown table of batches from servers."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="gemsdata-bench-") as scratch:
        fasta, folder = Path(scratch) / "genome.fa", Path(scratch) / "set"
        with open(fasta, "wb") as stream:
            write_fasta(GenomeRecipe(num_bases=megabases * 1_000_000, num_contigs=8), stream)
        sharding.shard([fasta], folder, ShardOptions())
        with servers(folder, 2) as addresses:
            programs, remote = {}, {"num_workers": 4, "prefetch_factor": 8}
            for title, device in (("int64, as `build_loader` gives them", "cpu"), ("narrow, for a GPU", None)):
                programs |= {
                    (title, "local, 2 worker processes"): (folder, {"num_workers": 2, "device": device}),
                    (title, "local, 2 threads"): (folder, {"num_workers": 2, "threads": True, "device": device}),
                    (title, "1 server"): (addresses[:1], {**remote, "device": device}),
                    (title, "2 servers"): (addresses, {**remote, "device": device}),
                }
            found: dict[tuple[str, str], list[tuple[float, float]]] = {name: [] for name in programs}
            for _ in range(rounds):
                for name, (place, chosen) in programs.items():
                    found[name].append(measured(place, seconds, **chosen))
    lines = []
    for (title, name), results in found.items():
        rate = statistics.median(result[0] for result in results)
        cost = statistics.median(result[1] for result in results)
        local = [
            statistics.median(r[0] for r in found[title, f"local, 2 {how}"]) for how in ("worker processes", "threads")
        ]
        ratios = [f"{rate / other:.2f}" for other in local]
        lines.append([title, name, f"{rate:,.0f}", *ratios, f"{cost:.1f}"])
    header = [
        "tensors",
        "loader",
        "rows/s",
        "speed / that of local processes",
        "speed / that of local threads",
        "processor time of the training process, µs a row",
    ]
    text = (
        f"Measured by `make bench` on {machine()}; medians of {rounds} rounds in which the loaders take turns;"
        f" servers and client on the same machine, whose load was {load:.1f} before.\n\n{markdown(header, lines)}"
    )
    click.echo(text)
    if write:
        write_section("serve", text)


if __name__ == "__main__":
    main()
