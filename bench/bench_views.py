"""Views of a packed genome against stored rows, and against other ways of reading a genome, in one run.

    python -m bench.bench_views [GENOME] [--rounds 3] [--seconds 2] [--megabases 3100] [--write]

Loaders hand out int64 tensors; tokens are counted without [CLS], [SEP] and padding. Contenders take turns; medians of
the rounds. What others do is in `bench.genome_peers`.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

import gemsdata as gd
from bench import genome_peers as peers
from bench.slow_link import slow_link
from bench.table import machine, markdown, write_section
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.write import shard
from gemsdata.views.view import View
from tools.synthesize import GenomeRecipe, write_fasta

GENOME = Path(__file__).parents[2] / "shared" / "data" / "genomes" / "hg38_chr1_28Mb.fa.gz"
LONG = 32_768
LONGEST = 1_048_576
LINK_BYTES_PER_SECOND = 125e6
LETTERS = np.frombuffer(b"ATCGN", np.uint8)
THREADS, PROCESSES, ONE = "2 threads", "2 processes", "1 thread"
OURS = "gemsdata, a view"


@dataclass(frozen=True)
class Contender:
    """One line of a table."""

    name: str
    workers: str
    speed: Callable[[float], float]
    """seconds to measure for -> tokens a second"""


def rate(batches: Iterator[float], seconds: float) -> float:
    """Return tokens per second, after one warm-up batch."""
    next(batches)
    began, tokens = time.perf_counter(), 0.0
    while time.perf_counter() - began < seconds:
        tokens += next(batches)
    return tokens / (time.perf_counter() - began)


def tokens_of_batches(loader: peers.Loader, share: float) -> Iterator[float]:
    """Yield the number of tokens of each batch, without end; ``share`` of all positions are tokens."""
    while True:
        for batch in loader:
            yield batch["input_ids"].numel() * share


def peer(name: str, open_loader: Callable[[], peers.Loader]) -> Contender:
    """Return a loader of another project, all of whose positions are tokens."""
    return Contender(name, PROCESSES, lambda seconds: rate(tokens_of_batches(open_loader(), 1.0), seconds))


def ours(name: str, view: View, batch_size: int, masking: str = "genemask", *, workers: str = THREADS) -> Contender:
    """Return a loader of the rows of a view, masked."""

    def speed(seconds: float) -> float:
        loader = gd.build_loader(
            view, masking=masking, batch_size=batch_size, num_workers=2, threads=workers == THREADS
        )
        return rate(tokens_of_batches(loader, num_tokens(view) / len(view) / (view.row_tokens + 2)), seconds)

    return Contender(f"{name}, {masking}", workers, speed)


def num_tokens(view: View) -> int:
    """Return the number of tokens of an epoch; for tokens that vary in length it is known for stored sets only."""
    if view.packed:
        return int(view.windows("train").num_tokens.sum())
    return sum(entry.num_tokens for entry in view.shards.manifest.shards("train"))


def first_pass(name: str, url: str, cache: Path, tokens: int, *, as_view: bool) -> Contender:
    """Return a loader that reads each row of a set at a URL once, with an empty cache."""

    def speed(seconds: float) -> float:
        shutil.rmtree(cache, ignore_errors=True)
        began = time.perf_counter()
        shards = ShardSet.open(url, cache_dir=cache)
        source = gd.view(shards, tokens="kmer:6", row_tokens=510) if as_view else shards
        loader = gd.build_loader(source, batch_size=256, num_epochs=1, num_workers=2, threads=True)
        for _ in loader:
            pass
        return tokens / (time.perf_counter() - began)

    return Contender(name, THREADS, speed)


def unmasked(name: str, view: View) -> Contender:
    """Return the rows of a view, read and tokenized but not masked."""

    def batches() -> Iterator[float]:
        reader, random = view.reader("train"), np.random.default_rng(0)
        while True:
            yield float(reader.rows(0, random.integers(0, len(view), 64)).tokens.num_tokens.sum())

    return Contender(name, ONE, lambda seconds: rate(batches(), seconds))


def tokenizer_alone(name: str, view: View) -> Contender:
    """Return the Hugging Face tokenizer on the text of the view's rows."""

    def batches() -> Iterator[float]:
        tokenizer, random = view.tokenizer().backend_tokenizer, np.random.default_rng(0)
        texts = row_texts(view, random.integers(0, len(view), 640))
        for first in itertools.cycle(range(0, len(texts), 64)):
            encoded = tokenizer.encode_batch_fast(texts[first : first + 64], add_special_tokens=False)
            yield float(sum(len(one.ids) for one in encoded))

    return Contender(name, ONE, lambda seconds: rate(batches(), seconds))


