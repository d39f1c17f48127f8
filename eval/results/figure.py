"""Figures of an evaluation: a score by number of shots, and the arms of a study side by side."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from gemsdata.files.publish import publish
from gemsdata.inspect.plot.style import BLUE, PALETTE, figure_style, set_title

_COLUMNS = 3
_STYLES = ("-", "--", ":")


@figure_style()
def draw_scores(summary: pd.DataFrame, path: Path, *, of: str, metric: str, chance: dict[str, float]) -> None:
    """Publish PATH.png and PATH.svg: mean and 95 % interval of ``metric`` against shots.

    Parameters
    ----------
    summary
        columns dataset, shots, ``of``, mean, low, high (see `eval.results.statistics.summary`).
    of
        the column whose values are compared, one line each.
    metric
        the score on the axis.
    chance
        the score of guessing, by data set.
    """
    sets = list(dict.fromkeys(summary["dataset"]))
    names = list(dict.fromkeys(summary[of]))
    width = min(_COLUMNS, len(sets))
    height = -(-len(sets) // width)
    figure = Figure(figsize=(4.2 * width, 3.4 * height + 0.5), layout="constrained")
    panels = figure.subplots(height, width, squeeze=False).flatten()
    for panel, dataset in zip(panels, sets, strict=False):
        part = summary[summary["dataset"] == dataset]
        shots = sorted(part["shots"].unique())
        for number, name in enumerate(names):
            line = part[part[of] == name].sort_values("shots")
            shift = 1.02 ** (number - (len(names) - 1) / 2)  # so that the bars do not overlap
            panel.errorbar(
                line["shots"] * shift,
                line["mean"],
                yerr=[(line["mean"] - line["low"]).fillna(0), (line["high"] - line["mean"]).fillna(0)],
                color=PALETTE[number % len(PALETTE)],
                linestyle=_STYLES[number // len(PALETTE) % len(_STYLES)],
                marker="o",
                markersize=3.5,
                linewidth=1.3,
                capsize=2,
                label=name,
            )
        if dataset in chance:
            panel.axhline(chance[dataset], color="grey", linewidth=0.8, linestyle=":")
        panel.set_xscale("log")
        panel.set_xlim(shots[0] / 1.6, shots[-1] * 1.6)
        panel.set_xticks(shots, [str(size) for size in shots])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_title(dataset, fontsize=10)
        panel.set_xlabel("shots per class")
        panel.grid(alpha=0.25)
    for panel in panels[len(sets) :]:
        panel.set_visible(False)
    for row in range(height):
        panels[row * width].set_ylabel(metric)
    highest, lowest = (summary.loc[getattr(summary["mean"], find)()] for find in ("idxmax", "idxmin"))
    text = f"Mean {metric} from {lowest['mean']:.2f} ({lowest[of]}) to {highest['mean']:.2f} ({highest[of]})"
    set_title(figure, text, "95 % intervals; dotted: chance" if chance else "95 % intervals")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(names)), fontsize=9, frameon=False)
    _save(figure, path)


@figure_style()
def draw_arms(table: pd.DataFrame, summary: pd.DataFrame, path: Path, *, of: str, metric: str) -> None:
    """Publish PATH.png and PATH.svg: one panel for each data set and shots, a line for each value of ``of``.

    Parameters
    ----------
    table
        a row for each run, shown as a dot.
    summary
        mean, low, high of each dataset, shots and ``of``, shown as a diamond with a bar.
    """
    panels_of = list(dict.fromkeys(zip(summary["dataset"], summary["shots"], strict=True)))
    names = list(dict.fromkeys(summary[of]))
    height = {name: len(names) - 1 - i for i, name in enumerate(names)}
    figure = Figure(figsize=(2.2 + 2.9 * len(panels_of), 1.2 + 0.3 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(panels_of), sharey=True, squeeze=False)[0]
    for panel, (dataset, shots) in zip(panels, panels_of, strict=True):
        runs = table[(table["dataset"] == dataset) & (table["shots"] == shots)]
        means = summary[(summary["dataset"] == dataset) & (summary["shots"] == shots)]
        panel.plot(runs[metric], runs[of].map(height), "o", color="0.65", markersize=3)
        panel.errorbar(
            means["mean"],
            means[of].map(height),
            xerr=[(means["mean"] - means["low"]).fillna(0), (means["high"] - means["mean"]).fillna(0)],
            fmt="D",
            color=BLUE,
            markersize=4,
            capsize=2,
            linewidth=1,
        )
        spread = runs[metric].max() - runs[metric].min()
        panel.set_xlim(runs[metric].min() - 0.2 * spread - 1e-3, runs[metric].max() + 0.2 * spread + 1e-3)
        panel.set_title(f"{dataset}, {shots} shots", fontsize=10)
        panel.set_xlabel(metric)
        panel.grid(alpha=0.25)
    panels[0].set_yticks(list(height.values()), list(height))
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    for kind in ("png", "svg"):
        with publish(path.with_suffix(f".{kind}")) as stream:
            figure.savefig(stream, format=kind, dpi=150)
