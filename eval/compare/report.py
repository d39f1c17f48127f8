"""results.md, the tables and the figure of a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eval.compare.study import Arm, Study, set_means
from eval.fewshot.tasks import PAIR_BY
from eval.results.figure import draw_arms
from eval.results.runs import write_table
from eval.results.statistics import paired, summary
from eval.results.tables import comparisons_table, markdown, mean_with_interval, wide_table
from gemsdata.files.publish import write_text
from gemsdata.views.options import ViewOptions
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
            **_seen(run),
            "masking_budget": run.masking_budget,
            "valid_perplexity": last["valid_perplexity"],
            "unigram_perplexity": last["unigram_perplexity"],
            "switched_at": last["stage_log"][0][0] if last["stage_log"] else None,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _seen(run: PretrainConfig) -> dict[str, float]:
    """Return the tokens that a pretraining has seen, [CLS] and [SEP] included, and the hours of its updates."""
    tokens = seconds = before = 0.0
    for line in read_metrics(Path(run.output_dir) / "metrics.jsonl"):
        if "rows_per_s" not in line:
            continue
        took_s = (line["step"] - before) * (run.batch_rows or 0) / line["rows_per_s"]
        before = line["step"]
        tokens += took_s * line["tokens_per_s"]
        seconds += took_s
    return {"tokens": round(tokens), "hours": seconds / 3600}


def write_results(found: pd.DataFrame, *, study: Study, runs: pd.DataFrame, remarks: Sequence[str], out: Path) -> None:
    """Write results.md, the Parquet files and the figure.

    ``found`` has a row for each fine-tuning, ``runs`` one for each pretraining.
    """
    seeds = found["seed"].nunique()
    of_draws = ["dataset", "shots", "model", "seed"]
    of_seeds = found.groupby(of_draws, sort=False)["accuracy"].mean().reset_index()  # draws are not independent
    means = summary(of_seeds, by=of_draws[:-1], metric="accuracy")
    tasks = means.assign(task=means["dataset"] + " " + means["shots"].astype(str))
    tests = _paired_runs(found, study)
    text_of_means, of_means = _means_of_sets(found, study)
    text = f"""# Study of {len(study.arms)} way{"s" if len(study.arms) > 1 else ""} to pretrain

Pretraining: {_shown(study.pretrain)}; {seeds} of {len(study.seeds)} seeds. Arms with their own options: {
        "; ".join(f"{arm.name} ({_options(arm)})" for arm in study.arms if _options(arm) != arm.masking) or "none"
    }.

## Mean of the data sets

Mean over data sets of the mean over shots and draws; Student's 95 % interval over {seeds} seeds.

{text_of_means}

## Accuracy

Mean and Student's 95 % interval over {seeds} seeds; each is a pretraining and the mean of its {study.draws} draws.

{wide_table(tasks, rows=["model"], columns="task", best="column")}

{_differences(tests) if study.tested else ""}## Pretrainings

Perplexity of the validation rows at the end, with the same masks for all arms; tokens seen, with [CLS] and [SEP], and
hours of the updates of one pretraining.

{_perplexities(runs)}

## Data

{chr(10).join(f"* {remark}" for remark in remarks)}
"""
    write_text(out / "results.md", text)
    frames = {"results": found, "comparisons": tests, "comparisons_of_means": of_means, "pretrainings": runs}
    for name, frame in frames.items():
        write_table(frame, out / f"{name}.parquet")
    draw_arms(found, means, out / "study", of="model", metric="accuracy")


def _perplexities(runs: pd.DataFrame) -> str:
    """Return a table of the final perplexity and the switches of each arm."""
    lines = []
    for row in summary(runs, by=["arm"], metric="valid_perplexity").itertuples():
        switches = runs["switched_at"][runs["arm"] == row.arm]
        shown = ", ".join("–" if pd.isna(step) else f"{step:.0f}" for step in switches)
        own = runs[runs["arm"] == row.arm]
        lines.append([
            row.arm,
            mean_with_interval(row.mean, row.low, row.high, digits=0),
            shown,
            f"{own['tokens'].mean():,.0f}",
            f"{own['hours'].mean():.2f}",
        ])  # fmt: skip
    return markdown(["arm", "perplexity", "switched at step", "tokens", "hours"], lines)


def _options(arm: Arm) -> str:
    """Return the masking of an arm and its own options, as text."""
    own = {**arm.pretrain, **arm.finetune, "weights_of": arm.weights_of, "shards": arm.shards}
    return ", ".join([arm.masking, *filter(None, [_shown({name: own[name] for name in own if own[name] is not None})])])


def _shown(options: Mapping[str, Any]) -> str:
    """Return options as text; those of a view without its defaults."""
    flat = {}
    for name, value in options.items():
        if isinstance(value, ViewOptions):
            given, default = dataclasses.asdict(value), dataclasses.asdict(ViewOptions())
            flat |= {key: given[key] for key in given if given[key] != default[key]}
        else:
            flat[name] = value
    return ", ".join(f"{name} = {value}" for name, value in flat.items())


def _means_of_sets(found: pd.DataFrame, study: Study) -> tuple[str, pd.DataFrame]:
    """Return tables of the means over data sets, and their comparisons, whose pairs are seeds."""
    by_seed = set_means(found)
    total = summary(by_seed, by=["model"], metric="accuracy").assign(score="accuracy")
    tests = paired(by_seed, of="model", metric="accuracy", pair_by=["seed"], pairs=study.comparisons or None)
    text = wide_table(total, rows=["model"], columns="score", best="column")
    if not study.tested:
        return f"{text}\n\nA screening: it ranks the arms and tests nothing.", tests
    said = "Pairs are seeds, which are independent: Wilcoxon's signed-rank test, two-sided, with Holm's correction."
    return f"{text}\n\n{said}\n\n{comparisons_table(tests)}", tests


def _paired_runs(found: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Return the planned comparisons, of all sets and of each; pairs are runs."""
    return paired(
        found,
        of="model",
        metric="accuracy",
        pair_by=PAIR_BY,
        within="dataset",
        pairs=study.comparisons or None,
        unit="seed",
    )


def _differences(tests: pd.DataFrame) -> str:
    """Return the section of the comparisons over runs."""
    return f"""## Differences in accuracy

The comparisons were planned in the study's file. Means and their 95 % intervals are over seeds, which are independent.
Pairs are runs of one data set, shots, draw and seed, compared by Wilcoxon's signed-rank test, two-sided, with Holm's
correction over the lines of all sets together, and over the others. The runs of a seed share a pretraining, so these p
are too small: consider them together with the intervals.

{comparisons_table(tests)}

"""