def row_texts(view: View, row_ids: np.ndarray) -> list[str]:
    """Return the bases of rows as text."""
    found = view.rows(row_ids)
    counts = (found.end - found.start).tolist()
    return [LETTERS[found.tokens.bases[i, :n]].tobytes().decode() for i, n in enumerate(counts)]


def bpe_views(packed: Path, fasta: Path, folder: Path) -> tuple[View, View]:
    """Return BPE rows of up to 510 tokens, tokenized when they are read, and the same written as an Arrow set."""
    tokenizer = peers.bpe_folder(fasta, folder / "bpe")
    trial = gd.view(packed, tokens=tokenizer, row_bases=2000, row_tokens=2000, jitter=False)
    found = trial.rows(np.arange(0, len(trial), 50)).tokens
    row_bases = int(490 * found.num_bases.sum() / found.num_tokens.sum())
    read = gd.view(packed, tokens=tokenizer, row_bases=row_bases, row_tokens=510, jitter=False)
    read.write(folder / "bpe-rows", workers=2)
    return read, gd.view(folder / "bpe-rows")


def contenders(fasta: Path, folder: Path, files: ExitStack) -> dict[str, list[Contender]]:
    """Return the contenders of each table, gemsdata first."""
    for name in ("packed", "arrow"):
        shard([str(fasta)], folder / name, ShardOptions(format=name), workers=2)
    packed, arrow = folder / "packed", gd.view(folder / "arrow")
    peers.write_peers(fasta, folder, LONG)
    jsonl = [str(path) for path in sorted(folder.glob("*.jsonl.zst"))]
    kmers = gd.view(packed, tokens="kmer:6", row_tokens=510)
    bases = gd.view(packed, tokens="base", row_bases=LONG)
    bpe, written = bpe_views(packed, fasta, folder)
    url = files.enter_context(slow_link(folder, LINK_BYTES_PER_SECOND))
    mapped = folder / "bases.bin"
    return {
        "overlapping 6-mers, rows of 510": [
            ours(OURS, kmers, 256),
            ours("gemsdata, stored rows (Arrow)", arrow, 256),
        ],
        f"overlapping 6-mers, one pass over a set at a URL, {LINK_BYTES_PER_SECOND / 1e6:.0f} MB/s": [
            first_pass(OURS, f"{url}/packed", folder / "cache", num_tokens(kmers), as_view=True),
            first_pass(
                "gemsdata, stored rows (Arrow)", f"{url}/arrow", folder / "cache", num_tokens(arrow), as_view=False
            ),
        ],
        f"single bases, rows of {LONG:,}, masked": [
            ours(OURS, bases, 4),
            ours(OURS, bases, 4, workers=PROCESSES),
            peer("jsonl.zst by HF datasets and HF's collator, as GPN", lambda: peers.jsonl_stream(jsonl, LONG)),
            peer(
                "uint8 memory map, as BioNeMo, and HF's collator",
                lambda: peers.shuffled(peers.MappedWindows(mapped, LONG), peers.masking_collator(LONG)),
            ),
        ],
        f"single bases, rows of {LONG:,}, ours masked, the others not": [
            ours(OURS, bases, 4),
            peer("pyfaidx, as HyenaDNA", lambda: peers.shuffled(peers.PyfaidxWindows(fasta, LONG), peers.stacked)),
            peer(
                "uint8 memory map, as BioNeMo", lambda: peers.shuffled(peers.MappedWindows(mapped, LONG), peers.stacked)
            ),
        ],
        f"single bases, rows of {LONGEST:,}": [
            ours(OURS, gd.view(packed, tokens="base", row_bases=LONGEST), 1, "global"),
        ],
        f"BPE, 4,096 ids, rows of {bpe.row_bases:,} bases, not masked": [
            unmasked(OURS, bpe),
            tokenizer_alone("the Hugging Face tokenizer alone", bpe),
        ],
        "BPE rows of up to 510 tokens, written as Arrow": [
            ours("gemsdata, stored rows (BPE)", written, 256),
            ours("gemsdata, stored rows (6-mers)", arrow, 256),
        ],
    }


