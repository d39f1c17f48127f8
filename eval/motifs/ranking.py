"""An NPMI ranking of pairs of a k-mer and its reverse complement, with the strata of the controls."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemsdata.genome.vocab import BASES, check_k, kmer_of_value, kmer_value, num_kmers, reverse_complement_values
from gemsdata.npmi.estimators import rank_descending
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.manifest import NPMI_FILE
from gemsdata.shards.shard_set import ShardSet

_KMER_COLUMNS = ("kmer", "ngram")
_SCORE_COLUMNS = ("npmi", "norm_dp_true_pmi")
_USUAL_K = 6
_MOST_K = 7
_PAIRS_OF_A_BLOCK = 40


@dataclass(frozen=True)
class Ranking:
    """Every k-mer with its score; arrays [4**k] in token-id order."""

    name: str
    k: int
    npmi: np.ndarray
    """float64, NaN without a score"""
    count: np.ndarray
    """int64, occurrences on the strand that was counted"""


@dataclass(frozen=True)
class Pairs:
    """The P pairs of a k-mer and its reverse complement in which at least one has a score.

    Both match the same motifs and their ranks are correlated, so a pair is the unit of every test. A k-mer that is its
    own reverse complement is a pair of its own.
    """

    k: int
    value: np.ndarray
    """base-4 value of the better-ranked k-mer, int64[P]"""
    partner: np.ndarray
    """value of its reverse complement, int64[P]"""
    rank: np.ndarray
    """NPMI rank of the better-ranked k-mer among all k-mers, 1 = best, int64[P]"""
    npmi: np.ndarray
    """its NPMI, float64[P]"""
    count: np.ndarray
    """occurrences on both strands, f(w) + f(rc(w)), int64[P]"""

    def __len__(self) -> int:
        return len(self.value)

    @property
    def kmers(self) -> list[str]:
        """The better-ranked k-mers as text."""
        return [kmer_of_value(value, self.k) for value in self.value.tolist()]

    @property
    def index(self) -> np.ndarray:
        """The pair of every k-mer, int64[4**k]; -1 if neither strand has a score."""
        out = np.full(num_kmers(self.k), -1, np.int64)
        out[self.value] = out[self.partner] = np.arange(len(self))
        return out

    @property
    def digits(self) -> np.ndarray:
        """Base digits (A0 T1 C2 G3) of the better-ranked k-mers, int64[P, k]."""
        return (self.value[:, None] >> 2 * np.arange(self.k - 1, -1, -1)) & 3


def read_ranking(path: str | Path, *, k: int | None = None, estimator: str | None = None) -> Ranking:
    """Read a ranking from a shard set, an NPMI table (Parquet) or a CSV file with columns kmer, count and npmi.

    A CSV file may also have the column names of the published table (ngram, norm_dp_true_pmi). Raises FileNotFoundError
    or ValueError for anything else.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a shard set, an NPMI table or a CSV file of k-mers")
    if path.suffix == ".csv":
        ranking = _from_csv(path)
        if estimator or (k and k != ranking.k):
            raise ValueError(f"{path} has one score of {ranking.k}-mers; omit --k and --estimator")
        return ranking
    if path.is_dir():
        own_k = ShardSet.open(path).k
        if not (path / NPMI_FILE).exists():
            raise ValueError(f"{path} has no NPMI table ({NPMI_FILE}); make the set again")
        table = NpmiTable.from_parquet(path / NPMI_FILE, estimator)
    else:
        table = NpmiTable.from_parquet(path, estimator)
        own_k = min(_USUAL_K, table.max_k)
    k = check_k(k or own_k)
    if k > _MOST_K:
        raise ValueError(f"k = {k}: motifs are compared with k-mers of at most {_MOST_K} bases; give --k")
    return Ranking(path.name, k, table.npmi(k), table.counts[k])


def pairs_of(ranking: Ranking) -> Pairs:
    """Return the pairs of a ranking; raise ValueError if no k-mer has a score."""
    k = ranking.k
    if not np.isfinite(ranking.npmi).any():
        raise ValueError(f"{ranking.name}: no {k}-mer has an NPMI")
    rank = rank_descending(ranking.npmi).astype(np.int64)
    partner = reverse_complement_values(k).astype(np.int64)
    values = np.arange(num_kmers(k))
    better = np.where((rank < rank[partner]) | ((rank == rank[partner]) & (values <= partner)), values, partner)
    chosen = np.unique(better)
    chosen = chosen[np.isfinite(ranking.npmi[chosen])]
    count = ranking.count[chosen] + ranking.count[partner[chosen]]
    return Pairs(k, chosen, partner[chosen], rank[chosen], ranking.npmi[chosen], count)


def gc_and_cpg(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return how many bases are G or C and how many dinucleotides are CpG, int64[P] each; the same on both strands."""
    digits = pairs.digits
    cpg = (digits[:, :-1] == BASES.index("C")) & (digits[:, 1:] == BASES.index("G"))
    return (digits >= 2).sum(axis=1), cpg.sum(axis=1)


def strata(pairs: Pairs) -> Mapping[str, np.ndarray]:
    """Return the strata within which controls are compared with the top: {name: stratum, int64[P]}.

    ``shuffled``  the same letters in any order, on either strand.
    ``frequency-matched``  neighbours by number of occurrences, in blocks of 40 pairs.
    ``G+C- and CpG-matched`` the same number of G or C and of CpG.
    """
    letters = np.stack([(pairs.digits == digit).sum(axis=1) for digit in range(4)], axis=1)
    one_strand = letters @ (pairs.k + 1) ** np.arange(4)
    other_strand = letters[:, [1, 0, 3, 2]] @ (pairs.k + 1) ** np.arange(4)
    by_count = np.empty(len(pairs), np.int64)
    by_count[np.argsort(pairs.count, kind="stable")] = np.arange(len(pairs))
    num_gc, num_cpg = gc_and_cpg(pairs)
    return {
        "shuffled": np.minimum(one_strand, other_strand),
        "frequency-matched": by_count // _PAIRS_OF_A_BLOCK,
        "G+C- and CpG-matched": num_gc * (pairs.k + 1) + num_cpg,
    }


def _from_csv(path: Path) -> Ranking:
    with open(path, newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        header = reader.fieldnames or []
        kmer_column = next((name for name in _KMER_COLUMNS if name in header), None)
        score_column = next((name for name in _SCORE_COLUMNS if name in header), None)
        if kmer_column is None or score_column is None or "count" not in header:
            raise ValueError(f"{path} lacks a column: kmer, count and npmi are needed, it has {', '.join(header)}")
        rows = list(reader)
    if not rows:
        raise ValueError(f"{path} has no rows")
    k = check_k(len(rows[0][kmer_column]))
    if k > _MOST_K:
        raise ValueError(f"{path} holds {k}-mers; motifs are compared with k-mers of at most {_MOST_K} bases")
    npmi = np.full(num_kmers(k), np.nan)
    count = np.zeros(num_kmers(k), np.int64)
    for number, row in enumerate(rows, start=2):
        try:
            kmer = row[kmer_column]
            value = kmer_value(kmer)
            if len(kmer) != k or np.isfinite(npmi[value]):
                raise ValueError(f"{kmer!r} is not a {k}-mer, or occurs twice")
            npmi[value], count[value] = float(row[score_column]), int(row["count"])
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return Ranking(path.name, k, npmi, count)
