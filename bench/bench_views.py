"""Views of a packed genome against stored rows, and against other ways of reading a genome, in one run.

    python -m bench.bench_views [GENOME] [--rounds 3] [--seconds 3] [--megabases 3100] [--write]

Loaders have two workers and yield int64 tensors; those of other projects are written here following their published
descriptions and run in torch's DataLoader: HyenaDNA (a window of the FASTA by pyfaidx for each sample, letters to ids
by a dict, not masked), GPN (windows in a jsonl.zst file, streamed by Hugging Face datasets, tokenized, masked by its
collator), and a memory map of one byte per base with the same collator. Contenders take turns; medians of the rounds.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import numpy as np
import torch

import gemsdata as gd
from bench.table import machine, markdown, write_section
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import shard
from tests.test_views_tokens import bpe_folder
from tools.synthesize import GenomeRecipe, write_fasta

GENOME = Path(__file__).parents[2] / "shared" / "data" / "genomes" / "hg38_chr1_28Mb.fa.gz"
LONG = 32_768
LONGEST = 1_048_576
LETTERS = np.frombuffer(b"ATCGN", np.uint8)
OWN_IDS = {letter: i + 5 for i, letter in enumerate("ATCG")} | {"N": 1}
Loader = Iterable[dict[str, torch.Tensor]]


class PyfaidxWindows(torch.utils.data.Dataset):
    """A window of the FASTA for each sample, as in HyenaDNA's dataset."""

    def __init__(self, fasta: Path, num_bases: int) -> None:
        from pyfaidx import Fasta

        self.fasta, self.num_bases = Fasta(str(fasta), sequence_always_upper=True), num_bases
        self.starts = [
            (record.name, start) for record in self.fasta for start in range(0, len(record) - num_bases, num_bases)
        ]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> torch.Tensor:
        name, start = self.starts[index]
        letters = str(self.fasta[name][start : start + self.num_bases])
        return torch.LongTensor([OWN_IDS.get(letter, 1) for letter in letters])


class MappedWindows(torch.utils.data.Dataset):
    """A window of a memory map of one byte per base."""

    def __init__(self, path: Path, num_bases: int) -> None:
        self.path, self.num_bases = path, num_bases
        self.count = path.stat().st_size // num_bases

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        window = np.memmap(self.path, np.uint8, mode="r")[index * self.num_bases :][: self.num_bases]
        return torch.from_numpy(window.astype(np.int64))


def collator(num_tokens: int) -> Callable:
    from transformers import DataCollatorForLanguageModeling

    return DataCollatorForLanguageModeling(gd.KmerTokenizer(1, model_max_length=num_tokens + 2), mlm_probability=0.15)


def stacked(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.stack(rows)}


def shuffled(dataset: torch.utils.data.Dataset, collate: Callable) -> Loader:
    return torch.utils.data.DataLoader(
        dataset, batch_size=4, num_workers=2, persistent_workers=True, shuffle=True, collate_fn=collate
    )


def jsonl_stream(files: list[str], num_bases: int) -> Loader:
    """Windows as text, streamed, tokenized and masked, as in GPN's training."""
    import datasets

    tokenizer = gd.KmerTokenizer(1, model_max_length=num_bases + 2)
    stream = datasets.load_dataset("json", data_files=files, split="train", streaming=True).shuffle(0, buffer_size=16)
    stream = stream.map(
        lambda rows: {"input_ids": tokenizer([s.upper() for s in rows["seq"]])["input_ids"]},
        batched=True,
        batch_size=16,
        remove_columns=["seq"],
    )
    return torch.utils.data.DataLoader(
        stream, batch_size=4, num_workers=2, persistent_workers=True, collate_fn=collator(num_bases)
    )


def write_peers(fasta: Path, folder: Path) -> None:
    """Write the input of the other loaders: one byte per base, and windows as jsonl.zst in two files."""
    import zstandard

    records = [record.split(b"\n", 1)[1].replace(b"\n", b"") for record in fasta.read_bytes().split(b">")[1:]]
    ids = np.full(256, 1, np.uint8)
    for letter, token_id in OWN_IDS.items():
        ids[ord(letter)] = ids[ord(letter.lower())] = token_id
    with open(folder / "bases.bin", "wb") as out:
        for record in records:
            ids[np.frombuffer(record, np.uint8)].tofile(out)
    windows = [r[i : i + LONG] for r in records for i in range(0, len(r) - LONG, LONG)]
    for part in range(2):
        with zstandard.open(folder / f"{part}.jsonl.zst", "wt") as out:
            for window in windows[part::2]:
                out.write(json.dumps({"seq": window.decode()}) + "\n")


def tokens_per_second(batches: Iterator[int], seconds: float) -> float:
    """Return tokens per second, after one warm-up batch."""
    next(batches)
    began, tokens = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        tokens += next(batches)
    return tokens / (time.perf_counter() - began)


def of_loader(open_loader: Callable[[], Loader]) -> Callable[[], Iterator[int]]:
    """Return a function that yields the number of tokens of each batch of a loader, without end."""

    def batches() -> Iterator[int]:
        loader = open_loader()
        while True:
            for batch in loader:
                yield batch["input_ids"].numel()

    return batches


def ours(source: object, batch_size: int, masking: str = "genemask") -> Callable[[], Iterator[int]]:
    return of_loader(
        lambda: gd.build_loader(source, masking=masking, batch_size=batch_size, num_workers=2, threads=True)
    )


def unmasked(view: object, batch_size: int) -> Callable[[], Iterator[int]]:
    """Count the tokens of rows that are read and tokenized but not masked, on one core."""

    def batches() -> Iterator[int]:
        reader, random = view.reader("train"), np.random.default_rng(0)
        while True:
            yield int(reader.rows(0, random.integers(0, len(view), batch_size)).tokens.num_tokens.sum())

    return batches