def throughput(fasta: Path, folder: Path, rounds: int, seconds: float) -> str:
    with ExitStack() as files:
        groups = contenders(fasta, folder, files)
        speeds: dict[tuple[str, int], list[float]] = {}
        for _ in range(rounds):
            for title, entries in groups.items():
                for number, entry in enumerate(entries):
                    speeds.setdefault((title, number), []).append(entry.speed(seconds))
    tables = []
    for title, entries in groups.items():
        medians = [statistics.median(speeds[title, number]) for number in range(len(entries))]
        lines = [
            [entry.name, entry.workers, f"{speed / 1e6:,.2f}", f"{medians[0] / speed:,.2f}"]
            for entry, speed in zip(entries, medians, strict=True)
        ]
        tables.append(markdown([title, "runs in", "million tokens/s", "first line: times faster"], lines))
    return "\n\n".join(tables)


def write_large(fasta: Path, megabases: int) -> int:
    """Write a synthetic genome of 24 contigs, eight times the same three; return its bases."""
    part_bases, part = megabases * 1_000_000 // 8, io.BytesIO()
    write_fasta(GenomeRecipe(num_bases=part_bases, num_contigs=3), part)
    with open(fasta, "wb") as stream:
        for copy in range(8):
            stream.write(part.getvalue().replace(b">synth", b">copy%d_synth" % copy))
    return 8 * part_bases


def sharding(megabases: int, folder: Path) -> str:
    """Time `gemsdata shard` of a large synthetic genome, packed and as rows; say sizes and peak memory."""
    fasta = folder / "large.fa"
    bases = write_large(fasta, megabases)
    lines = []
    for name in ("packed", "arrow"):
        out = folder / f"large-{name}"
        seconds, processor_seconds, memory_bytes = _measured("shard", fasta, "-o", out, "--format", name)
        sizes = {path.relative_to(out): path.stat().st_size for path in out.rglob("*") if path.is_file()}
        beside = ", ".join(f"{path} {size / 1e6:,.1f} MB" for path, size in sizes.items() if len(path.parts) == 1)
        total = sum(sizes.values())
        lines.append(
            [
                f"--format {name}",
                f"{seconds:.1f} s",
                f"{processor_seconds:.1f} s",
                f"{memory_bytes / 1e6:,.0f} MB",
                f"{total / 1e9:.3f} GB",
                f"{total / bases:.4f}",
                beside,
            ]
        )
        shutil.rmtree(out)
    fasta.unlink()
    title = f"gemsdata shard, {bases:,} synthetic bases, 2 workers"
    header = [title, "wall clock", "processor time", "peak memory", "written", "bytes a base", "beside the shards"]
    return markdown(header, lines)


_LAUNCHER = """
import json, resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))
"""
"""runs a command from a small process: its peak memory includes that of the process which started it"""


def _measured(*arguments: str | Path) -> tuple[float, float, int]:
    """Run a command of gemsdata with two workers; return its seconds, processor seconds and peak memory in bytes."""
    command = [sys.executable, "-m", "gemsdata.cli", *map(str, arguments), "--workers", "2", "-q"]
    began = time.perf_counter()
    launched = subprocess.run([sys.executable, "-c", _LAUNCHER, *command], stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - began
    status, processor_seconds, memory_bytes = json.loads(launched.stdout)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    return seconds, processor_seconds, memory_bytes


@click.command()
@click.argument("genome", type=click.Path(path_type=Path), default=GENOME)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--seconds", type=float, default=2.0, show_default=True, help="Of each contender in a round.")
@click.option("--megabases", type=int, default=3100, show_default=True, help="Size of the genome to shard; 0: none.")
@click.option("--write", is_flag=True, help="Write the tables into docs/benchmarks.md.")
def main(genome: Path, rounds: int, seconds: float, megabases: int, write: bool) -> None:
    """Print Markdown tables of tokens per second."""
    warnings.simplefilter("ignore")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="gemsdata-bench-") as scratch:
        folder = Path(scratch)
        parts = []
        if genome.is_file():
            fasta = folder / "genome.fa"
            with (
                gzip.open(genome) if genome.suffix == ".gz" else open(genome, "rb") as source,
                open(fasta, "wb") as out,
            ):
                shutil.copyfileobj(source, out)
            parts.append(throughput(fasta, folder, rounds, seconds))
        if megabases:
            parts.append(sharding(megabases, folder))
    about = (
        f"{genome.name}; medians of {rounds} rounds in which the contenders take turns; load of the machine when it"
        f" began: {load:.1f}"
    )
    text = "\n\n".join([f"Measured by `make bench` on {machine()}; {about}.", *parts])
    click.echo(text)
    if write:
        write_section("views", text)


if __name__ == "__main__":
    main()
