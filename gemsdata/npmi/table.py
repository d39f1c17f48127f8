"""The NPMI table: counts of n-grams, their scores and ranks, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gemsdata.files.progress import Progress, no_progress
from gemsdata.genome.packed import GenomeReport, ReadProgress, read_contigs
from gemsdata.genome.vocab import NUM_SPECIAL, check_k, num_kmers, token_dtype, vocab_size
from gemsdata.npmi.counts import NgramCounter, both_strands, countable_runs, marginal
from gemsdata.npmi.estimators import DISCOUNT_COUNT, ESTIMATORS, Scores, check_estimator, score
from gemsdata.npmi.parquet import (
    RANKS_ONLY,
    TableSettings,
    read_counts,
    read_settings,
    row_groups,
    table_schema,
    write_table,
)


@dataclass(frozen=True, repr=False)
class NpmiTable:
    """Counts of n-grams, and the scores and ranks computed from them."""

    counts: Mapping[int, np.ndarray]
    """{n: int64[4**n] in token-id order}"""
    estimator: str = "published"
    """which estimator ``npmi``, ``ranks`` and masking use"""
    min_count: int = DISCOUNT_COUNT
    """n-grams that occur less often have no score"""
    canonical: bool = False
    """counts pool both strands"""
    exclude_soft_masked: bool = False
    """counts exclude soft-masked bases"""
    _cache: dict[tuple[int, str], Scores] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_estimator(self.estimator)
        if self.min_count < 1:
            raise ValueError(f"min_count = {self.min_count}; a count of at least 1 is needed")

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[int, np.ndarray],
        *,
        estimator: str = "published",
        min_count: int = DISCOUNT_COUNT,
        canonical: bool = False,
        exclude_soft_masked: bool = False,
    ) -> NpmiTable:
        """Build a table from {n: int64[4**n]} forward-strand counts in token-id order; marginalise absent lower orders.

        ``canonical`` pools the strands here. ``exclude_soft_masked`` only records how the counts were made.
        """
        tables = {check_k(n): np.ascontiguousarray(table, np.int64) for n, table in counts.items()}
        if not tables:
            raise ValueError("no counts given; at least one order is needed, such as {6: counts}")
        for n, table in tables.items():
            if table.shape != (num_kmers(n),):
                raise ValueError(f"counts of {n}-mers have shape {table.shape}; ({num_kmers(n)},) is needed")
            if table.min() < 0:
                raise ValueError(f"counts of {n}-mers hold negative numbers")
        for n in range(max(tables) - 1, 0, -1):
            if n not in tables:
                tables[n] = marginal(tables[n + 1])
        tables = dict(sorted(tables.items()))
        return cls(
            both_strands(tables) if canonical else tables,
            estimator=estimator,
            min_count=min_count,
            canonical=canonical,
            exclude_soft_masked=exclude_soft_masked,
        )

    @classmethod
    def from_fasta(
        cls,
        *paths: str | Path,
        max_k: int = 6,
        estimator: str = "published",
        min_count: int = DISCOUNT_COUNT,
        canonical: bool = False,
        exclude_soft_masked: bool = False,
        progress: Progress = no_progress,
    ) -> NpmiTable:
        """Count the n-grams of 1 .. max_k bases in FASTA or .2bit files.

        Counts are of the forward strand, ignore case, and never include a letter other than A, C, G and T.
        """
        check_estimator(estimator)
        counter = NgramCounter(max_k)
        report = GenomeReport()
        files = [str(path) for path in paths]
        reading = ReadProgress(files, report, progress)
        for contig in read_contigs(files, report, soft=exclude_soft_masked):
            counter.add(contig.packed, countable_runs(contig, exclude_soft_masked))
            reading.update(contig)
        return cls.from_counts(
            counter.counts(),
            estimator=estimator,
            min_count=min_count,
            canonical=canonical,
            exclude_soft_masked=exclude_soft_masked,
        )

    @property
    def max_k(self) -> int:
        """The longest n-grams in the table."""
        return max(self.counts)

    def scores(self, k: int, estimator: str | None = None) -> Scores:
        """Return PMI, NPMI and ranks of the k-mers; raise ValueError when the table does not reach k."""
        name = check_estimator(estimator or self.estimator)
        if k not in self.counts:
            raise ValueError(
                f"the table holds n-grams of 1 to {self.max_k} bases, not of {k}; make one with --max-k {k}"
            )
        if (k, name) not in self._cache:
            self._cache[k, name] = score(self.counts, k, name, self.min_count)
        return self._cache[k, name]

    def npmi(self, k: int) -> np.ndarray:
        """Return the NPMI of every k-mer, float64[4**k] in token-id order, NaN where there is no score."""
        return self.scores(k).npmi

    def ranks(self, k: int) -> np.ndarray:
        """Return the NPMI rank of every token id, 1 = best: uint16[4**k + 5] (uint32 from k = 8).

        Special ids and k-mers without a score get the worst rank, 4**k. Raises ValueError for a k without counts.
        """
        rank = self.scores(k).rank
        out = np.full(vocab_size(k), num_kmers(k), token_dtype(k))
        out[NUM_SPECIAL:] = rank
        return out

    def share_without_score(self, k: int) -> float:
        """Return the share of the 4**k k-mers that occur fewer than ``min_count`` times."""
        return float((self.counts[k] < self.min_count).mean())

    def to_parquet(self, path: str | Path, *, scores: bool = True) -> None:
        """Publish the table as Parquet: one row per n-gram, one row group per order, zstd.

        With counts, and PMI, NPMI and rank under every estimator; without ``scores``, the ranks of the table's
        estimator only, in a tenth of the space. `from_parquet` reads both.
        """
        settings = TableSettings(
            estimator=self.estimator,
            min_count=self.min_count,
            canonical=self.canonical,
            exclude_soft_masked=self.exclude_soft_masked,
        )
        if scores:
            write_table(Path(path), self.counts, self._all_scores, settings)
            return
        name = self.estimator
        write_table(Path(path), self.counts, lambda k: {name: self.scores(k)}, settings, RANKS_ONLY)

    def to_arrow(self) -> pa.Table:
        """Return the rows and columns that `to_parquet` writes."""
        return pa.concat_tables(row_groups(self.counts, self._all_scores, table_schema()))

    def _all_scores(self, k: int) -> dict[str, Scores]:
        return {name: self.scores(k, name) for name in ESTIMATORS}

    @classmethod
    def from_parquet(cls, path: str | Path, estimator: str | None = None) -> NpmiTable:
        """Read what ``to_parquet`` wrote, with another ``estimator`` if given.

        Raises FileNotFoundError if there is no such file, and ValueError if it is not an NPMI table, was written by a
        newer gemsdata, or is inconsistent (`gemsdata.npmi.parquet.read_counts` lists the checks).
        """
        settings = read_settings(path)
        counts = read_counts(path, settings)
        return cls(
            counts,
            estimator=estimator or settings.estimator,
            min_count=settings.min_count,
            canonical=settings.canonical,
            exclude_soft_masked=settings.exclude_soft_masked,
        )

    @staticmethod
    def settings_of(path: str | Path) -> dict[str, Any]:
        """Return estimator, min_count, canonical and exclude_soft_masked of a table on disk, without reading it."""
        return read_settings(path).as_dict()

    def __repr__(self) -> str:
        """Return what was counted, and how many of the longest n-grams have a score."""
        num_bases, k = int(self.counts[1].sum()), self.max_k
        strands = ", both strands" if self.canonical else ""
        soft = ", without soft-masked bases" if self.exclude_soft_masked else ""
        scored = num_kmers(k) - int((self.counts[k] < self.min_count).sum())
        return (
            f"NpmiTable: n-grams of 1 to {k} bases counted in {num_bases:,} bases{strands}{soft}\n"
            f"  estimator {self.estimator}; {scored:,} of {num_kmers(k):,} {k}-mers occur at least {self.min_count}"
            " times and have a score"
        )
