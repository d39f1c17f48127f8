"""Handmade labelled files, and what the lint finds in them."""

from __future__ import annotations

from pathlib import Path

from gemsdata.lint import Finding, lint
from tests.genomes import random_dna


def write(path: Path, rows: list[tuple[str, object]], *, header: str = "sequence,label") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    delimiter = "\t" if "\t" in header else ","
    path.write_text("\n".join([header, *(f"{sequence}{delimiter}{label}" for sequence, label in rows)]) + "\n")
    return path


def rows_of(num_rows: int, seed: int, num_bases: int = 60) -> list[tuple[str, object]]:
    return [(random_dna(num_bases, 1000 * seed + i), i % 2) for i in range(num_rows)]


def kmer_text(sequence: str, k: int = 6) -> str:
    return " ".join(sequence[i : i + k] for i in range(len(sequence) - k + 1))


def changed(sequence: str, *positions: int) -> str:
    """The sequence with other bases at some positions."""
    letters = list(sequence)
    for at in positions:
        letters[at] = "ACGT"[("ACGT".index(letters[at]) + 1) % 4]
    return "".join(letters)


def found(*paths: Path, code: str, k: int = 6) -> list[Finding]:
    return [finding for finding in lint(paths, k=k).findings if finding.code == code]


def only(*paths: Path, code: str, k: int = 6) -> Finding:
    (finding,) = found(*paths, code=code, k=k)
    return finding
