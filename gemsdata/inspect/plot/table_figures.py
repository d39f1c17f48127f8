"""Figures of NPMI tables: distribution by k, rank against frequency, comparison of two genomes, map of all k-mers."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from gemsdata.genome.vocab import all_kmers
from gemsdata.inspect.plot.style import BLUE, COLOUR_MAP, FAINT, INK, ORANGE, THOUSANDS, set_title
from gemsdata.npmi.estimators import Scores
from gemsdata.npmi.table import NpmiTable

_LONGEST_MAP_K = 8
_VIOLIN_SAMPLE = 20_000
_MOST_VECTOR_POINTS = 5000
_RELATED = 0.1
"""correlation from which two quantities are called related"""


def npmi_by_k(table: NpmiTable) -> Figure:
    """Return the figure of the NPMI distribution for each k, with quartiles and the share of k-mers with a score."""
    orders = [k for k in table.counts if k > 1 and np.isfinite(table.npmi(k)).any()]
    if not orders:
        raise ValueError(f"no n-gram occurs {table.min_count} times, so none has an NPMI")
    figure = Figure(figsize=(4.6, 3.0))
    axes = figure.subplots()
    axes.axhline(0, color=FAINT, linewidth=0.7)
    for k in orders:
        npmi = table.npmi(k)
        scored = np.sort(npmi[np.isfinite(npmi)])
        low, first, median, third, high = np.quantile(scored, [0.005, 0.25, 0.5, 0.75, 0.995])
        inside = scored[(scored >= low) & (scored <= high)][:: max(1, scored.size // _VIOLIN_SAMPLE)]
        if np.ptp(inside) > 0:
            violin: dict[str, Any] = axes.violinplot(inside, [k], widths=0.85, showextrema=False)
            violin["bodies"][0].set(facecolor=BLUE, edgecolor="none", alpha=0.35)
        axes.vlines(k, first, third, color=BLUE, linewidth=3)
        axes.plot(k, median, "o", color="white", markeredgecolor=BLUE, markersize=4.5)
        axes.text(
            k,
            1.01,
            _percent(scored.size / npmi.size),
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=7,
        )
    axes.set_xticks(orders)
    axes.set_xlabel(f"k (top: share of k-mers with at least {table.min_count:,} occurrences)")
    axes.set_ylabel(f"NPMI ({table.estimator})")
    first, last = (f"{np.nanmedian(table.npmi(k)):.2f} for k = {k}" for k in (orders[0], orders[-1]))
    set_title(figure, f"Median NPMI: {first}" + (f", {last}" if len(orders) > 1 else ""))
    return figure


def rank_against_frequency(table: NpmiTable, k: int) -> Figure:
    """Return the scatter plot of count and rank of all k-mers; CpG and low-complexity k-mers are coloured."""
    scores = scored(table, k)
    kmers, count = all_kmers(k), table.counts[k]
    known = np.isfinite(scores.npmi)
    cpg = np.char.find(kmers, b"CG") >= 0
    simple = _num_different_bases(k) <= 2
    figure = Figure(figsize=(4.6, 3.4))
    axes = figure.subplots()
    groups = [
        (known & ~cpg & ~simple, "other", FAINT),
        (known & cpg, "with CpG", ORANGE),
        (known & simple & ~cpg, "one or two distinct bases", BLUE),
    ]
    for members, label, colour in groups:
        _scatter(axes, count[members], scores.rank[members], colour, label)
    _log_axis(axes, count[known])
    _rank_axis(axes, "y", known.sum())
    for i in (np.nanargmax(scores.npmi), np.nanargmin(scores.npmi)):
        _name(axes, kmers[i], count[i], scores.rank[i])
    axes.set_xlabel(f"occurrences of the {k}-mer")
    axes.set_ylabel(f"NPMI rank ({table.estimator}), best at the top")
    _legend_above(axes)
    related = -_spearman(count[known], scores.rank[known])
    which = "Frequent" if related > 0 else "Rare"
    text = f"{which} {k}-mers rank better" if abs(related) >= _RELATED else f"Count and rank of {k}-mers hardly agree"
    set_title(figure, f"{text} (Spearman {related:.2f})")
    return figure


def two_genomes(table: NpmiTable, other: NpmiTable, k: int, name: str, other_name: str) -> Figure:
    """Return the scatter plot of the ranks of all k-mers in two tables, with Spearman's correlation."""
    here, there = scored(table, k), scored(other, k)
    both = np.isfinite(here.npmi) & np.isfinite(there.npmi)
    if both.sum() < 2:
        raise ValueError(f"{name} and {other_name} have no {k}-mer with a score in both")
    x, y = here.rank[both].astype(float), there.rank[both].astype(float)
    kmers = all_kmers(k)[both]
    cpg = np.char.find(kmers, b"CG") >= 0
    figure = Figure(figsize=(4.4, 4.4))
    axes = figure.subplots()
    most = max(x.max(), y.max())
    axes.plot([1, most], [1, most], color=FAINT, linewidth=0.8, zorder=0)
    _scatter(axes, x[~cpg], y[~cpg], BLUE, "without CpG")
    _scatter(axes, x[cpg], y[cpg], ORANGE, "with CpG")
    for axis in "xy":
        _rank_axis(axes, axis, most)
    for i in (np.argmin(x - y), np.argmax(x - y)):
        _name(axes, kmers[i], x[i], y[i])
    axes.set_aspect("equal")
    axes.set_xlabel(f"rank in {name}, best at the right")
    axes.set_ylabel(f"rank in {other_name}, best at the top")
    _legend_above(axes)
    set_title(figure, f"Ranks of {k}-mers in {name} and {other_name}: Spearman {_spearman(x, y):.2f}")
    return figure


