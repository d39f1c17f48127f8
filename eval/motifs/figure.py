"""Figure: rank against match, the top and its controls, and logos of motifs over the k-mers that match them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import logomaker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.ticker import MaxNLocator

from eval.motifs.files import LETTERS, Motif
from eval.motifs.matches import Alignments
from eval.motifs.ranking import Pairs
from eval.motifs.statistics import Comparison, Correlation
from gemsdata.genome.vocab import reverse_complement
from gemsdata.inspect.plot.style import BASE_COLOURS, BLUE, FAINT, INK, RED, THOUSANDS

LOGO_P_VALUE = 1e-3
"""largest uncorrected p-value of TOMTOM for which a k-mer is shown below a motif"""
_MOST_LOGOS = 6
_RUNNING_PAIRS = 100
_WIDTH, _UPPER_HEIGHT, _ROW_HEIGHT = 7.0, 2.65, 1.75
"""inches"""
_NAMED_KMERS = 5


@dataclass(frozen=True)
class Cluster:
    """A motif and the top k-mers that match it best."""

    motif: int
    members: np.ndarray
    """numbers of k-mers, int64[n], the best match first"""


def clusters(found: Alignments, most: int = _MOST_LOGOS) -> list[Cluster]:
    """Choose motifs greedily, each time the one that best explains the remaining k-mers; each k-mer is in one cluster.

    A motif explains a k-mer by the number of decades by which its p-value is below 1e-3.
    """
    weight = np.maximum(0, np.log10(LOGO_P_VALUE) - np.log10(found.p_value))
    chosen: list[Cluster] = []
    while len(chosen) < most and weight.max(initial=0) > 0:
        motif = int(weight.sum(axis=0).argmax())
        members = np.flatnonzero(weight[:, motif])
        chosen.append(Cluster(motif, members[np.argsort(-weight[members, motif], kind="stable")]))
        weight[members] = 0
    return chosen


def draw(
    pairs: Pairs,
    score: np.ndarray,
    top: np.ndarray,
    found: Alignments,
    motifs: Sequence[Motif],
    compared: Mapping[str, Comparison],
    rho: Correlation,
) -> Figure:
    """Draw the figure; ``score`` float64[P], ``top`` bool[P], ``found`` the alignments of the top pairs."""
    chosen = clusters(found)
    kmers = [kmer for kmer, is_top in zip(pairs.kmers, top, strict=True) if is_top]
    height = _UPPER_HEIGHT + _ROW_HEIGHT * -(-len(chosen) // 2)
    # Positions are fixed, because the last digits of a layout solver differ between runs. layout="none" is reset by #
    # the first savefig, after which matplotlib reads the settings again.
    figure = Figure(figsize=(_WIDTH, height), layout=PlaceHolderLayoutEngine(True, False))

    def axes(left: float, top: float, width: float, tall: float) -> Axes:
        """Add axes, in inches from the upper left corner."""
        return figure.add_axes((left / _WIDTH, 1 - (top + tall) / height, width / _WIDTH, tall / height))

    _rank_against_match(axes(0.5, 0.35, 3.5, 1.8), pairs, score, top, rho)
    _beside_controls(axes(5.2, 0.35, 1.65, 1.8), compared)
    for i, cluster in enumerate(chosen):
        left, down = (0.5, 4.0)[i % 2], _UPPER_HEIGHT + _ROW_HEIGHT * (i // 2)
        bits, letters = axes(left, down + 0.25, 2.85, 0.65), axes(left, down + 1.0, 2.85, 0.45)
        _logo(bits, letters, cluster, motifs[cluster.motif], kmers, found)
    return figure


def _rank_against_match(axes: Axes, pairs: Pairs, score: np.ndarray, top: np.ndarray, rho: Correlation) -> None:
    for members, colour, label in ((~top, FAINT, "other pairs"), (top, RED, "top")):
        axes.scatter(pairs.rank[members], score[members], s=4, c=colour, linewidths=0, label=label, rasterized=True)
    order = np.argsort(pairs.rank, kind="stable")
    width = min(_RUNNING_PAIRS, order.size)
    window = np.ones(width) / width
    axes.plot(
        np.convolve(pairs.rank[order], window, "valid"),
        np.convolve(score[order], window, "valid"),
        color=BLUE,
        label=f"mean of {width} pairs",
    )
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.set_xlabel("NPMI rank")
    axes.set_ylabel(r"best motif: $-\log_{10}\,p$")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0, handletextpad=0.3, columnspacing=1)
    axes.text(0.98, 0.96, f"Spearman's ρ = {rho.rho:.2f}", transform=axes.transAxes, ha="right", va="top", fontsize=8)


def _beside_controls(axes: Axes, compared: Mapping[str, Comparison]) -> None:
    for place, comparison in enumerate(compared.values()):
        axes.errorbar(
            comparison.mean_control,
            place,
            xerr=1.96 * comparison.spread,
            fmt="o",
            color=INK,
            markersize=4,
            linewidth=1,
            capsize=2,
        )
        axes.plot(comparison.mean_top, place, "D", color=RED, markersize=5)
    axes.plot([], [], "D", color=RED, markersize=5, label="top")
    axes.plot([], [], "o-", color=INK, markersize=4, linewidth=1, label="controls, 95 % of permutations")
    axes.set_yticks(range(len(compared)), [name.replace(" and ", "\nand ") for name in compared])
    axes.set_ylim(len(compared) - 0.5, -0.5)
    axes.set_xlabel(r"mean $-\log_{10}\,p$")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0, handletextpad=0.3, columnspacing=1)


def _logo(upper: Axes, lower: Axes, cluster: Cluster, motif: Motif, kmers: Sequence[str], found: Alignments) -> None:
    """Draw a motif in bits and, below it, the aligned k-mers of its cluster."""
    width, k = motif.probabilities.shape[1], len(kmers[0])
    placed = []
    for i in cluster.members:
        kmer, start = kmers[i], int(found.offset[i, cluster.motif])
        if found.reverse[i, cluster.motif]:
            kmer, start = reverse_complement(kmer), width - k - start
        placed.append((kmer, start))
    first = min(0, *(start for _, start in placed))
    last = max(width, *(start + k for _, start in placed))
    counts = pd.DataFrame(0.0, index=np.arange(first, last), columns=list(LETTERS))
    for kmer, start in placed:
        for column, base in enumerate(kmer, start):
            counts.loc[column, base] += 1
    frequencies = pd.DataFrame(motif.probabilities.T, columns=list(LETTERS))
    bits = logomaker.transform_matrix(frequencies, from_type="probability", to_type="information")
    for axes, matrix in ((upper, bits), (lower, counts)):
        logomaker.Logo(matrix, ax=axes, color_scheme=BASE_COLOURS, show_spines=False)
        axes.spines[["left", "bottom"]].set_visible(True)
        axes.set_xticks([])
        axes.set_xlim(first - 0.5, last - 0.5)
    upper.set_ylim(0, 2)
    upper.set_yticks([0, 1, 2])
    upper.set_ylabel("bits", fontsize=8)
    lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    lower.set_ylabel("k-mers", fontsize=8)
    upper.set_title(motif.name, fontsize=8.5, loc="left", pad=3)
    names = ", ".join(kmers[i] for i in cluster.members[:_NAMED_KMERS])
    more = cluster.members.size - _NAMED_KMERS
    lower.set_xlabel(names + (f" and {more} more" if more > 0 else ""), fontsize=7, family="monospace")
