"""Verification of an NPMI table: counts by ``bincount``, PMI by recursion over the first piece, ranks by sorting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemsdata.genome.vocab import BASES, NUM_SPECIAL, kmer_of_value, num_kmers
from gemsdata.npmi.estimators import DISCOUNT_COUNT
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.reference import OTHER, ReferenceGenome

_CHUNK_BASES = 1 << 22
_TOLERANCE = 1e-9
_NAMES = ("k", "kmer", "token_id", "count")


def check_counts(table: NpmiTable, genome: ReferenceGenome, where: str) -> None:
    """Count the n-grams of every order again and compare with the table; raise VerificationError if they differ."""
    for k, counts in _counts(table, genome).items():
        stored = table.counts[k]
        if not np.array_equal(counts, stored):
            value = int(np.flatnonzero(counts != stored)[0])
            raise VerificationError(
                f"{where}: {kmer_of_value(value, k)} has count {stored[value]}, but occurs "
                f"{counts[value]} times in the FASTA"
            )


def _counts(table: NpmiTable, genome: ReferenceGenome) -> dict[int, np.ndarray]:
    """Count the n-grams of 1 .. max_k bases by ``bincount``, all contigs in one array with separators."""
    counts = {k: np.zeros(num_kmers(k), np.int64) for k in range(1, table.max_k + 1)}
    for first in range(0, len(genome.codes), _CHUNK_BASES):
        codes = genome.codes[first : first + _CHUNK_BASES + table.max_k - 1]
        if not table.exclude_soft_masked:
            codes = codes & 7
        num_starts = min(_CHUNK_BASES, len(codes))
        values = np.zeros(num_starts, np.int64)
        other_strand = np.zeros(num_starts, np.int64)
        whole = np.ones(num_starts, bool)
        for k in counts:
            digit = codes[k - 1 : k - 1 + num_starts]
            values, other_strand, whole = (array[: len(digit)] for array in (values, other_strand, whole))
            whole = whole & (digit < OTHER)
            values = 4 * values + digit
            counts[k] += np.bincount(values[whole], minlength=num_kmers(k))
            if table.canonical:  # the complement flips the lowest bit of a digit
                other_strand = other_strand + (digit ^ 1).astype(np.int64) * 4 ** (k - 1)
                counts[k] += np.bincount(other_strand[whole], minlength=num_kmers(k))
    return counts


def check_scores(table: NpmiTable, path: Path) -> str:
    """Compare every column of the table at ``path`` with values computed from the counts; raise VerificationError.

    A table with the ranks of its estimator only has no other columns of scores. Returns what was compared.
    """
    stored = pq.read_table(path)
    ranks_only = stored.column_names == [*_NAMES, f"rank_{table.estimator}"]
    first_row = 0
    for k in table.counts:
        rows = stored.slice(first_row, num_kmers(k))
        first_row += num_kmers(k)
        _check_names(rows, k, path.name)
        for estimator, (pmi, npmi) in _scores(table, k).items():
            scored = (table.counts[k] >= table.min_count) & np.isfinite(pmi)
            if ranks_only:
                if estimator == table.estimator:
                    _check_ranks(rows[f"rank_{estimator}"], npmi, scored, k, f"{path.name}: rank_{estimator}")
                continue
            for name, expected in ((f"pmi_{estimator}", pmi), (f"npmi_{estimator}", npmi)):
                _check_column(rows[name], expected, scored, k, f"{path.name}: {name}")
            found = rows[f"npmi_{estimator}"].to_numpy()[scored]
            rank = np.full(num_kmers(k), np.nan)
            rank[scored] = 1 + np.searchsorted(np.sort(-found), -found, side="left")
            _check_column(rows[f"rank_{estimator}"], rank, scored, k, f"{path.name}: rank_{estimator}")
    if first_row != len(stored):
        raise VerificationError(f"{path.name} has {len(stored)} rows, not {first_row}")
    if ranks_only:
        return f"the ranks of estimator {table.estimator} of all orders follow from the counts"
    return "PMI, NPMI and ranks of all estimators and orders follow from the counts"


def _check_names(rows: pa.Table, k: int, where: str) -> None:
    """Check the columns that name the n-grams: k, token_id, kmer."""
    values = np.arange(num_kmers(k))
    letters = np.frombuffer(BASES.encode(), np.uint8)
    text = np.column_stack([letters[values >> 2 * (k - 1 - place) & 3] for place in range(k)])
    expected = {
        "k": np.full(num_kmers(k), k),
        "token_id": values + NUM_SPECIAL,
        "kmer": np.ascontiguousarray(text).view(f"S{k}").ravel().astype(f"U{k}"),
    }
    for name, wanted in expected.items():
        found = rows[name].to_numpy()
        if rows[name].null_count or not np.array_equal(found, wanted):
            value = int(np.flatnonzero(found != wanted)[0])
            raise VerificationError(
                f"{where}: {name} of {kmer_of_value(value, k)} is {found[value]}, not {wanted[value]}"
            )


def _check_column(column: pa.ChunkedArray, expected: np.ndarray, scored: np.ndarray, k: int, where: str) -> None:
    """Compare a column with ``expected`` where ``scored``; it must be null elsewhere."""
    found = column.cast(pa.float64()).to_numpy()
    is_null = column.is_null().to_numpy()
    wrong = is_null == scored
    with np.errstate(invalid="ignore"):
        wrong |= scored & ~(np.abs(found - expected) <= _TOLERANCE)
    if wrong.any():
        value = int(np.flatnonzero(wrong)[0])
        kmer = kmer_of_value(value, k)
        if is_null[value] == scored[value]:
            raise VerificationError(f"{where} of {kmer} must be given if and only if {kmer} occurs often enough")
        raise VerificationError(f"{where} of {kmer} is {found[value]}, not {expected[value]}")


def _check_ranks(column: pa.ChunkedArray, npmi: np.ndarray, scored: np.ndarray, k: int, where: str) -> None:
    """Check ranks that no stored NPMI decides: by ``npmi``, which differs from the writer's in the last bits."""
    found = np.where(scored, column.fill_null(0).to_numpy(), 0)
    by_rank = np.flatnonzero(scored)[np.argsort(found[scored], kind="stable")]
    rank = np.full(num_kmers(k), np.nan)
    rank[by_rank] = 1 + np.searchsorted(found[by_rank], found[by_rank], side="left")
    _check_column(column, rank, scored, k, where)
    fall, same_rank = -np.diff(npmi[by_rank]), np.diff(found[by_rank]) == 0
    wrong = by_rank[1:][(fall < -_TOLERANCE) | (same_rank & (fall > _TOLERANCE))]
    if len(wrong):
        value = int(wrong[0])
        raise VerificationError(f"{where} of {kmer_of_value(value, k)} is {found[value]}, out of the order of its NPMI")