def rank_map(table: NpmiTable, k: int) -> Figure:
    """Return the heat map of the ranks of all k-mers, with the first half as row and the second half as column."""
    if not 2 <= k <= _LONGEST_MAP_K:
        raise ValueError(f"the map of all {k}-mers is not supported; k must be 2 to {_LONGEST_MAP_K}")
    scores = scored(table, k)
    rank = np.where(np.isfinite(scores.npmi), scores.rank.astype(float), np.nan)
    num_left = k // 2
    num_right = k - num_left
    order = np.argsort(all_kmers(k), kind="stable")  # alphabetical
    figure = Figure(figsize=(4.6, 4.0) if num_left == num_right else (4.6, 2.8))
    axes = figure.subplots()
    image = axes.imshow(
        rank[order].reshape(4**num_left, 4**num_right),
        cmap=COLOUR_MAP + "_r",
        interpolation="nearest",
        aspect="auto" if num_left != num_right else "equal",
    )
    _base_ticks(axes, num_left, vertical=True)
    _base_ticks(axes, num_right, vertical=False)
    axes.set_ylabel(f"first {num_left} {'base' if num_left == 1 else 'bases'}")
    axes.set_xlabel(f"last {num_right} {'base' if num_right == 1 else 'bases'}")
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, label=f"NPMI rank ({table.estimator})", shrink=0.85)
    bar.ax.invert_yaxis()
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_formatter(THOUSANDS)
    cpg = np.char.find(all_kmers(k), b"CG") >= 0
    known = np.isfinite(rank)
    means = [f"{rank[known & chosen].mean():,.0f}" if (known & chosen).any() else "unknown" for chosen in (cpg, ~cpg)]
    set_title(figure, f"Mean rank of {k}-mers with CpG: {means[0]}, of the others: {means[1]}")
    return figure


def scored(table: NpmiTable, k: int) -> Scores:
    """Return the scores of the k-mers; raise ValueError if none has a score."""
    scores = table.scores(k)
    if not np.isfinite(scores.npmi).any():
        why = "NPMI is defined for k >= 2" if k == 1 else f"none occurs {table.min_count:,} times"
        raise ValueError(f"no {k}-mer has an NPMI: {why}")
    return scores


def _scatter(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, label: str) -> None:
    size = float(np.clip(4000 / max(x.size, 1), 0.5, 5))
    axes.scatter(x, y, s=size, c=colour, alpha=0.7, linewidths=0, label=label, rasterized=x.size > _MOST_VECTOR_POINTS)


def _name(axes: Axes, kmer: bytes, x: float, y: float) -> None:
    """Label the point of a k-mer, towards the centre of the axes."""
    on_the_right = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0] > 0.5
    axes.annotate(
        kmer.decode(),
        (x, y),
        xytext=(-6 if on_the_right else 6, 0),
        textcoords="offset points",
        fontsize=7,
        ha="right" if on_the_right else "left",
        va="center",
        color=INK,
        family="monospace",
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
    )
    axes.plot(x, y, "o", markersize=4, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=0.7)


def _legend_above(axes: Axes) -> None:
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0, ncols=3, columnspacing=1, handletextpad=0.2
    )
    for handle in legend.legend_handles:
        assert handle is not None
        handle.set(alpha=1, sizes=[18])


def _rank_axis(axes: Axes, axis: str, most: float) -> None:
    """Set the limits and ticks of a rank axis, with rank 1 at the end."""
    ticks = np.array(MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(0, most))
    inside = ticks[(ticks > 0) & (ticks <= most)]
    getattr(axes, f"set_{axis}lim")(1 + 1.04 * most, 1 - 0.04 * most)
    getattr(axes, f"set_{axis}ticks")([1, *inside])
    getattr(axes, f"{axis}axis").set_major_formatter(THOUSANDS)


def _log_axis(axes: Axes, values: np.ndarray) -> None:
    axes.set_xscale("log")
    decades = np.log10(values.max() / values.min())
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.xaxis.set_minor_formatter(NullFormatter())


def _base_ticks(axes: Axes, num_bases: int, *, vertical: bool) -> None:
    """Label the groups of k-mers with the same first one or two bases."""
    shown = min(num_bases, 2)
    step = 4 ** (num_bases - shown)
    labels = [kmer.decode() for kmer in np.sort(all_kmers(shown))]
    places = np.arange(4**shown) * step + (step - 1) / 2
    axis = axes.yaxis if vertical else axes.xaxis
    axis.set_ticks(places, [label + "." * (num_bases - shown) for label in labels])
    axis.set_tick_params(length=0, labelsize=6.5, labelrotation=0 if vertical else 90, labelfontfamily="monospace")


def _num_different_bases(k: int) -> np.ndarray:
    values = np.arange(4**k, dtype=np.uint32)
    present = np.zeros((4**k, 4), bool)
    for i in range(k):
        present[values, (values >> np.uint32(2 * i)) & np.uint32(3)] = True
    return present.sum(1)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Return the correlation of the ranks of two arrays; 0 for fewer than two values."""
    return float(np.corrcoef(_ranked(x), _ranked(y))[0, 1]) if len(x) > 1 else 0.0


def _ranked(values: np.ndarray) -> np.ndarray:
    """Return the ranks of values, float64[n]; ties are broken by order."""
    out = np.empty(values.size)
    out[np.argsort(values, kind="stable")] = np.arange(values.size)
    return out


def _percent(share: float) -> str:
    if share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"
