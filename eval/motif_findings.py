"""Everything that a run found, and its tables and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from eval.motif_enrichment import Enrichment
from eval.motif_files import Motif
from eval.motif_matches import Matches
from eval.motif_ranking import Pairs, Ranking
from eval.motif_repeats import Repeats
from eval.motif_statistics import Comparison, Correlation
from eval.motif_verdict import Verdict
from gemsdata.genome.vocab import all_kmers, reverse_complement_values

MATCH = "-log10 p of the best motif"
"""the quantity that the verdict rests on"""
Comparisons = Mapping[str, Mapping[str, Comparison]]
"""{quantity: {kind of control: comparison}}"""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a run found."""

    ranking: Ranking
    pairs: Pairs
    top: np.ndarray
    """bool[P]"""
    motifs: Sequence[Motif]
    matches: Matches
    matched_q: float
    """a k-mer counts as matched up to this q-value"""
    repeats: Repeats | None
    kmer_sets: Mapping[str, Enrichment]
    """{labelled set: of the P pairs}"""
    motif_sets: Mapping[str, Enrichment]
    """{labelled set: of the motifs}"""
    correlations: Mapping[str, Correlation]
    comparisons: Comparisons
    verdict: Verdict

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


def motifs_of_top_beside_others(findings: Findings, name: str) -> tuple[float, float] | None:
    """Return superiority and p-value (Mann-Whitney) of the log odds of motifs that the top matches in a set.

    Superiority is the probability that such a motif exceeds another; None when the top matches no motif, or all.
    """
    chosen, odds = findings.motifs_of_top, findings.motif_sets[name].log2_odds
    if not 0 < chosen.sum() < chosen.size:
        return None
    test = stats.mannwhitneyu(odds[chosen], odds[~chosen])
    return float(test.statistic) / (chosen.sum() * (~chosen).sum()), float(test.pvalue)


def kmer_table(findings: Findings) -> pa.Table:
    """Return one row per k-mer in token-id order; null where its pair has no score."""
    pairs, matches, k = findings.pairs, findings.matches, findings.ranking.k
    values = np.arange(4**k)
    reverse_complement = reverse_complement_values(k).astype(np.int64)
    index = pairs.index
    known = index >= 0
    other_strand = known & (pairs.value[index] != values)
    width = np.array([motif.probabilities.shape[1] for motif in findings.motifs])[matches.motif]
    offset = np.where(other_strand, (width - k - matches.offset)[index], matches.offset[index])
    names = np.array([motif.name for motif in findings.motifs], object)[matches.motif]
    kmers = all_kmers(k).astype(str)

    def of_pair(column: np.ndarray) -> pa.Array:
        return pa.array(column[index], mask=~known)

    columns: dict[str, Any] = {
        "kmer": kmers,
        "reverse_complement": kmers[reverse_complement],
        "npmi": pa.array(findings.ranking.npmi, mask=np.isnan(findings.ranking.npmi)),
        "count": findings.ranking.count,
        "pair_rank": of_pair(pairs.rank),
        "pair_count": of_pair(pairs.count),
        "top": of_pair(findings.top),
        "motif": of_pair(names),
        "motif_p_value": of_pair(matches.p_value),
        "motif_q_value": of_pair(matches.q_value),
        "motif_offset": pa.array(offset, mask=~known),
        "motif_reverse": pa.array(matches.reverse[index] ^ other_strand, mask=~known),
    }
    if findings.repeats is not None:
        columns["genome_count"] = of_pair(findings.repeats.total)
        columns["genome_repeat_count"] = of_pair(findings.repeats.inside)
    return pa.table(columns)


def enrichment_table(findings: Findings) -> pa.Table:
    """Return one row per labelled set and k-mer pair or motif; ``of_top``: a top k-mer, or a motif matched by one."""
    parts = []
    kinds: tuple[tuple[str, Mapping[str, Enrichment], Sequence[str], np.ndarray], ...] = (
        ("kmer", findings.kmer_sets, findings.pairs.kmers, findings.top),
        ("motif", findings.motif_sets, [motif.name for motif in findings.motifs], findings.motifs_of_top),
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


def as_json(findings: Findings) -> dict[str, Any]:
    """Return verdict, correlations and comparisons as plain values."""
    out: dict[str, Any] = {
        "ranking": findings.ranking.name,
        "k": findings.ranking.k,
        "num_pairs": len(findings.pairs),
        "num_top_pairs": int(findings.top.sum()),
        "num_motifs": len(findings.motifs),
        "answer": findings.verdict.answer,
        "sentence": findings.verdict.sentence,
        "holm_p_values": dict(findings.verdict.adjusted),
        "correlations": {name: asdict(found) for name, found in findings.correlations.items()},
        "comparisons": {
            quantity: {
                name: {**asdict(found), "z": found.z, "cliffs_delta": found.cliffs_delta}
                for name, found in kinds.items()
            }
            for quantity, kinds in findings.comparisons.items()
        },
    }
    if findings.repeats is not None:
        out["repeat_share"] = {
            "top": share_inside(findings.repeats, findings.top),
            "genome": findings.repeats.genome_share,
        }
    return out


def share_inside(repeats: Repeats, members: np.ndarray) -> float:
    """Return the share of all occurrences of ``members`` (bool[P]) that lie inside repeats; NaN if there are none."""
    total = int(repeats.total[members].sum())
    return int(repeats.inside[members].sum()) / total if total else float("nan")
