"""Exact counts of every n-gram, n = 1 .. max_n, in one pass over packed DNA.

Only the longest n-grams are counted directly. Every shorter n-gram is the prefix of an (n+1)-gram, so that its count is
a marginal of theirs; the last one of each run, which is no prefix, is added separately.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gemsdata.genome.packed import Contig, complement
from gemsdata.genome.vocab import check_k, num_kmers, reverse_complement_values
from gemsdata.kernels import kmer


class NgramCounter:
    """Running counts of n-grams; ``add`` packed runs, then read ``counts()``."""

    def __init__(self, max_n: int = 10) -> None:
        self.max_n = check_k(max_n)
        self._low = np.zeros(num_kmers(max_n), np.uint8)
        self._high = np.zeros(num_kmers(max_n), np.int64)
        self._last = {n: np.zeros(num_kmers(n), np.int64) for n in range(1, max_n)}

    def add(self, packed: np.ndarray, runs: np.ndarray) -> None:
        """Count the n-grams within runs int64[m, 2], half-open, of packed uint8[...], four bases a byte."""
        self.add_stretch(packed, runs, 0, int(runs[-1, 1]) if len(runs) else 0)

    def add_stretch(self, packed: np.ndarray, runs: np.ndarray, start: int, end: int) -> None:
        """Count what belongs to bases [start, end) within runs; stretches that adjoin each other count all of a contig.

        That is the n-grams that begin there, and the last n-gram of each run that ends there. ``packed`` and ``runs``
        reach ``max_n`` - 1 bases beyond either side, where the contig does.
        """
        longest = np.clip(runs, start, end + self.max_n - 1)
        kmer.count_runs(packed, longest[longest[:, 1] > longest[:, 0]], self.max_n, self._low, self._high)
        ending = runs[(runs[:, 1] > start) & (runs[:, 1] <= end)]
        for n, last in self._last.items():
            kmer.count_last(packed, ending, n, last)

    def counts(self) -> dict[int, np.ndarray]:
        """Return {n: int64[4**n] in token-id order} for n = 1 .. max_n."""
        counts = {self.max_n: self._longest()}
        for n in range(self.max_n - 1, 0, -1):
            counts[n] = marginal(counts[n + 1]) + self._last[n]
        return counts

    def totals(self) -> dict[str, np.ndarray]:
        """Return the counts as `add_totals` takes them: int64 arrays by name, which `numpy.savez` can store."""
        return {"longest": self._longest(), **{f"last_{n}": last for n, last in self._last.items()}}

    @property
    def context(self) -> int:
        """How many bases on either side of a stretch `add_stretch` needs."""
        return self.max_n - 1

    def add_totals(self, totals: Mapping[str, np.ndarray]) -> None:
        """Add the counts of another counter of n-grams of the same lengths."""
        self._high += totals["longest"]
        for n, last in self._last.items():
            last += totals[f"last_{n}"]

    def _longest(self) -> np.ndarray:
        return self._high + self._low


def marginal(counts: np.ndarray) -> np.ndarray:
    """Return the counts of the (n-1)-grams that begin the n-grams counted in int64[4**n]: int64[4**(n-1)]."""
    return counts.reshape(-1, 4).sum(axis=1)


def both_strands(counts: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Pool each n-gram with its reverse complement: f(w) + f(rc(w)), the occurrences on both strands.

    An n-gram that is its own reverse complement occurs twice at each of its places, once per strand, and counts
    twice; so probabilities of all orders stay consistent. (Counters with a canonical mode count such a place once.)
    """
    return {n: table + table[reverse_complement_values(n)] for n, table in counts.items()}


def countable_runs(contig: Contig, exclude_soft_masked: bool) -> np.ndarray:
    """Return the runs of a contig whose n-grams are counted, int64[m, 2]."""
    if not exclude_soft_masked:
        return contig.acgt_runs
    both = np.concatenate([contig.gaps, contig.soft])
    both = both[np.argsort(both[:, 0], kind="stable")]
    if len(both) == 0:
        return contig.acgt_runs
    # overlapping intervals leave an empty or reversed gap, which `complement` drops
    both[:, 1] = np.maximum.accumulate(both[:, 1])
    return complement(both, contig.num_bases)
