"""FASTA to shards: counting against jellyfish and KMC, writing against MDS and litdata, the whole against plain I/O.

    python -m bench.bench_offline [--megabases 1000] [--rounds 3]

Programs take turns within each round, and the median of the rounds is reported, because the machine's speed varies.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from bench.peers import stub_torchvision
from bench.table import machine, markdown, write_section
from gemsdata.shards import write as sharding
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from tools.synthesize import GenomeRecipe, write_fasta

ONE_CORE = ["taskset", "-c", "0"]


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(programs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Run all programs once a round; return the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, work in programs.items():
            times[name].append(seconds_of(work))
    return {name: statistics.median(values) for name, values in times.items()}


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def counting(fasta: Path, megabases: float, rounds: int, scratch: Path) -> str:
    programs: dict[str, Callable[[], object]] = {
        "gemsdata, n = 1..10": lambda: run(*ONE_CORE, sys.executable, "-m", "bench.count_all", fasta)
    }
    if shutil.which("kmc"):
        (scratch / "kmc").mkdir(exist_ok=True)
        command = [*ONE_CORE, "kmc", "-k10", "-b", "-ci1", "-t1", "-fm", fasta, scratch / "kmc.out", scratch / "kmc"]
        programs["KMC 3, k = 10"] = lambda: run(*command)
    if shutil.which("jellyfish"):
        jellyfish = [*ONE_CORE, "jellyfish", "count", "-m", "10", "-s", "2M", "-t", "1", "-o", scratch / "j.jf", fasta]
        programs["jellyfish, k = 10"] = lambda: run(*jellyfish)
    median = interleaved(programs, rounds)
    ours = next(iter(median.values()))
    rows = [
        [name, f"{value:.2f} s", f"{megabases / value:,.0f}", f"{value / ours:.1f}"] for name, value in median.items()
    ]
    return markdown(["read and count, one core", "time", "Mbase/s", "gemsdata: times faster"], rows)


def writing(fasta: Path, rounds: int, scratch: Path) -> str:
    """Write the same rows with each; gemsdata also makes them from the packed genome, hashes and flushes them."""
    work = scratch / "set"
    plan = sharding.plan_only([str(fasta)], work, ShardOptions(valid_fraction=0.0))
    num_rows = sum(part.num_rows for part in plan.parts)

    def ours(workers: int) -> None:
        for path in plan.part_file("train").iterdir():
            path.unlink()
        sharding.encode_parts(plan, plan.parts, workers=workers)

    ours(2)
    kept = scratch / "kept"
    shutil.copytree(work, kept)
    sharding.finalise(sharding.open_plan(kept))
    shards = ShardSet.open(kept)
    rows = shards.read("train", np.arange(num_rows))
    programs: dict[str, Callable[[], object]] = {
        "gemsdata, 1 worker": lambda: ours(1),
        "gemsdata, 2 workers": lambda: ours(2),
    }
    notes = []
    try:
        stub_torchvision()
        from streaming import MDSWriter

        columns = {"input_ids": "ndarray:uint16:510", "num_tokens": "uint16", "contig": "uint16", "start": "int64"}

        def mds() -> None:
            shutil.rmtree(scratch / "mds", ignore_errors=True)
            with MDSWriter(out=str(scratch / "mds"), columns=columns) as writer:
                for i in range(num_rows):
                    writer.write(
                        {
                            "input_ids": rows.input_ids[i],
                            "num_tokens": rows.num_tokens[i],
                            "contig": rows.contig[i],
                            "start": rows.start[i],
                        }
                    )

        programs["MosaicML MDSWriter"] = mds
    except ImportError as error:
        notes.append(f"MosaicML streaming is not installed ({error}): see `make bench`.")
    np.save(scratch / "rows.npy", rows.input_ids)
    if subprocess.run([sys.executable, "-c", "import litdata"], capture_output=True, check=False).returncode == 0:
        for workers in (1, 2):
            programs[f"litdata optimize, {workers} worker{'s' * (workers > 1)}"] = lambda workers=workers: run(
                sys.executable, "-m", "bench.write_litdata", scratch / "rows.npy", scratch / "lit", str(workers)
            )
    else:
        notes.append("litdata is not installed: see `make bench`.")
    median = interleaved(programs, rounds)
    base = median["gemsdata, 1 worker"]
    table = [[name, f"{num_rows / value:,.0f}", f"{value / base:.1f}"] for name, value in median.items()]
    header = [f"write {num_rows:,} rows of 510 tokens", "rows/s", "gemsdata, 1 worker: times faster"]
    return "\n\n".join([markdown(header, table), *notes])


def whole(fasta: Path, megabases: float, rounds: int, scratch: Path) -> str:
    """Time `gemsdata shard` against reading the FASTA with the fastest library and writing the same bytes."""
    out = scratch / "whole"
    peaks: list[int] = []

    def ours() -> None:
        run(sys.executable, "-m", "gemsdata.cli", "shard", fasta, "-o", out, "--workers", "2", "--overwrite")
        peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)

    ours()
    num_bytes = sum(path.stat().st_size for path in out.glob("*/*.arrow"))
    block = os.urandom(1 << 20)

    def write(flush: bool) -> None:
        with open(scratch / "bytes", "wb") as stream:
            for _ in range(num_bytes >> 20):
                stream.write(block)
            if flush:
                stream.flush()
                os.fsync(stream.fileno())

    programs: dict[str, Callable[[], object]] = {"gemsdata shard": ours}
    try:
        import pyfastx

        reader, name = (lambda: sum(len(sequence) for _, sequence in pyfastx.Fastx(str(fasta)))), "pyfastx"
    except ImportError:
        import pysam

        reader, name = (lambda: sum(len(r.sequence) for r in pysam.FastxFile(str(fasta), persist=False))), "pysam"
    programs[f"read with {name}"] = reader
    programs["write the same bytes, flushed to disk"] = lambda: write(True)
    programs["write the same bytes to the page cache"] = lambda: write(False)
    median = interleaved(programs, rounds)
    ours_s, read_s, durable_s, cached_s = median.values()
    rows = [[label, f"{value:.2f} s"] for label, value in median.items()]
    rows.append(["time of gemsdata shard / (read + write flushed)", f"{ours_s / (read_s + durable_s):.2f}"])
    rows.append(["time of gemsdata shard / (read + write to cache)", f"{ours_s / (read_s + cached_s):.2f}"])
    rows.append(["peak memory of gemsdata shard", f"{max(peaks) / 1024:,.0f} MB"])
    return markdown([f"the whole of {megabases:,.0f} Mbase, {num_bytes / 1e9:.2f} GB of Arrow", "median"], rows)


@click.command()
@click.option("--megabases", type=int, default=1000, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--write", is_flag=True, help="Write the tables into docs/benchmarks.md.")
def main(megabases: int, rounds: int, write: bool) -> None:
    """Print Markdown tables of counting, writing and sharding."""
    with tempfile.TemporaryDirectory(prefix="gemsdata-bench-") as folder:
        scratch = Path(folder)
        fasta, small = scratch / "genome.fa", scratch / "small.fa"
        for path, size in ((fasta, megabases), (small, 100)):
            with open(path, "wb") as stream:
                write_fasta(GenomeRecipe(num_bases=size * 1_000_000, num_contigs=8), stream)
        text = "\n\n".join(
            [
                f"Measured by `make bench` on {machine()}; a synthetic genome of "
                f"{megabases:,} Mbase; medians of {rounds} rounds in which the programs take turns.",
                counting(fasta, megabases, rounds, scratch),
                writing(small, rounds, scratch),
                whole(fasta, megabases, rounds, scratch),
            ]
        )
    click.echo(text)
    if write:
        write_section("offline", text)


if __name__ == "__main__":
    main()
