"""Tables and figure of a few-shot evaluation, together with published results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from eval.fewshot.tasks import PAIR_BY
from eval.results.figure import draw_scores
from eval.results.runs import write_table
from eval.results.statistics import paired, summary
from eval.results.tables import comparisons_table, wide_table
from gemsdata.files.publish import write_text


def read_published(path: str) -> pd.DataFrame:
    """Read published results: dataset, shots, model, and accuracy or mcc or both, between -1 and 1."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist; give a CSV file of published results with --published")
    found = pd.read_csv(path)
    lacking = {"dataset", "shots", "model"} - set(found.columns)
    metrics = [name for name in ("accuracy", "mcc") if name in found]
    if lacking or not metrics:
        raise ValueError(f"{path} has columns {', '.join(found.columns)}; give dataset, shots, model, accuracy")
    if (found[metrics].abs() > 1).any(axis=None):
        raise ValueError(f"{path} has values above 1; give fractions, such as 0.715 for 71.5 %")
    return found


def write_results(
    found: pd.DataFrame,
    out: Path,
    *,
    published: pd.DataFrame | None,
    chance: dict[str, float],
    remarks: Sequence[str],
) -> None:
    """Write results.parquet, comparisons.parquet, results.md and accuracy.png / .svg."""
    write_table(found, out / "results.parquet")
    parts = ["# Few-shot evaluation"]
    for metric, name in (("accuracy", "Accuracy"), ("mcc", "MCC")):
        means = summary(found, by=["dataset", "shots", "model"], metric=metric)
        parts.append(
            f"## {name}\n\nMean and Student's 95 % interval over {_seeds_and_draws(found)}; the best of a line is bold."
            "\n\n" + wide_table(_beside(means, published, metric), rows=["dataset", "shots"], columns="model")
        )
        if metric == "accuracy":
            draw_scores(means, out / "accuracy", of="model", metric="accuracy", chance=chance)
    if found["model"].nunique() > 1:
        tests = paired(found, of="model", metric="accuracy", pair_by=PAIR_BY, within="dataset")
        write_table(tests, out / "comparisons.parquet")
        parts.append(
            "## Differences in accuracy\n\nPairs of runs of one data set, shots, draw and seed; Wilcoxon's"
            " signed-rank test, two-sided, with Holm's correction over the lines of all sets together, and over the"
            " others. Runs on one training set are not independent of each other, so these p are probably too"
            " small.\n\n" + comparisons_table(tests)
        )
    parts.append("## Data\n\n" + "\n".join(f"* {remark}" for remark in remarks))
    write_text(out / "results.md", "\n\n".join(parts) + "\n")


def _beside(means: pd.DataFrame, published: pd.DataFrame | None, metric: str) -> pd.DataFrame:
    """Return the means, with the published results of the same tasks as additional models."""
    if published is None or metric not in published:
        return means
    ran = set(zip(means["dataset"], means["shots"], strict=True))
    same = [task in ran for task in zip(published["dataset"], published["shots"], strict=True)]
    rows = published[same].rename(columns={metric: "mean"})
    rows = rows.assign(model=rows["model"] + " (published)", low=np.nan, high=np.nan, num=1)
    return pd.concat([means, rows[means.columns]], ignore_index=True)


def _seeds_and_draws(found: pd.DataFrame) -> str:
    sizes = found.groupby(["dataset", "shots", "model"]).agg({"draw": "nunique", "seed": "nunique"})
    draws, seeds = (sorted({int(value) for value in sizes[column]}) for column in ("draw", "seed"))
    return f"{' or '.join(map(str, seeds))} seeds and {' or '.join(map(str, draws))} draws"
