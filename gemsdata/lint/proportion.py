"""Confidence interval of a proportion."""

from __future__ import annotations

CONFIDENCE = 0.99


def interval(count: int, total: int) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) 99 % interval of the share ``count`` of ``total``."""
    from scipy.stats import binomtest

    found = binomtest(count, total).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)
