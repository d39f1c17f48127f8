"""Statistics of several runs: means with intervals, paired tests with a correction for multiple comparisons."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and its 95 % confidence interval; the ends are NaN for a single value."""

    mean: float
    low: float
    high: float
    num: int
    """number of values"""


def interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Return the mean of n values and Student's 95 % interval, mean +- t(n - 1) * s / sqrt(n), s with n - 1."""
    found = np.asarray(values, float)
    if found.size == 0:
        raise ValueError("an interval needs at least one value")
    mean = float(found.mean())
    if found.size == 1:
        return Interval(mean, np.nan, np.nan, 1)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, found.size - 1) * stats.sem(found))
    return Interval(mean, mean - half, mean + half, found.size)


def wilcoxon_p(differences: Sequence[float] | np.ndarray) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test that differences are symmetric around 0.

    Differences of 0 are ignored, as in Wilcoxon's paper; p is 1 if all are 0.
    """
    found = _exact(differences)
    found = found[found != 0]
    return float(stats.wilcoxon(found).pvalue) if found.size else 1.0


def _exact(differences: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return differences of fractions k/n rounded to 12 digits, so that rounding errors do not break ties."""
    return np.round(np.asarray(differences, float), 12)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values float64[m] adjusted by Holm's step-down procedure."""
    return multipletests(p_values, method="holm")[1] if p_values.size else p_values


def least_p(num_pairs: int) -> float:
    """Return the smallest p that the exact signed-rank test of n pairs can give, 2 / 2**n (two-sided)."""
    return min(1.0, 2.0 / 2.0**num_pairs)


def summary(table: pd.DataFrame, *, by: Sequence[str], metric: str) -> pd.DataFrame:
    """Return a row for each combination of the columns ``by``: mean, low, high, num of ``metric``."""
    rows = [
        {**dict(zip(by, key, strict=True)), **interval(part[metric].to_numpy())._asdict()}
        for key, part in table.groupby(list(by), sort=False)
    ]
    return pd.DataFrame(rows, columns=[*by, *Interval._fields])


def paired(
    table: pd.DataFrame,
    *,
    of: str,
    metric: str,
    pair_by: Sequence[str],
    within: str | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    unit: str | None = None,
) -> pd.DataFrame:
    """Compare the values of column ``of`` over runs that agree in the columns ``pair_by``.

    Parameters
    ----------
    table
        a row for each run.
    of
        the column whose values are compared, such as model.
    metric
        the column of numbers, higher is better.
    pair_by
        columns in which the runs of a pair agree, such as dataset, shots, draw, seed.
    within
        also compare within each value of this column, such as dataset.
    pairs
        values to compare; default: all pairs.
    unit
        one of ``pair_by``: runs with the same value are not independent, so the interval is computed from their means.

    Returns
    -------
    A row for each comparison: where ("all" or the value of ``within``), a, b, num_pairs, mean difference a - b with
    Student's interval (difference, low, high), wins, ties, losses of a, Wilcoxon's p over pairs, and p_holm
    after Holm's correction over the rows of "all", and over the others.
    """
    parts: list[tuple[str, pd.DataFrame]] = [("all", table)]
    if within is not None and table[within].nunique() > 1:
        parts += [(str(value), part) for value, part in table.groupby(within, sort=False)]
    chosen = list(itertools.combinations(dict.fromkeys(table[of]), 2)) if pairs is None else pairs
    rows = []
    for where, part in parts:
        wide = part.pivot_table(index=list(pair_by), columns=of, values=metric, sort=False)
        for a, b in chosen:
            if a not in wide or b not in wide:
                continue
            each = (wide[a] - wide[b]).dropna()
            if len(each):
                rows.append({"where": where, "a": a, "b": b, **_comparison(each, unit)})
    found_rows = pd.DataFrame(
        rows, columns=["where", "a", "b", "num_pairs", "difference", "low", "high", "wins", "ties", "losses", "p"]
    )
    everywhere = (found_rows["where"] == "all").to_numpy()
    p_holm = found_rows["p"].to_numpy(float, copy=True)
    for family in (everywhere, ~everywhere):
        p_holm[family] = holm(p_holm[family])
    return found_rows.assign(p_holm=p_holm)


def _comparison(each: pd.Series, unit: str | None) -> dict[str, float | int]:
    """Return the statistics of paired differences; with ``unit``, the interval is computed from its means."""
    differences = _exact(each.to_numpy())
    found = interval(each.groupby(unit).mean() if unit else differences)
    return {
        "num_pairs": differences.size,
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "wins": int((differences > 0).sum()),
        "ties": int((differences == 0).sum()),
        "losses": int((differences < 0).sum()),
        "p": wilcoxon_p(differences),
    }
