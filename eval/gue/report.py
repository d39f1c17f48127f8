"""gue.md: the table of CM-GEMS with published and new results side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from eval.gue.published import CM_GEMS, DNABERT_2
from eval.gue.tasks import TASKS, Task
from eval.results.statistics import interval, paired
from eval.results.tables import comparisons_table, markdown, mean_with_interval

_BOTH = ("score", "unseen_score")
_OTHER_PAPER = "dnabert-2-paper:"
_PUBLISHED = CM_GEMS | {_OTHER_PAPER + name: figures for name, figures in DNABERT_2.items()}


def published_names(names: Sequence[str]) -> list[str]:
    """Return the published columns of these names, by default those of CM-GEMS; ValueError for an unknown one."""
    for name in names:
        if name not in _PUBLISHED:
            raise ValueError(f"published column {name!r} is unknown: use {', '.join(_PUBLISHED)}")
    return list(names or CM_GEMS)


def report(
    found: pd.DataFrame,
    *,
    published: Sequence[str],
    missing: Mapping[str, Sequence[str]],
    max_steps: int | None,
    pooling: str | None = None,
) -> str:
    """Return the text of gue.md.

    Parameters
    ----------
    found
        a row for each run: task, model, seed, score, unseen_score, unseen_rows, test_rows, test_rows_cut.
    published
        columns of published results, see `published_names`.
    missing
        files that tasks lack.
    max_steps
        updates of every training, if they replace the recipe's.
    pooling
        pooling of the classifiers, if it replaces that of the architectures.
    """
    seeds = sorted(found["seed"].unique())
    parts = [
        "# GUE\n",
        f"Percent on the official test sets: MCC, for Covid macro F1. Published results are of one seed each; ours of"
        f" {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
        f"{'' if len(seeds) > 1 else ', so without an interval'}."
        f"{' In brackets the 95 % interval over seeds.' if len(seeds) > 1 else ''}\n",
    ]
    if max_steps:
        parts.append(f"**Not the published protocol:** every training ended after {max_steps} updates.\n")
    if pooling:
        parts.append(f"**Not the published protocol:** classifiers have {pooling} pooling.\n")
    parts += [_scores_table(found, published), ""]
    cut = found[found["test_rows_cut"] > 0].drop_duplicates(["model", "task"])
    if len(cut):
        parts.append("Test rows that are longer than the model's input and were truncated:\n")
        for name, part in cut.groupby("model", sort=False):
            shares = [f"{row.test_rows_cut} of {row.test_rows} of {row.task}" for row in part.itertuples()]
            parts.append(f"* {name}: {', '.join(shares)}")
        parts.append("")
    parts += ["## Test rows that are also in train or dev\n", _unseen_table(found), ""]
    if found["model"].nunique() > 1:
        means = found.groupby(["task", "model"], sort=False, as_index=False)["score"].mean()
        means["score"] *= 100
        parts += [
            "## Ours among each other\n",
            "Means over seeds, paired by task.\n",
            comparisons_table(paired(means, of="model", metric="score", pair_by=["task"]), digits=2),
            "",
        ]
    left_out = [one.name for one in TASKS if one.name not in set(found["task"]) and one.name not in missing]
    if missing or left_out:
        parts.append("## Not run\n")
        parts += [f"* {name}: no {', '.join(files)}" for name, files in missing.items()]
        parts += [f"* {name}: not asked for" for name in left_out]
        parts.append("")
    return "\n".join(parts)


def _scores_table(found: pd.DataFrame, published: Sequence[str]) -> str:
    """Return a line for each task in the published order, with means after the human and the other tasks."""
    entries, ran = list(dict.fromkeys(found["model"])), set(found["task"])

    def line(group: str, dataset: str, tasks: Sequence[Task]) -> list[str]:
        theirs = [_percent(_published_mean(name, tasks)) for name in published]
        return [group, dataset, *theirs, *(_mean_over_seeds(found, tasks, entry) for entry in entries)]

    human, covid = [one for one in TASKS if one.species == "Human"], [one for one in TASKS if one.metric == "f1"]
    other = [one for one in TASKS if one not in (*human, *covid)]
    lines = []
    for species, tasks in (("Human", human), ("non-Human", other)):
        lines += [line(one.group, one.dataset, [one]) for one in tasks]
        lines.append(line(f"**Mean ({species})**", f"all {len(tasks)}", tasks))
        here = [one for one in tasks if one.name in ran]
        if here and len(here) < len(tasks):
            lines.append(line(f"Mean ({species})", f"the {len(here)} that ran", here))
    lines += [line(one.group, f"{one.dataset}, F1", [one]) for one in covid if one.name in ran]
    return markdown(["task", "dataset", *published, *entries], lines)


def _unseen_table(found: pd.DataFrame) -> str:
    """Return a line for each task that ran: number of repeated test rows, scores with and without them."""
    entries = list(dict.fromkeys(found["model"]))
    lines = []
    for one in TASKS:
        rows = found[found["task"] == one.name]
        if rows.empty:
            continue
        num_rows, num_unseen = int(rows["test_rows"].iloc[0]), int(rows["unseen_rows"].iloc[0])
        scores = [_mean_over_seeds(found, [one], entry, name) for entry in entries for name in _BOTH]
        lines.append([one.group, one.dataset, str(num_rows), str(num_rows - num_unseen), *scores])
    columns = [title for entry in entries for title in (entry, f"{entry}, others only")]
    return (
        "Repeated: rows whose sequence, or its reverse complement, is that of a train or dev row. Others only: the"
        " score without them.\n\n" + markdown(["task", "dataset", "test rows", "repeated", *columns], lines)
    )


def _published_mean(name: str, tasks: Sequence[Task]) -> float:
    """Return the mean of a published column over tasks, NaN if one is missing."""
    figures = dict(zip((one.name for one in TASKS), _PUBLISHED[name], strict=False))  # CM-GEMS has no Covid
    return float(np.mean([figures.get(one.name, math.nan) for one in tasks]))


def _mean_over_seeds(found: pd.DataFrame, tasks: Sequence[Task], entry: str, column: str = "score") -> str:
    """Return the mean over seeds, with its interval, of the mean over tasks; a dash if one has not run."""
    own = found[(found["model"] == entry) & found["task"].isin([one.name for one in tasks])]
    if own["task"].nunique() < len(tasks):
        return _percent(math.nan)
    mean, low, high, _ = interval(100 * own.groupby("seed")[column].mean().to_numpy())
    return mean_with_interval(mean, low, high, digits=2)


def _percent(value: float) -> str:
    return mean_with_interval(value, math.nan, math.nan, digits=2)
