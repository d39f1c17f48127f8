"""results.md, the tables and the figure of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from eval.compare.study import Study
from eval.fewshot.tasks import PAIR_BY
from eval.results.figure import draw_arms
from eval.results.runs import write_table
from eval.results.statistics import paired, summary
from eval.results.tables import comparisons_table, markdown, wide_table
from gemsdata.files.publish import write_text
from train.config import PretrainConfig
from train.run_log import read_metrics


def pretrainings(runs: Sequence[PretrainConfig]) -> pd.DataFrame:
    """Return a row for each complete pretraining: arm, seed, rows used, perplexity with frozen masks, stage switch."""
    rows = []
    for run in runs:
        last = [line for line in read_metrics(Path(run.output_dir) / "metrics.jsonl") if "valid_perplexity" in line][-1]
        rows.append({
            "arm": Path(run.output_dir).parent.name,
            "seed": run.seed,
            "steps": last["step"],
            "rows": last["step"] * (run.batch_rows or 0),
            "masking_budget": run.masking_budget,
            "valid_perplexity": last["valid_perplexity"],
            "unigram_perplexity": last["unigram_perplexity"],
            "switched_at": last["stage_log"][0][0] if last["stage_log"] else None,
        })  # fmt: skip
    return pd.DataFrame(rows)


def write_results(found: pd.DataFrame, *, study: Study, runs: pd.DataFrame, remarks: Sequence[str], out: Path) -> None:
    """Write results.md, the Parquet files and the figure.

    ``found`` has a row for each fine-tuning, ``runs`` one for each pretraining.
    """
    seeds = found["seed"].nunique()
    of_draws = ["dataset", "shots", "model", "seed"]
    of_seeds = found.groupby(of_draws, sort=False)["accuracy"].mean().reset_index()  # draws are not independent
    means = summary(of_seeds, by=of_draws[:-1], metric="accuracy")
    tasks = means.assign(task=means["dataset"] + " " + means["shots"].astype(str))
    tests = paired(
        found,
        of="model",
        metric="accuracy",
        pair_by=PAIR_BY,
        within="dataset",
        pairs=study.comparisons or None,
        unit="seed",
    )
    shown = ", ".join(f"{name} = {value}" for name, value in study.pretrain.items())
    text = f"""# Study of {len(study.arms)} way{"s" if len(study.arms) > 1 else ""} to pretrain

Pretraining: {shown}; {seeds} of {len(study.seeds)} seeds. Arms with their own options: {
        "; ".join(f"{arm.name} ({arm.masking}, {arm.pretrain})" for arm in study.arms if arm.pretrain) or "none"
    }.

## Accuracy

Mean and Student's 95 % interval over {seeds} seeds; each is a pretraining and the mean of its {study.draws} draws.

{wide_table(tasks, rows=["model"], columns="task", best="column")}

## Differences in accuracy

The comparisons were planned in the study's file. Means and their 95 % intervals are over seeds, which are independent.
Pairs are runs of one data set, shots, draw and seed, compared by Wilcoxon's signed-rank test, two-sided, with Holm's
correction over the lines of all sets together, and over the others. The runs of a seed share a pretraining, so these p
are too small: consider them together with the intervals.

{comparisons_table(tests)}

## Pretrainings

Perplexity of the validation rows at the end, with the same masks for all arms.

{_perplexities(runs)}

## Data

{chr(10).join(f"* {remark}" for remark in remarks)}
"""
    write_text(out / "results.md", text)
    for name, frame in (("results", found), ("comparisons", tests), ("pretrainings", runs)):
        write_table(frame, out / f"{name}.parquet")
    draw_arms(found, means, out / "study", of="model", metric="accuracy")


def _perplexities(runs: pd.DataFrame) -> str:
    """Return a table of the final perplexity and the switches of each arm."""
    lines = []
    for row in summary(runs, by=["arm"], metric="valid_perplexity").itertuples():
        switches = runs["switched_at"][runs["arm"] == row.arm]
        shown = ", ".join("–" if pd.isna(step) else f"{step:.0f}" for step in switches)
        lines.append([row.arm, f"{row.mean:.0f} [{row.low:.0f}, {row.high:.0f}]", shown])
    return markdown(["arm", "perplexity", "switched at step"], lines)
