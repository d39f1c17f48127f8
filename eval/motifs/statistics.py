"""Statistics of motifs: a permutation test within strata, partial rank correlation, odds ratios, corrections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

_PERMUTED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Comparison:
    """The top k-mers compared with controls of the same strata."""

    num_top: int
    """top pairs whose stratum also has controls; the others cannot be compared"""
    mean_top: float
    mean_control: float
    """mean of the controls, with strata weighted by their number of top pairs"""
    superiority: float
    """probability that a top pair exceeds a control of its stratum, ties counting half; 0.5: no difference"""
    spread: float
    """standard deviation of the difference of the means over the permutations"""
    p_value: float
    """two-sided, (1 + permutations as extreme) / (1 + permutations)"""

    @property
    def z(self) -> float:
        """Difference of the means in standard deviations of its permutations; 0 if all permutations are equal."""
        return (self.mean_top - self.mean_control) / self.spread if self.spread > 0 else 0.0

    @property
    def cliffs_delta(self) -> float:
        """Cliff's delta, -1 to 1."""
        return 2 * self.superiority - 1


@dataclass(frozen=True)
class Correlation:
    """A rank correlation."""

    rho: float
    low: float
    high: float
    """95 % interval"""
    p_value: float
    """two-sided"""
    num_pairs: int


def compare_within_strata(
    values: np.ndarray, top: np.ndarray, strata: np.ndarray, *, draws: int, rng: np.random.Generator
) -> Comparison:
    """Compare ``values`` float64[P] of the top (bool[P]) with those of other pairs in the same stratum (integers[P]).

    The statistic is the difference of means, strata weighted by their number of top pairs. Under the null hypothesis
    membership of the top is exchangeable within a stratum, so permuting it there gives exact p-values (Phipson and
    Smyth, 2010, for the added 1). NaN values are ignored. Raises ValueError if no stratum has both.
    """
    known = np.isfinite(values)
    _, stratum = np.unique(strata, return_inverse=True)
    size = np.bincount(stratum, known)
    num_top = np.bincount(stratum, known & top)
    used = known & ((num_top > 0) & (num_top < size))[stratum]
    if not used.any():
        raise ValueError(
            "no top k-mer has a control with as many letters or occurrences outside the top; give a smaller --top"
        )
    order = np.flatnonzero(used)
    order = order[np.lexsort([~top[order], stratum[order]])]  # by stratum, the top first
    x, group, is_top = values[order], stratum[order], top[order]
    total_top = int(is_top.sum())
    weight = np.where(is_top, 1.0, -num_top[group] / (size[group] - num_top[group])) / total_top
    difference = float(x @ weight)
    permuted = []
    step = max(1, _PERMUTED_AT_ONCE // x.size)
    for first in range(0, draws, step):
        shape = (min(step, draws - first), x.size)
        within = np.argsort(group + rng.random(shape), axis=1)  # shuffles within each stratum
        permuted.append(x[within] @ weight)
    null = np.concatenate(permuted)
    as_extreme = int((np.abs(null) >= abs(difference) * (1 - 1e-12)).sum())
    mean_top = float(x[is_top].mean())
    return Comparison(
        num_top=total_top,
        mean_top=mean_top,
        mean_control=mean_top - difference,
        superiority=_superiority(x, group, is_top),
        spread=float(null.std()),
        p_value=(1 + as_extreme) / (1 + draws),
    )


def rank_correlation(x: np.ndarray, y: np.ndarray, given: np.ndarray | None = None) -> Correlation:
    """Return Spearman's rho of x and y float64[P], or the partial one ``given`` covariates float64[P, g].

    Covariates are removed from the ranks by least squares; the p-value is that of Student's t with P - 2 - g degrees
    of freedom, the interval that of Fisher's z with the standard error of Bonett and Wright (2000, eq. 7).
    """
    columns = np.ones((x.size, 1)) if given is None else np.column_stack([np.ones(x.size), given])
    num_given = int(np.linalg.matrix_rank(columns)) - 1
    rest = []
    for values in (x, y):
        ranks = stats.rankdata(values)
        rest.append(ranks - columns @ np.linalg.lstsq(columns, ranks, rcond=None)[0])
    norm = float(np.linalg.norm(rest[0]) * np.linalg.norm(rest[1]))
    freedom = x.size - 2 - num_given
    if norm == 0 or freedom < 2:
        raise ValueError(f"{x.size} k-mers are too few, or all equal: no rank correlation")
    rho = float(np.clip(rest[0] @ rest[1] / norm, -1, 1))
    t = rho * np.sqrt(freedom / max(1 - rho**2, np.finfo(float).tiny))
    error = np.sqrt((1 + rho**2 / 2) / (freedom - 1)) * stats.norm.ppf(0.975)
    z = np.arctanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15))
    low, high = float(np.tanh(z - error)), float(np.tanh(z + error))
    return Correlation(rho, low, high, float(2 * stats.t.sf(abs(t), freedom)), x.size)


def log2_odds_ratio(hits: np.ndarray, others: np.ndarray, num_hits: int, num_others: int) -> np.ndarray:
    """Return log2 of the odds ratio of int64[m] hits out of ``num_hits`` against ``others``, 1/2 added to each cell."""
    odds = (hits + 0.5) / (num_hits - hits + 0.5)
    return np.log2(odds / ((others + 0.5) / (num_others - others + 0.5)))


def fisher_p_values(hits: np.ndarray, others: np.ndarray, num_hits: int, num_others: int) -> np.ndarray:
    """Return the two-sided p-value of Fisher's exact test for each of int64[m], float64[m]."""
    tables = np.stack([hits, others, num_hits - hits, num_others - others], axis=1).reshape(-1, 2, 2)
    return np.array([stats.fisher_exact(table).pvalue for table in tables])


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Return the q-values of p-values of any shape, all as one family."""
    return stats.false_discovery_control(p_values.ravel()).reshape(p_values.shape)


def _superiority(x: np.ndarray, group: np.ndarray, is_top: np.ndarray) -> float:
    wins, total = 0.0, 0
    for stratum in np.unique(group):
        here = group == stratum
        top, rest = x[here & is_top][:, None], x[here & ~is_top][None, :]
        wins += top.size * float(((top > rest) + 0.5 * (top == rest)).mean())
        total += top.size
    return wins / total
