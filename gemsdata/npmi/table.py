"""Pointwise mutual information of n-grams: estimators, discount, ranks, and the table on disk.

Three estimators of PMI, each scored as NPMI(w) = PMI(w) * ln f(w) / (ln f(w) + ln 101) and ranked within its order, 1
= highest:

``published``  the table that GeneMask's authors released: min over segmentations of w into at least two pieces **of
one or two bases** of
               ln p(w) - sum ln p(piece), with one denominator for every order, the 1-grams plus the 2-grams.
``levine``     PMI-Masking (Levine et al., ICLR 2021, eq. 2): min over **all** segmentations into at least two pieces,
               p(s) = f(s) / N_|s| with the total of each order.
``naive``      ln p(w) - sum ln p(base), with the denominator of ``published``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemsdata.files import publish as atomic
from gemsdata.files.progress import Progress, no_progress
from gemsdata.genome.packed import Contig, GenomeReport, complement, read_contigs
from gemsdata.genome.vocab import NUM_SPECIAL, all_kmers, check_k, num_kmers, token_dtype, vocab_size
from gemsdata.npmi.counts import Tally, both_strands, marginal

ESTIMATORS = ("published", "levine", "naive")
DISCOUNT_COUNT = 101
"""the constant of the discount, and the smallest count that the published table keeps"""
_FORMAT = b"gemsdata.npmi.table"


@dataclass(frozen=True)
class Scores:
    """PMI, NPMI and rank of every n-gram of one order under one estimator; arrays [4**n] in token-id order."""

    pmi: np.ndarray
    """float64, nats; NaN below the minimum count and for n = 1"""
    npmi: np.ndarray
    """float64; NaN where ``pmi`` is"""
    rank: np.ndarray
    """uint32, 1 = highest NPMI; equal scores share the smaller rank; n-grams without a score share 4**n"""


@dataclass(frozen=True)
class NpmiTable:
    """Counts of n-grams and what follows from them."""

    counts: Mapping[int, np.ndarray]
    """{n: int64[4**n] in token-id order}"""
    estimator: str = "published"
    """which estimator ``npmi``, ``ranks`` and masking use"""
    min_count: int = DISCOUNT_COUNT
    """n-grams that occur less often have no score"""
    canonical: bool = False
    """counts pool both strands"""
    exclude_soft_masked: bool = False
    """counts leave soft-masked bases out"""
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

        Forward strand, case folded, never across a letter other than A, C, G and T.
        """
        check_estimator(estimator)
        tally = Tally(max_k)
        for contig in read_contigs(map(str, paths), GenomeReport(), soft=exclude_soft_masked):
            tally.add(contig.packed, countable_runs(contig, exclude_soft_masked))
            progress("reading", contig.num_bases, None)
        return cls.from_counts(
            tally.counts(),
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
            frequency = self.counts[k]
            pmi = _PMI[name](self.counts, k)
            pmi[frequency < self.min_count] = np.nan
            with np.errstate(divide="ignore", invalid="ignore"):
                log_count = np.log(frequency)
                npmi = pmi * (log_count / (log_count + np.log(DISCOUNT_COUNT)))
            self._cache[k, name] = Scores(pmi, npmi, rank_descending(npmi))
        return self._cache[k, name]

    def npmi(self, k: int) -> np.ndarray:
        """Return the NPMI of every k-mer, float64[4**k] in token-id order, NaN where there is no score."""
        return self.scores(k).npmi

    def ranks(self, k: int) -> np.ndarray:
        """Return the NPMI rank of every token id, 1 = best: uint16[4**k + 5] (uint32 from k = 8).

        Special ids and k-mers without a score get the worst rank, 4**k.
        """
        out = np.full(vocab_size(k), num_kmers(k), token_dtype(k))
        out[NUM_SPECIAL:] = self.scores(k).rank
        return out

    def share_without_score(self, k: int) -> float:
        """Return the share of the 4**k k-mers that occur fewer than ``min_count`` times."""
        return float((self.counts[k] < self.min_count).mean())

    def to_parquet(self, path: str | Path) -> None:
        """Publish the table as Parquet: one row per n-gram, one row group per order, zstd."""
        settings = {
            "version": 1,
            "estimator": self.estimator,
            "min_count": self.min_count,
            "canonical": self.canonical,
            "exclude_soft_masked": self.exclude_soft_masked,
        }
        schema = _schema().with_metadata({_FORMAT: json.dumps(settings, sort_keys=True).encode()})
        with atomic.publish(Path(path)) as stream, pq.ParquetWriter(stream, schema, **_PARQUET) as writer:
            for k in self.counts:
                writer.write_table(self._arrow(k, schema), row_group_size=num_kmers(k))

    @classmethod
    def from_parquet(cls, path: str | Path, estimator: str | None = None) -> NpmiTable:
        """Read what ``to_parquet`` wrote, with another ``estimator`` if given; raise ValueError for any other file."""
        settings = cls.settings_of(path)
        table = pq.read_table(path, columns=["k", "token_id", "count"])
        orders = table["k"].to_numpy()
        ids = table["token_id"].to_numpy()
        counts = table["count"].to_numpy()
        tables: dict[int, np.ndarray] = {}
        for k in np.unique(orders).tolist():
            tables[k] = np.zeros(num_kmers(k), np.int64)
            here = orders == k
            tables[k][ids[here].astype(np.int64) - NUM_SPECIAL] = counts[here]
        return cls(tables, **{**settings, **({"estimator": estimator} if estimator else {})})

    @staticmethod
    def settings_of(path: str | Path) -> dict[str, Any]:
        """Return estimator, min_count, canonical and exclude_soft_masked of a table on disk, without reading it.

        Raises FileNotFoundError when there is no such file, ValueError when it is not an NPMI table or a newer one.
        """
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            metadata = pq.read_schema(path).metadata or {}
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is not an NPMI table: {str(error).splitlines()[0]}") from None
        if _FORMAT not in metadata:
            raise ValueError(f"{path} is not an NPMI table; make one with `gemsdata npmi GENOME.fa -o TABLE.parquet`")
        settings: dict[str, Any] = json.loads(metadata[_FORMAT])
        if settings.pop("version") > 1:
            raise ValueError(f"{path} was written by a newer gemsdata; this one reads NPMI tables of version 1")
        return settings

    def _arrow(self, k: int, schema: pa.Schema) -> pa.Table:
        columns: dict[str, Any] = {
            "k": np.full(num_kmers(k), k, np.uint8),
            "kmer": pa.array(all_kmers(k)).cast(pa.string()),
            "token_id": np.arange(NUM_SPECIAL, vocab_size(k), dtype=np.uint32),
            "count": self.counts[k],
        }
        for name in ESTIMATORS:
            scores = self.scores(k, name)
            missing = np.isnan(scores.npmi)
            columns[f"pmi_{name}"] = pa.array(scores.pmi, mask=missing)
            columns[f"npmi_{name}"] = pa.array(scores.npmi, mask=missing)
            columns[f"rank_{name}"] = pa.array(scores.rank.astype(np.int32), mask=missing)
        return pa.table(columns, schema=schema)


def check_estimator(name: str) -> str:
    """Return ``name``, or raise ValueError when there is no such estimator."""
    if name not in ESTIMATORS:
        raise ValueError(f"estimator {name!r} is unknown; choose one of {', '.join(ESTIMATORS)}")
    return name


def countable_runs(contig: Contig, exclude_soft_masked: bool) -> np.ndarray:
    """Return the runs of a contig whose n-grams are counted, int64[m, 2]."""
    if not exclude_soft_masked:
        return contig.acgt_runs
    both = np.concatenate([contig.gaps, contig.soft])
    both = both[np.argsort(both[:, 0], kind="stable")]
    if len(both) == 0:
        return contig.acgt_runs
    both[:, 1] = np.maximum.accumulate(
        both[:, 1]
    )  # overlapping intervals leave an empty or reversed gap, which is dropped
    return complement(both, contig.num_bases)


def rank_descending(scores: np.ndarray) -> np.ndarray:
    """Rank scores float64[n] from the highest (1); equal ones share the smaller rank, NaN gets n. Returns uint32[n]."""
    ranks = np.full(scores.size, scores.size, np.uint32)
    valid = np.flatnonzero(~np.isnan(scores))
    values, inverse, counts = np.unique(-scores[valid], return_inverse=True, return_counts=True)
    first = np.concatenate([[1], 1 + np.cumsum(counts)[:-1]]) if values.size else np.empty(0, np.int64)
    ranks[valid] = first[inverse]
    return ranks


def _best_segmentation(log_p: Mapping[int, np.ndarray], k: int, longest_piece: int) -> np.ndarray:
    """Return every k-mer's largest sum of log_p over its segmentations into >= 2 pieces of <= longest_piece bases.

    A dynamic programme over the last piece: the k-mer with value prefix * 4**j + suffix ends in the j-mer ``suffix``,
    so one outer sum of two tables covers all k-mers. float64[4**k]; -inf where a piece never occurs.
    """
    best = {0: np.zeros(1)}  # best[n]: segmentations into any number of pieces
    for n in range(1, k + 1):
        split = np.full(num_kmers(n), -np.inf)
        for j in range(1, min(longest_piece, n - 1) + 1):
            np.maximum(split, np.add.outer(best[n - j], log_p[j]).ravel(), out=split)
        if n == k:
            return split
        best[n] = np.maximum(split, log_p[n]) if n <= longest_piece else split
    raise AssertionError("k >= 1")


def _log(frequency: np.ndarray, total: int) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(frequency) - np.log(max(total, 1))


def _pmi_with_pieces(log_p: Mapping[int, np.ndarray], k: int, longest_piece: int) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # -inf minus -inf: an n-gram that never occurs has no score anyway
        pmi = log_p[k] - _best_segmentation(log_p, k, longest_piece)
    pmi[~np.isfinite(pmi)] = np.nan
    return pmi


def _shared_total(counts: Mapping[int, np.ndarray]) -> int:
    """The one denominator of the published table: 1-grams plus 2-grams."""
    return int(counts[1].sum() + (counts[2].sum() if 2 in counts else 0))


def _pmi_published(counts: Mapping[int, np.ndarray], k: int) -> np.ndarray:
    total = _shared_total(counts)
    return _pmi_with_pieces({n: _log(counts[n], total) for n in {1, min(2, k), k}}, k, 2)


def _pmi_levine(counts: Mapping[int, np.ndarray], k: int) -> np.ndarray:
    return _pmi_with_pieces({n: _log(counts[n], int(counts[n].sum())) for n in range(1, k + 1)}, k, k)


def _pmi_naive(counts: Mapping[int, np.ndarray], k: int) -> np.ndarray:
    total = _shared_total(counts)
    return _pmi_with_pieces({n: _log(counts[n], total) for n in {1, k}}, k, 1)


_PMI = {"published": _pmi_published, "levine": _pmi_levine, "naive": _pmi_naive}
_PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": False,
    "column_encoding": {"kmer": "DELTA_BYTE_ARRAY", "token_id": "DELTA_BINARY_PACKED", "k": "PLAIN"},
}


def _schema() -> pa.Schema:
    fields = [
        pa.field("k", pa.uint8(), nullable=False),
        pa.field("kmer", pa.string(), nullable=False),
        pa.field("token_id", pa.uint32(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
    for name in ESTIMATORS:
        fields += [
            pa.field(f"pmi_{name}", pa.float64()),
            pa.field(f"npmi_{name}", pa.float64()),
            pa.field(f"rank_{name}", pa.int32()),
        ]
    return pa.schema(fields)
