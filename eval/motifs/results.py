"""The results of a run, with their tables and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from eval.motifs.conclusion import Conclusion
from eval.motifs.enrichment import Enrichment, Repeats
from eval.motifs.files import Motif
from eval.motifs.matches import Matches
from eval.motifs.ranking import Pairs, Ranking
from eval.motifs.statistics import Comparison, Correlation
from gemsdata.genome.vocab import all_kmers, reverse_complement_values

MATCH = "-log10 p of the best motif"
"""the quantity that the conclusion is based on"""
Comparisons = Mapping[str, Mapping[str, Comparison]]
"""{quantity: {kind of control: comparison}}"""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All results of a run."""

    ranking: Ranking
    pairs: Pairs
    top: np.ndarray
    """bool[P]"""
    motifs: Sequence[Motif]
    matches: Matches
    matched_q: float
    """largest q-value of a match"""
    repeats: Repeats | None
    kmer_sets: Mapping[str, Enrichment]
    """{labelled set: enrichment of the P pairs}"""
    motif_sets: Mapping[str, Enrichment]
    """{labelled set: enrichment of the motifs}"""
    correlations: Mapping[str, Correlation]
    comparisons: Comparisons
    conclusion: Conclusion

    @property
    def matched(self) -> np.ndarray:
        """Whether each pair has a motif, bool[P]."""
        return self.matches.q_value <= self.matched_q

    @property
    def motifs_of_top(self) -> np.ndarray:
        """Whether each motif is the best one of a matched top pair, bool[motifs]."""
        out = np.zeros(len(self.motifs), bool)
        out[self.matches.motif[self.top & self.matched]] = True
        return out


def enrichment_of_top_motifs(results: Results, name: str) -> tuple[float, float] | None:
    """Return superiority and p-value (Mann-Whitney) of the log odds of motifs that the top matches in a set.

    Superiority is the probability that such a motif exceeds another; None if the top matches no motif, or all.
    """
    chosen, odds = results.motifs_of_top, results.motif_sets[name].log2_odds
    if not 0 < chosen.sum() < chosen.size:
        return None
    test = stats.mannwhitneyu(odds[chosen], odds[~chosen])
    return float(test.statistic) / (chosen.sum() * (~chosen).sum()), float(test.pvalue)


def kmer_table(results: Results) -> pa.Table:
    """Return one row per k-mer in token-id order; null if its pair has no score."""
    pairs, matches, k = results.pairs, results.matches, results.ranking.k
    values = np.arange(4**k)
    reverse_complement = reverse_complement_values(k).astype(np.int64)
    index = pairs.index
    known = index >= 0
    other_strand = known & (pairs.value[index] != values)
    width = np.array([motif.probabilities.shape[1] for motif in results.motifs])[matches.motif]
    offset = np.where(other_strand, (width - k - matches.offset)[index], matches.offset[index])
    names = np.array([motif.name for motif in results.motifs], object)[matches.motif]
    kmers = all_kmers(k).astype(str)

    def of_pair(column: np.ndarray) -> pa.Array:
        return pa.array(column[index], mask=~known)

    columns: dict[str, Any] = {
        "kmer": kmers,
        "reverse_complement": kmers[reverse_complement],
        "npmi": pa.array(results.ranking.npmi, mask=np.isnan(results.ranking.npmi)),
        "count": results.ranking.count,
        "pair_rank": of_pair(pairs.rank),
        "pair_count": of_pair(pairs.count),
        "top": of_pair(results.top),
        "motif": of_pair(names),
        "motif_p_value": of_pair(matches.p_value),
        "motif_q_value": of_pair(matches.q_value),
        "motif_offset": pa.array(offset, mask=~known),
        "motif_reverse": pa.array(matches.reverse[index] ^ other_strand, mask=~known),
    }
    if results.repeats is not None:
        columns["genome_count"] = of_pair(results.repeats.total)
        columns["genome_repeat_count"] = of_pair(results.repeats.inside)
    return pa.table(columns)


def enrichment_table(results: Results) -> pa.Table:
    """Return one row per labelled set and k-mer pair or motif; ``of_top``: a top k-mer, or a motif matched by one."""
    parts = []
    kinds: tuple[tuple[str, Mapping[str, Enrichment], Sequence[str], np.ndarray], ...] = (
        ("kmer", results.kmer_sets, results.pairs.kmers, results.top),
        ("motif", results.motif_sets, [motif.name for motif in results.motifs], results.motifs_of_top),
    )
    for kind, sets, names, of_top in kinds:
        for name, found in sets.items():
            num = len(names)
            columns = {
                "set": [name] * num,
                "kind": [kind] * num,
                "name": names,
                "of_top": of_top,
                "in_positive": found.in_positive,
                "num_positive": np.full(num, found.num_positive),
                "in_negative": found.in_negative,
                "num_negative": np.full(num, found.num_negative),
                "occurrences": found.occurrences,
                "log2_odds_ratio": found.log2_odds,
                "p_value": found.p_value,
                "q_value": found.q_value,
            }
            parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def as_json_of(results: Results) -> dict[str, Any]:
    """Return conclusion, correlations and comparisons as plain values."""
    out: dict[str, Any] = {
        "ranking": results.ranking.name,
        "k": results.ranking.k,
        "num_pairs": len(results.pairs),
        "num_top_pairs": int(results.top.sum()),
        "num_motifs": len(results.motifs),
        "answer": results.conclusion.answer,
        "sentence": results.conclusion.sentence,
        "holm_p_values": dict(results.conclusion.adjusted),
        "correlations": {name: asdict(found) for name, found in results.correlations.items()},
        "comparisons": {
            quantity: {
                name: {**asdict(found), "z": found.z, "cliffs_delta": found.cliffs_delta}
                for name, found in kinds.items()
            }
            for quantity, kinds in results.comparisons.items()
        },
    }
    if results.repeats is not None:
        out["repeat_share"] = {
            "top": share_inside(results.repeats, results.top),
            "genome": results.repeats.genome_share,
        }
    return out


def share_inside(repeats: Repeats, members: np.ndarray) -> float:
    """Return the share of all occurrences of ``members`` (bool[P]) that lie inside repeats; NaN if there are none."""
    total = int(repeats.total[members].sum())
    return int(repeats.inside[members].sum()) / total if total else float("nan")