def _scores(table: NpmiTable, k: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return PMI and NPMI of the k-mers under every estimator, float64[4**k]; not finite without a score."""
    shared = table.counts[1].sum() + (table.counts[2].sum() if 2 in table.counts else 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_count = np.log(table.counts[k])
        discount = log_count / (log_count + np.log(DISCOUNT_COUNT))
        scores = {}
        for name, longest in (("published", 2), ("levine", k), ("naive", 1)):
            log_p = {
                n: np.log(table.counts[n] / max(table.counts[n].sum() if name == "levine" else shared, 1))
                for n in range(1, k + 1)
            }
            pmi = log_p[k] - _best_segmentation(log_p, k, longest)
            scores[name] = pmi, pmi * discount
    return scores


def _best_segmentation(log_p: dict[int, np.ndarray], k: int, longest: int) -> np.ndarray:
    """Return each k-mer's largest sum of log_p over two or more pieces of at most ``longest`` bases, float64[4**k].

    ``rest[n]`` is the same for n bases, with one piece allowed; a k-mer is its first piece and the best of the rest.
    """
    rest: dict[int, np.ndarray] = {}
    for n in range(1, k + 1):
        best = np.full(num_kmers(n), -np.inf)
        for piece in range(1, min(longest, n - 1) + 1):
            best = np.fmax(best, (log_p[piece][:, None] + rest[n - piece][None, :]).ravel())
        if n == k:
            return best
        rest[n] = np.fmax(best, log_p[n]) if n <= longest else best
    raise AssertionError("k is at least 1")
