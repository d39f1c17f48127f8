"""Views of a packed genome against stored rows, and against other ways of reading a genome, in one run.

    python -m bench.bench_views [GENOME] [--rounds 3] [--seconds 3] [--megabases 3100] [--write]

Loaders hand out int64 tensors; tokens are counted without [CLS], [SEP] and padding. Contenders take turns; medians of
the rounds. What others do is in `bench.genome_peers`.
"""

from __future__ import annotations

import gzip
import itertools
import os
import shutil
import statistics
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
from bench.large_genome import sharding
from bench.slow_link import slow_link
from bench.table import machine, markdown, write_section
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.write import shard
from gemsdata.views.view import View

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
    token_bases: float = 0.0
    """bases of the genome a token, on average; 0: the table has no column of bases"""


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


def ours(
    name: str,
    view: View,
    batch_size: int,
    masking: str = "genemask",
    *,
    workers: str = THREADS,
    as_set: bool = False,
    token_bases: float = 0.0,
) -> Contender:
    """Return a loader of the rows of a view, masked; ``as_set``: of the set of tokens that is viewed."""

    def speed(seconds: float) -> float:
        source = view.shards if as_set else view
        loader = gd.build_loader(
            source, masking=masking, batch_size=batch_size, num_workers=2, threads=workers == THREADS
        )
        return rate(tokens_of_batches(loader, num_tokens(view) / len(view) / (view.row_tokens + 2)), seconds)

    return Contender(f"{name}, {masking}", workers, speed, token_bases)


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


def bpe_views(packed: Path, fasta: Path, folder: Path) -> tuple[View, View, float]:
    """Return BPE rows that are tokenized when they are read, rows of up to 510 tokens written as Arrow; bases a token.

    Of the rows that are read no token is cut off: the tokenizer that they are compared with gets the same bases.
    """
    tokenizer = peers.bpe_folder(fasta, folder / "bpe")
    read = gd.view(packed, tokens=tokenizer, row_bases=2000, row_tokens=2000, jitter=False)
    found = read.rows(np.arange(0, len(read), 50)).tokens
    token_bases = float(found.num_bases.sum() / found.num_tokens.sum())
    options = {"tokens": tokenizer, "row_bases": int(490 * token_bases), "row_tokens": 510, "jitter": False}
    gd.view(packed, **options).write(folder / "bpe-rows", workers=2)
    return read, gd.view(folder / "bpe-rows"), token_bases


def contenders(fasta: Path, folder: Path, files: ExitStack) -> dict[str, list[Contender]]:
    """Return the contenders of each table, gemsdata first."""
    for name in ("packed", "arrow"):
        shard([str(fasta)], folder / name, ShardOptions(format=name), workers=2)
    packed, arrow = folder / "packed", gd.view(folder / "arrow")
    peers.write_peers(fasta, folder, LONG)
    jsonl = [str(path) for path in sorted(folder.glob("*.jsonl.zst"))]
    kmers = gd.view(packed, tokens="kmer:6", row_tokens=510)
    bases = gd.view(packed, tokens="base", row_bases=LONG)
    bpe, written, bpe_bases = bpe_views(packed, fasta, folder)
    url = files.enter_context(slow_link(folder, LINK_BYTES_PER_SECOND))
    mapped = folder / "bases.bin"
    return {
        "overlapping 6-mers, rows of 510": [
            ours(OURS, kmers, 256),
            ours("gemsdata, stored rows (Arrow)", arrow, 256, as_set=True),
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
            entry
            for masking in ("genemask", "random-token")
            for entry in (
                ours("gemsdata, stored rows (BPE)", written, 256, masking, token_bases=bpe_bases),
                ours("gemsdata, stored rows (6-mers)", arrow, 256, masking, as_set=True, token_bases=1),
            )
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
        header = [title, "runs in", "million tokens/s", "first line: times faster"]
        lines = [
            [entry.name, entry.workers, f"{speed / 1e6:,.2f}", f"{medians[0] / speed:,.2f}"]
            for entry, speed in zip(entries, medians, strict=True)
        ]
        if entries[0].token_bases:
            header.append("million bases/s")
            for line, entry, speed in zip(lines, entries, medians, strict=True):
                line.append(f"{speed * entry.token_bases / 1e6:,.2f}")
        tables.append(markdown(header, lines))
    return "\n\n".join(tables)


@click.command()
@click.argument("genome", type=click.Path(path_type=Path), default=GENOME)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--seconds", type=float, default=3.0, show_default=True, help="Of each contender in a round.")
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
