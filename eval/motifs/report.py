"""motifs.md: the conclusion, then the tables that it is based on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from eval.motifs.conclusion import ALPHA
from eval.motifs.enrichment import Enrichment
from eval.motifs.results import Results, enrichment_of_top_motifs, share_inside
from eval.motifs.statistics import benjamini_hochberg

_SHOWN = 25
_SHOWN_ENRICHED = 8


def report(results: Results) -> str:
    """Return the report as Markdown."""
    parts = [
        f"# Motifs among the top k-mers of {results.ranking.name}",
        f"**{results.conclusion.sentence}**",
        "![Rank against match, the top beside controls, logos](motifs.png)",
        "## Correlation of NPMI with the best match",
        "Over all pairs of a k-mer and its reverse complement.",
        _correlations(results),
        "## The top beside controls of the same stratum",
        "Shuffled: the same letters in another order; matched: about as many occurrences, or as many G+C and CpG."
        " Permutation within strata, two-sided; q: Benjamini and Hochberg over this table.",
        _comparisons(results),
        f"## The first {_SHOWN} pairs",
        _top_kmers(results),
    ]
    if results.repeats is not None:
        inside = share_inside(results.repeats, results.top)
        parts.append(
            f"Of the occurrences of the top, {inside:.1%} lie inside soft-masked repeats; of those of all k-mers"
            f" {results.repeats.genome_share:.1%}."
        )
    for name in results.kmer_sets:
        parts += [f"## {name}", *_labelled_set(results, name)]
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _correlations(results: Results) -> str:
    rows = [
        [
            name,
            f"{found.rho:.3f}",
            f"{found.low:.3f} to {found.high:.3f}",
            f"{found.p_value:.2g}",
            f"{found.num_pairs:,}",
        ]
        for name, found in results.correlations.items()
    ]
    return _table(["held fixed", "Spearman's rho", "95 % interval", "p", "pairs"], rows)


def _comparisons(results: Results) -> str:
    flat = [
        (quantity, control, found)
        for quantity, kinds in results.comparisons.items()
        for control, found in kinds.items()
    ]
    q_values = benjamini_hochberg(np.array([found.p_value for _, _, found in flat]))
    header = ["quantity", "controls", "pairs compared", "top", "controls", "Cliff's delta", "z", "p", "q"]
    rows = [
        [
            quantity,
            control,
            str(found.num_top),
            f"{found.mean_top:.3f}",
            f"{found.mean_control:.3f}",
            f"{found.cliffs_delta:+.2f}",
            f"{found.z:+.1f}",
            f"{found.p_value:.2g}",
            f"{q:.2g}",
        ]
        for (quantity, control, found), q in zip(flat, q_values.tolist(), strict=True)
    ]
    return _table(header, rows)


def _top_kmers(results: Results) -> str:
    pairs, matches, repeats = results.pairs, results.matches, results.repeats
    header = ["rank", "k-mer", "on both strands", "best motif", "its consensus", "p", "q"]
    header += ["in repeats"] if repeats is not None else []
    kmers = pairs.kmers
    rows = []
    for i in np.argsort(pairs.rank, kind="stable")[:_SHOWN]:
        motif = results.motifs[matches.motif[i]]
        row = [str(pairs.rank[i]), f"`{kmers[i]}`", f"{pairs.count[i]:,}", motif.name, f"`{motif.consensus}`"]
        row += [f"{matches.p_value[i]:.2g}", f"{matches.q_value[i]:.2g}"]
        row += [f"{repeats.share[i]:.1%}"] if repeats is not None else []
        rows.append(row)
    return _table(header, rows)


def _labelled_set(results: Results, name: str) -> Iterator[str]:
    kmers, motifs = results.kmer_sets[name], results.motif_sets[name]
    yield f"{kmers.num_positive:,} positives, {kmers.num_negative:,} negatives. q at most {ALPHA} counts as enriched."
    header = ["", "number", "more in positives", "more in negatives"]
    groups = [
        ("top k-mers", kmers, results.top),
        ("other k-mers", kmers, ~results.top),
        ("motifs of top k-mers", motifs, results.motifs_of_top),
        ("other motifs", motifs, ~results.motifs_of_top),
    ]
    yield _table(
        header, [[label, f"{members.sum():,}", *_enriched(found, members)] for label, found, members in groups]
    )
    test = enrichment_of_top_motifs(results, name)
    if test is not None:
        yield (
            f"A motif of the top has a higher odds ratio than another motif with probability {test[0]:.2f}"
            f" (Mann-Whitney p = {test[1]:.2g})."
        )
    header = ["", "sequences, positive", "negative", "log2 odds ratio", "q"]
    names = [motif.name for motif in results.motifs]
    kinds = (
        ([f"`{kmer}`" for kmer in results.pairs.kmers], kmers, results.top),
        (names, motifs, results.motifs_of_top),
    )
    rows = []
    for labels, found, members in kinds:
        candidates = np.flatnonzero(members)
        for i in candidates[np.argsort(found.p_value[candidates], kind="stable")][:_SHOWN_ENRICHED]:
            counts = [f"{found.in_positive[i]:,}", f"{found.in_negative[i]:,}"]
            rows.append([labels[i], *counts, f"{found.log2_odds[i]:+.2f}", f"{found.q_value[i]:.2g}"])
    yield "The top k-mers, and the motifs that they match, with the smallest p-values:"
    yield _table(header, rows)


def _enriched(found: Enrichment, members: np.ndarray) -> list[str]:
    significant = members & (found.q_value <= ALPHA)
    total = max(1, int(members.sum()))
    return [
        f"{number:,} ({number / total:.0%})"
        for number in (
            int((significant & (found.log2_odds > 0)).sum()),
            int((significant & (found.log2_odds < 0)).sum()),
        )
    ]
