"""Conclusion on the claim that the top NPMI k-mers correlate strongly with motifs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eval.motifs.ranking import Pairs, gc_and_cpg
from eval.motifs.statistics import Comparison, Correlation, rank_correlation
from eval.results.statistics import holm

ALPHA = 0.05
LARGE_DELTA = 0.474
"""Cliff's delta of a large effect (Romano et al., 2006)"""
CORRELATION_WORDS = ((0.5, "strong"), (0.3, "moderate"), (0.1, "weak"), (0.0, "negligible"))
"""thresholds of the absolute rho (Cohen, 1988)"""
_ANSWERS = {
    "holds": "holds",
    "weak association": "does not hold (there is an association, but a weak one)",
    "does not hold": "does not hold",
}


@dataclass(frozen=True)
class Conclusion:
    """The answer and the statistics that it is based on."""

    answer: str
    """``holds``, ``weak association`` or ``does not hold``"""
    sentence: str
    adjusted: Mapping[str, float]
    """Holm-adjusted p-value of the comparison with each kind of control"""


def correlations(pairs: Pairs, score: np.ndarray) -> dict[str, Correlation]:
    """Return Spearman's rho of NPMI and match score over all pairs: without and with covariates held fixed."""
    num_gc, num_cpg = gc_and_cpg(pairs)
    frequency = np.argsort(np.argsort(pairs.count, kind="stable")).astype(float)[:, None]
    classes = np.unique(np.stack([num_gc, num_cpg], axis=1), axis=0, return_inverse=True)[1]
    composition = np.eye(classes.max() + 1)[classes]
    given = {
        "nothing": None,
        "occurrences": frequency,
        "G+C and CpG": composition,
        "occurrences, G+C and CpG": np.hstack([frequency, composition]),
    }
    return {name: rank_correlation(pairs.npmi, score, columns) for name, columns in given.items()}


def conclude(subject: str, compared: Mapping[str, Comparison], related: Mapping[str, Correlation]) -> Conclusion:
    """Return the conclusion from the match scores of the top against each kind of control, and the correlations.

    The claim holds if the top exceeds every kind of control (Holm's p below 0.05) with a large effect. With a smaller
    effect there is a weak association. The correlation over all k-mers is not used, because the claim is only about the
    top.
    """
    adjusted = dict(zip(compared, holm(np.array([c.p_value for c in compared.values()])).tolist(), strict=True))
    rho = related["nothing"]
    better = all(c.z > 0 and adjusted[name] < ALPHA for name, c in compared.items())
    large = all(c.cliffs_delta >= LARGE_DELTA for c in compared.values())
    answer = ("holds" if large else "weak association") if better else "does not hold"
    parts = [
        f"{_relation(c, adjusted[name])} {name} ones ({c.mean_top:.2f} against {c.mean_control:.2f},"
        f" Cliff's delta = {c.cliffs_delta:.2f}, p = {adjusted[name]:.2g})"
        for name, c in compared.items()
    ]
    word = next(word for bound, word in CORRELATION_WORDS if abs(rho.rho) >= bound)
    last = list(related)[-1]
    sentence = (
        f"The claim of a strong correlation {_ANSWERS[answer]} for {subject}."
        f" Over all {rho.num_pairs:,} pairs of k-mers Spearman's rho = {rho.rho:.2f}"
        f" (95 % interval {rho.low:.2f} to {rho.high:.2f}, p = {rho.p_value:.2g}), which is {word};"
        f" with {last} held fixed it is {related[last].rho:.2f} (p = {related[last].p_value:.2g})."
        f" By the mean -log10 p of the best motif, the top is {'; '.join(parts)};"
        " p-values of permutations within strata, after Holm."
    )
    return Conclusion(answer, sentence, adjusted)


def _relation(comparison: Comparison, p_value: float) -> str:
    if p_value >= ALPHA:
        return "no different from"
    return "above" if comparison.z > 0 else "below"
