"""Views of a packed set beside stored rows and beside others' readers, in one run on one genome.

python -m bench.bench_views [GENOME.fa.gz] [--seconds 3]
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import gemsdata as gd
from bench.table import machine, markdown
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import shard
from tests.test_views_tokens import bpe_folder

GENOME = Path(__file__).parents[2] / "shared" / "data" / "genomes" / "hg38_chr1_28Mb.fa.gz"
LONG = 32_768


def rate(step: Callable[[], int], seconds: float) -> float:
    """Return tokens a second of calls of ``step``, which returns its tokens, after one call that is not counted."""
    step()
    began = time.perf_counter()
    tokens = 0
    while time.perf_counter() - began < seconds:
        tokens += step()
    return tokens / (time.perf_counter() - began)


def of_loader(source, batch_size: int, seconds: float) -> float:
    loader = gd.build_loader(source, batch_size=batch_size, num_workers=2, threads=True)
    iterator = iter(loader)
    found = rate(lambda: next(iterator)["input_ids"].numel(), seconds)
    iterator.close()
    return found


def of_rows(view, batch: int, seconds: float) -> float:
    reader = view.reader("train")
    random = np.random.default_rng(0)
    return rate(lambda: int(reader.rows(0, random.integers(0, len(view), batch)).tokens.num_tokens.sum()), seconds)


def of_pyfaidx(fasta: Path, seconds: float) -> float:
    """HyenaDNA's data set: a window by pyfaidx, its letters to ids in Python; not masked."""
    from pyfaidx import Fasta

    sequences = Fasta(str(fasta))
    name = next(iter(sequences.keys()))
    ids = {letter: i + 7 for i, letter in enumerate("ACGTN")}
    random = np.random.default_rng(0)

    def step() -> int:
        start = int(random.integers(0, len(sequences[name]) - LONG))
        return len([ids[letter] for letter in str(sequences[name][start : start + LONG]).upper()])

    return rate(step, seconds)


def of_uint8_map(fasta: Path, folder: Path, seconds: float) -> float:
    """A memory map of one byte a base, and Hugging Face's collator over it: masked at random."""
    import torch
    from transformers import DataCollatorForLanguageModeling

    letters = fasta.read_bytes().partition(b"\n")[2].replace(b"\n", b"").upper()
    table = np.full(256, 1, np.uint8)
    table[np.frombuffer(b"ATCG", np.uint8)] = np.arange(5, 9)
    path = folder / "bases.bin"
    table[np.frombuffer(letters, np.uint8)].tofile(path)
    mapped = np.memmap(path, np.uint8, mode="r")
    collator = DataCollatorForLanguageModeling(gd.KmerTokenizer(1, model_max_length=LONG), mlm_probability=0.15)
    random = np.random.default_rng(0)

    def step() -> int:
        starts = random.integers(0, len(mapped) - LONG, 4)
        return collator([torch.from_numpy(mapped[s : s + LONG].astype(np.int64)) for s in starts])["input_ids"].numel()

    return rate(step, seconds)


def of_tokenizer(view, seconds: float) -> float:
    """The Hugging Face tokenizer alone, on the text of the rows."""
    rows = view.rows(np.arange(64))
    letters = np.frombuffer(b"ATCGN", np.uint8)
    texts = [letters[rows.tokens.bases[i, :n]].tobytes().decode() for i, n in enumerate(rows.tokens.num_bases.tolist())]
    tokenizer = view.tokenizer().backend_tokenizer
    return rate(
        lambda: sum(len(one.ids) for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)), seconds
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("genome", nargs="?", type=Path, default=GENOME)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gemsdata-bench-"))
    try:
        fasta = folder / "genome.fa"
        with gzip.open(args.genome) as source, open(fasta, "wb") as out:
            shutil.copyfileobj(source, out)
        sizes = []
        for name in ("packed", "arrow"):
            began = time.perf_counter()
            manifest, _ = shard([str(fasta)], folder / name, ShardOptions(format=name), workers=2)
            size = sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file())
            npmi = (folder / name / "npmi.parquet").stat().st_size
            per_base = (size - npmi) / manifest.genome.num_bases
            sizes.append(
                [f"shard --format {name}", f"{time.perf_counter() - began:.1f} s, {per_base:.3f} bytes a base"]
            )
        packed, s = folder / "packed", args.seconds
        kmers = gd.view(packed, tokens="kmer:6", row_tokens=510)
        bases = gd.view(packed, tokens="base", row_bases=LONG)
        bpe = gd.view(packed, tokens=bpe_folder(folder / "bpe"), row_bases=2000, row_tokens=1000)
        found = {
            "stored rows of 510, genemask, 2 threads": of_loader(folder / "arrow", 256, s),
            "kmer:6 rows of 510 of a view, genemask, 2 threads": of_loader(kmers, 256, s),
            f"base rows of {LONG:,} of a view, not masked, 1 thread": of_rows(bases, 4, s),
            f"pyfaidx, as HyenaDNA, {LONG:,}, not masked, 1 thread": of_pyfaidx(fasta, s),
            f"uint8 map and HF's collator, {LONG:,}, random masks, 1 thread": of_uint8_map(fasta, folder, s),
            "BPE rows of 2,000 bases of a view, not masked": of_rows(bpe, 64, s),
            "the same tokenizer alone": of_tokenizer(bpe, s),
        }
        print(markdown(["what", "result"], sizes))
        print(markdown(["what", "million tokens a second"], [[k, f"{v / 1e6:,.1f}"] for k, v in found.items()]))
        print(f"\n{machine()}; the build of shards includes compiling kernels the first time")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
