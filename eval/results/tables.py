"""Markdown tables of an evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from eval.results.statistics import least_p
from gemsdata.cli.output import print_json


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def print_results(found: pd.DataFrame, text: Path, as_json: bool) -> None:
    """Print the rows of a table of runs as JSON, or the Markdown file of the results."""
    if as_json:
        print_json(json.loads(found.to_json(orient="records")))
    else:
        print(text.read_text())


def mean_with_interval(mean: float, low: float, high: float, *, digits: int = 3) -> str:
    """Return ``0.744 [0.738, 0.750]``; the mean alone without an interval, a dash without a value."""
    if math.isnan(mean):
        return "–"
    shown = f"{mean:.{digits}f}"
    return shown if math.isnan(low) else f"{shown} [{low:.{digits}f}, {high:.{digits}f}]"


def wide_table(summary: pd.DataFrame, *, rows: Sequence[str], columns: str, best: str = "row", digits: int = 3) -> str:
    """Return means with intervals as Markdown: a line for each combination of ``rows``, a column for each ``columns``.

    Parameters
    ----------
    summary
        the result of `eval.results.statistics.summary`.
    best
        the highest mean of each "row" or each "column" is bold.
    """
    names = list(dict.fromkeys(summary[columns]))
    groups = list(rows) if best == "row" else [columns]
    highest = summary.groupby(groups)["mean"].transform("max")
    alone = summary.groupby(groups)["mean"].transform("size") == 1
    shown = [
        mean_with_interval(entry.mean, entry.low, entry.high, digits=digits)
        if not entry.mean >= top or single
        else f"**{mean_with_interval(entry.mean, entry.low, entry.high, digits=digits)}**"
        for entry, top, single in zip(summary.itertuples(), highest, alone, strict=True)
    ]
    texts = summary.assign(text=shown)
    lines = []
    for key, part in texts.groupby(list(rows), sort=False):
        found = dict(zip(part[columns], part["text"], strict=True))
        lines.append([*map(str, key), *(found.get(name, "–") for name in names)])
    return markdown([*rows, *names], lines)


def comparisons_table(found: pd.DataFrame, *, digits: int = 3) -> str:
    """Return the table of `eval.results.statistics.paired`, with a note if there are too few pairs for any result."""
    lines = [
        [
            str(entry.where), f"{entry.a} − {entry.b}", str(entry.num_pairs),
            mean_with_interval(entry.difference, entry.low, entry.high, digits=digits),
            f"{entry.wins}/{entry.ties}/{entry.losses}", f"{entry.p:.2g}", f"{entry.p_holm:.2g}",
        ]
        for entry in found.itertuples()
    ]  # fmt: skip
    text = markdown(["where", "difference", "pairs", "mean", "wins/ties/losses", "p", "p (Holm)"], lines)
    size_of_family = found.groupby(found["where"] == "all")["p"].transform("size")
    least = [least_p(int(num)) for num in found["num_pairs"]]
    few = {
        (int(num), p) for num, p, size in zip(found["num_pairs"], least, size_of_family, strict=True) if p * size > 0.05
    }
    if few:
        listed = ", ".join(f"{num} pairs {p:.2g}" for num, p in sorted(few))
        text += (
            f"\n\nThe smallest possible p before correction: {listed}. After the correction such lines cannot reach"
            " 0.05."
        )
    return text
