"""Summary of a genome and its rows, printed after planning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gemsdata.genome.packed import GenomeReport
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.windows import Windows

_MANY_WITHOUT_SCORE = 0.1


def counted(number: int, noun: str) -> str:
    """Return ``1 shard``, ``1,200 shards``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def summarise(
    report: GenomeReport,
    segments: Mapping[str, np.ndarray],
    cut: Mapping[str, Windows],
    table: NpmiTable,
    options: ShardOptions,
) -> dict[str, Any]:
    """Return the summary of the genome; ``segments`` and ``cut`` are those of its `RowLayout`."""
    lengths = np.concatenate([s[:, 2] - s[:, 1] for s in segments.values()])
    too_short = 0 if options.packed else int(lengths[lengths < options.k].sum())
    skipped = {f"not ACGT ({_letters_text(report.letters)})": report.num_not_acgt} if report.letters else {}
    if too_short:
        skipped[f"in runs of ACGT shorter than k = {options.k}"] = too_short
    if options.scheme == "dnabert":
        covered = sum(int(w.num_tokens.sum(dtype=np.int64)) + len(w) * (options.k - 1) for w in cut.values())
        skipped[f"in pieces shorter than k = {options.k}"] = int(lengths.sum()) - too_short - covered
    notes: list[str] = []
    crlf = [file.path for file in report.files if file.crlf]
    if crlf:
        notes.append(f"Windows line ends in {', '.join(crlf)}: handled")
    if report.num_rna:
        notes.append(f"{report.num_rna:,} U read as T")
    if report.num_empty:
        notes.append(f"{report.num_empty} records without bases: listed as contigs, but without rows")
    if len(cut["valid"]) == 0 and (options.valid_contigs or options.valid_fraction):
        notes.append(
            "no validation rows: the genome is too small for the fraction, or its validation contigs hold no row"
        )
    missing = table.share_without_score(options.k)
    if missing > _MANY_WITHOUT_SCORE:
        notes.append(
            f"{missing:.0%} of the {options.k}-mers occur fewer than {table.min_count} times and share the worst rank; "
            "set a smaller --min-count, or take the table of a larger genome with --npmi TABLE.parquet"
        )
    return {
        "contigs": report.num_contigs,
        "bases": report.num_bases,
        "soft_masked": report.num_soft_masked,
        "skipped": skipped,
        "notes": notes,
    }


def _letters_text(letters: Mapping[str, int]) -> str:
    ordered = sorted(letters.items(), key=lambda item: -item[1])
    return ", ".join(f"{letter} {count:,}" for letter, count in ordered)
