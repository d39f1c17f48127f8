"""Tables of an evaluation as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from eval.statistics import least_p


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean_with_interval(mean: float, low: float, high: float, *, digits: int = 3) -> str:
    """Return ``0.744 [0.738, 0.750]``; the mean alone where there is no interval, a dash where there is no value."""
    if math.isnan(mean):
        return "–"
    shown = f"{mean:.{digits}f}"
    return shown if math.isnan(low) else f"{shown} [{low:.{digits}f}, {high:.{digits}f}]"


def wide_table(summary: pd.DataFrame, *, rows: Sequence[str], columns: str, digits: int = 3) -> str:
    """Return a Markdown table of means with intervals: a line for each combination of ``rows``, a column for each value
    of ``columns``; the best mean of a line is bold.

    ``summary`` is what `eval.statistics.summary` returns.
    """
    names = list(dict.fromkeys(summary[columns]))
    lines = []
    for key, part in summary.groupby(list(rows), sort=False):
        found = part.set_index(columns)
        best = found["mean"].max()
        cells = []
        for name in names:
            if name not in found.index:
                cells.append("–")
                continue
            entry = found.loc[name]
            text = mean_with_interval(entry["mean"], entry["low"], entry["high"], digits=digits)
            cells.append(f"**{text}**" if entry["mean"] == best and len(part) > 1 else text)
        lines.append([*map(str, key), *cells])
    return markdown([*rows, *names], lines)


def comparisons_table(found: pd.DataFrame, *, digits: int = 3) -> str:
    """Return `eval.statistics.paired` as Markdown, with a remark where the pairs are too few to show anything."""
    lines = [
        [
            str(entry.where), f"{entry.a} − {entry.b}", str(entry.num_pairs),
            mean_with_interval(entry.difference, entry.low, entry.high, digits=digits),
            f"{entry.wins}/{entry.ties}/{entry.losses}", f"{entry.p:.2g}", f"{entry.p_holm:.2g}",
        ]
        for entry in found.itertuples()
    ]  # fmt: skip
    text = markdown(["where", "difference", "pairs", "mean", "wins/ties/losses", "p", "p (Holm)"], lines)
    few = sorted({int(num) for num in found["num_pairs"] if least_p(int(num)) > 0.05})
    if few:
        listed = ", ".join(str(num) for num in few)
        text += f"\n\nWith {listed} pairs no p below {least_p(few[-1]):.2g} is possible: such lines can show nothing."
    return text
