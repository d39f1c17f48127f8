"""Packed sets of awkward genomes, and rows of views by a slow path of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gemsdata.genome.vocab import token_id
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import shard
from tests.genomes import awkward_genome, write_fasta


def packed_set(folder: Path, contigs: dict[str, str] | None = None, **options) -> Path:
    """Write a packed set of contigs to folder/set and return its path."""
    fasta = write_fasta(folder / "genome.fa", contigs or awkward_genome())
    shard([fasta], folder / "set", ShardOptions(format="packed", min_count=1, **options))
    return folder / "set"


def text_of(contigs: dict[str, str], contig: int, start: int, end: int) -> str:
    """Return bases of a genome in upper case, N for every letter other than ACGT."""
    sequence = list(contigs.values())[contig][start:end].upper()
    return "".join(letter if letter in "ACGT" else "N" for letter in sequence)


def kmer_ids(text: str, k: int, stride: int) -> list[int]:
    """Return the ids of k-mers every ``stride`` bases."""
    words = [text[i : i + k] for i in range(0, len(text) - k + 1, stride)]
    return [1 if "N" in word else token_id(word) for word in words]


def letters_of(bases: np.ndarray) -> str:
    """Return bases uint8[n] as text."""
    return "".join("ATCGN"[base] for base in bases.tolist())