def tokenizer_alone(view: object) -> Callable[[], Iterator[int]]:
    """Count the tokens that the Hugging Face tokenizer makes of the text of the view's rows, on one core."""

    def batches() -> Iterator[int]:
        bases = view.rows(np.arange(64)).tokens
        texts = [LETTERS[bases.bases[i, :n]].tobytes().decode() for i, n in enumerate(bases.num_bases.tolist())]
        tokenizer = view.tokenizer().backend_tokenizer
        while True:
            yield sum(len(one.ids) for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False))

    return batches


def contenders(fasta: Path, folder: Path) -> dict[str, dict[str, Callable[[], Iterator[int]]]]:
    """Return the contenders of each table, gemsdata first."""
    for name in ("packed", "arrow"):
        shard([str(fasta)], folder / name, ShardOptions(format=name), workers=2)
    packed = folder / "packed"
    write_peers(fasta, folder)
    files = [str(path) for path in sorted(folder.glob("*.jsonl.zst"))]
    kmers = gd.view(packed, tokens="kmer:6", row_tokens=510)
    bases = gd.view(packed, tokens="base", row_bases=LONG)
    longest = gd.view(packed, tokens="base", row_bases=LONGEST)
    bpe = gd.view(packed, tokens=bpe_folder(folder / "bpe"), row_bases=2000, row_tokens=1000)
    return {
        "6-mers, rows of 510, genemask": {
            "gemsdata, a view": ours(kmers, 256),
            "gemsdata, stored rows (Arrow)": ours(folder / "arrow", 256),
        },
        f"single bases, rows of {LONG:,}, masked": {
            "gemsdata, a view, genemask": ours(bases, 4),
            "jsonl.zst by HF datasets and its collator, as GPN": of_loader(lambda: jsonl_stream(files, LONG)),
            "uint8 memory map and HF's collator": of_loader(
                lambda: shuffled(MappedWindows(folder / "bases.bin", LONG), collator(LONG))
            ),
        },
        f"single bases, rows of {LONG:,}; ours masked, others not": {
            "gemsdata, a view, genemask": ours(bases, 4),
            "pyfaidx, as HyenaDNA": of_loader(lambda: shuffled(PyfaidxWindows(fasta, LONG), stacked)),
            "uint8 memory map": of_loader(lambda: shuffled(MappedWindows(folder / "bases.bin", LONG), stacked)),
        },
        f"single bases, rows of {LONGEST:,}": {"gemsdata, a view, global": ours(longest, 1, "global")},
        "BPE, rows of 2,000 bases, not masked, one core": {
            "gemsdata, a view": unmasked(bpe, 64),
            "the Hugging Face tokenizer alone": tokenizer_alone(bpe),
        },
    }


def throughput(fasta: Path, folder: Path, rounds: int, seconds: float) -> str:
    groups = contenders(fasta, folder)
    speeds: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for title, programs in groups.items():
            for name, batches in programs.items():
                iterator = batches()
                speeds.setdefault((title, name), []).append(tokens_per_second(iterator, seconds))
                iterator.close()
    tables = []
    for title, programs in groups.items():
        speed = {name: statistics.median(speeds[title, name]) for name in programs}
        first = next(iter(speed.values()))
        lines = [[name, f"{value / 1e6:,.2f}", f"{first / value:,.2f}"] for name, value in speed.items()]
        tables.append(markdown([title, "million tokens/s", "gemsdata, a view: times faster"], lines))
    return "\n\n".join(tables)


def sharding(megabases: int, folder: Path) -> str:
    """Time `gemsdata shard --format packed` of a large synthetic genome; say its size and its peak memory."""
    fasta, out = folder / "large.fa", folder / "large"
    with open(fasta, "wb") as stream:
        write_fasta(GenomeRecipe(num_bases=megabases * 1_000_000, num_contigs=24), stream)
    command = [sys.executable, "-m", "gemsdata.cli", "shard", fasta, "-o", out, "--format", "packed", "--workers", "2"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    elapsed, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    size = {path.relative_to(out): path.stat().st_size for path in out.rglob("*") if path.is_file()}
    total, bases = sum(size.values()), megabases * 1_000_000
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    other = [f"{name} {num_bytes / 1e6:,.1f} MB" for name, num_bytes in size.items() if len(name.parts) == 1]
    fasta.unlink()
    lines = [
        ["wall clock, 2 workers", f"{elapsed:.1f} s"],
        ["processor time", f"{used:.1f} s"],
        ["peak memory", f"{after.ru_maxrss / 1024:,.0f} MB"],
        ["bytes", f"{total / 1e9:.3f} GB, {total / bases:.4f} a base"],
        ["of these beside the shards", ", ".join(other)],
    ]
    return markdown([f"gemsdata shard --format packed, {bases:,} synthetic bases", ""], lines)


@click.command()
@click.argument("genome", type=click.Path(path_type=Path), default=GENOME)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--seconds", type=float, default=3.0, show_default=True, help="Of each contender in a round.")
@click.option("--megabases", type=int, default=3100, show_default=True, help="Size of the genome to shard; 0: none.")
@click.option("--write", is_flag=True, help="Write the tables into docs/benchmarks.md.")
def main(genome: Path, rounds: int, seconds: float, megabases: int, write: bool) -> None:
    """Print Markdown tables of tokens per second."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
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
        f"{genome.name}; medians of {rounds} rounds in which the contenders take turns; load {os.getloadavg()[0]:.1f}"
    )
    text = "\n\n".join([f"Measured by `make bench` on {machine()}; {about}.", *parts])
    click.echo(text)
    if write:
        write_section("views", text)


if __name__ == "__main__":
    main()
