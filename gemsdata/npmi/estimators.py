"""Estimators of pointwise mutual information of n-grams, and ranks by it.

Each is scored as NPMI(w) = PMI(w) * ln f(w) / (ln f(w) + ln 101) and ranked within its order, 1 = highest:

``published``  the table that GeneMask's authors released: the minimum over segmentations of w into at least two pieces
               **of one or two bases** of ln p(w) - sum ln p(piece), with one denominator for all orders: the number of
               1-grams plus 2-grams.
``levine``     PMI-Masking (Levine et al., ICLR 2021, eq. 2): the minimum over **all** segmentations into at least two
               pieces, p(s) = f(s) / N_|s| with the total of each order.
``naive``      ln p(w) - sum ln p(base), with the denominator of ``published``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gemsdata.genome.vocab import num_kmers

ESTIMATORS = ("published", "levine", "naive")
DISCOUNT_COUNT = 101
"""constant of the discount, and the smallest count in the published table"""


@dataclass(frozen=True)
class Scores:
    """PMI, NPMI and rank of every n-gram of one order under one estimator; arrays [4**n] in token-id order."""

    pmi: np.ndarray
    """float64, nats; NaN below the minimum count and for n = 1"""
    npmi: np.ndarray
    """float64; NaN where ``pmi`` is"""
    rank: np.ndarray
    """uint32, 1 = highest NPMI; equal scores share the smaller rank; n-grams without a score share 4**n"""


def check_estimator(name: str) -> str:
    """Return ``name``, or raise ValueError when there is no such estimator."""
    if name not in ESTIMATORS:
        raise ValueError(f"estimator {name!r} is unknown; choose one of {', '.join(ESTIMATORS)}")
    return name


def score(counts: Mapping[int, np.ndarray], k: int, estimator: str, min_count: int) -> Scores:
    """Return PMI, NPMI and ranks of the k-mers; ``counts`` is {n: int64[4**n]} for n = 1 .. k."""
    frequency = counts[k]
    pmi = _PMI[estimator](counts, k)
    pmi[frequency < min_count] = np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        log_count = np.log(frequency)
        npmi = pmi * (log_count / (log_count + np.log(DISCOUNT_COUNT)))
    return Scores(pmi, npmi, rank_descending(npmi))


def rank_descending(scores: np.ndarray) -> np.ndarray:
    """Rank scores float64[n] from the highest (1), uint32[n]; equal ones share the smaller rank, NaN gets n."""
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
    best: dict[int, np.ndarray] = {}  # best[n]: segmentations into any number of pieces
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
