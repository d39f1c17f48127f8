"""GUE: every task with its published recipe, for each model and seed, together with published results.

    python -m eval.gue --data GUE --list
    python -m eval.gue --data GUE --models mine=RUN/final --controls --output-dir OUT --seeds 1 2 3

OUT/gue.parquet has a row for each run, OUT/gue.md the table in the layout of CM-GEMS. The same command continues after
an interruption.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, matthews_corrcoef

from eval.gue.report import published_names, report
from eval.gue.tasks import SPLITS, TASKS, Task, task, unseen
from eval.results.jobs import CONTINUES, default_workers, threads_of_each
from eval.results.runs import Model, Run, parse_models, read_run, run_all, write_table
from eval.results.tables import print_results
from gemsdata.cli.output import is_quiet, print_json
from gemsdata.files.publish import write_text
from train.finetune import FinetuneConfig
from train.options import option, parsed
from train.pooling import POOLINGS
from train.program import exit_status


@dataclass(frozen=True, kw_only=True)
class GueConfig:
    """Options of python -m eval.gue."""

    data: str = option("folder of GUE: EMP, mouse, prom, splice, tf, virus")
    models: tuple[str, ...] = option("models as NAME=FOLDER, Hugging Face folders with their own tokenizers", ())
    output_dir: str | None = option("folder of the results; the same folder again continues", None)
    list: bool = option("list the tasks and their missing files, and exit", False)
    tasks: tuple[str, ...] = option("names of tasks; default: all tasks with complete files", ())
    seeds: tuple[int, ...] = option(
        "random seeds of the new head, dropout and the order of rows; the papers have 42 only", (42,)
    )
    controls: bool = option("also evaluate each model with random weights", False)
    published: tuple[str, ...] = option("published columns to show; default: those of CM-GEMS", ())
    max_steps: int | None = option(
        "updates of every training instead of the recipe's; deviates from the published protocol", None
    )
    pooling: str | None = option(
        f"classify by the states of {', '.join(POOLINGS)}; default: each architecture's own classifier", None
    )
    mixed_precision: str | None = option("precision: no, bf16 or fp16", None)
    trust_remote_code: bool = option("run the Python code in a model's folder", False)
    workers: int | None = option("number of processes; default: one per GPU, or one per core", None)


def evaluate(config: GueConfig) -> pd.DataFrame:
    """Do the missing runs; write gue.parquet and gue.md; return the table, a row for each run.

    Raises ValueError and FileNotFoundError for invalid values in ``config``, `Stopped` if runs failed.
    """
    gue = _folder(config.data)
    models = parse_models(config.models, controls=config.controls)
    if not models or not config.output_dir:
        raise ValueError("give --models and --output-dir, or --list")
    published = published_names(config.published)
    tasks = _chosen(config, gue)
    out = Path(config.output_dir)
    workers = config.workers or default_workers()
    threads = threads_of_each(workers)
    runs = [_cell(config, gue, one, model, seed, threads) for seed in config.seeds for one in tasks for model in models]

    def write(found: pd.DataFrame) -> None:
        scored = _with_unseen(found, [run for run in runs if read_run(run, out)], out, gue)
        write_table(scored, out / "gue.parquet")
        text = report(
            scored, published=published, missing=_missing(gue), max_steps=config.max_steps, pooling=config.pooling
        )
        write_text(out / "gue.md", text)

    run_all(runs, out, workers=workers, report=write)
    return pd.read_parquet(out / "gue.parquet")


def listing(gue: Path) -> str:
    """Return a line for each task: complete, or its missing files."""
    missing = _missing(gue)
    return "\n".join(
        f"{one.name:<22}{'no ' + ', '.join(missing[one.name]) if one.name in missing else 'complete'}" for one in TASKS
    )


def _folder(data: str) -> Path:
    gue = Path(data)
    if not any((gue / one.folder).is_dir() for one in TASKS):
        raise ValueError(f"{data} has no task of GUE; give the folder with {TASKS[0].folder}, {TASKS[-1].folder} ...")
    return gue


def _missing(gue: Path) -> dict[str, list[str]]:
    """Return the missing files of each task that is not complete."""
    return {one.name: files for one in TASKS if (files := one.missing(gue))}


def _chosen(config: GueConfig, gue: Path) -> list[Task]:
    """Return the tasks to run in the order of the table."""
    missing = _missing(gue)
    asked = {task(name).name for name in config.tasks} or {one.name for one in TASKS} - set(missing)
    for name in config.tasks:
        if name in missing:
            raise ValueError(f"{gue / task(name).folder} lacks {', '.join(missing[name])}; see --list")
    if not asked:
        raise ValueError(f"no task of {gue} is complete; see --list")
    return [one for one in TASKS if one.name in asked]


def _cell(config: GueConfig, gue: Path, one: Task, model: Model, seed: int, threads: int) -> Run:
    train, dev, test = (str(gue / one.folder / f"{split}.csv") for split in SPLITS)
    return Run(
        key={"task": one.name, "model": model.name, "seed": seed},
        config=FinetuneConfig(
            model=model.folder,
            output_dir="",
            train=train,
            dev=dev,
            test=test,
            recipe=one.recipe,
            max_steps=config.max_steps,
            random_weights=model.random_weights,
            pooling=config.pooling,
            trust_remote_code=config.trust_remote_code,
            other_letters="unk",
            seed=seed,
            mixed_precision=config.mixed_precision,
            threads=threads,
            no_model=True,
        ),
    )


def _with_unseen(found: pd.DataFrame, runs: list[Run], out: Path, gue: Path) -> pd.DataFrame:
    """Add columns from the files of the runs.

    metric; score, in that metric; unseen_rows and unseen_score, of the test rows that are not in train or dev; and
    test_rows_cut, the number of rows that were truncated.
    """
    masks = {name: unseen(gue / task(str(name)).folder) for name in found["task"].unique()}
    extra = []
    for run in runs:
        one = task(str(run.key["task"]))
        kept = masks[one.name]
        folder = run.folder(out)
        with open(folder / "test.predictions.tsv", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        truth, guessed = (np.array([row[name] for row in rows]) for name in ("label", "prediction"))
        extra.append({
            "metric": one.metric,
            "score": _score(one.metric, truth, guessed),
            "unseen_rows": int(kept.sum()),
            "unseen_score": _score(one.metric, truth[kept], guessed[kept]),
            "test_rows_cut": json.loads((folder / "metrics.json").read_text())["rows"]["test"]["cut"],
        })  # fmt: skip
    return pd.concat([found, pd.DataFrame(extra)], axis=1)


def _score(metric: str, truth: np.ndarray, guessed: np.ndarray) -> float:
    if not truth.size:
        return float("nan")
    if metric == "f1":
        return float(f1_score(truth, guessed, average="macro", zero_division=0))
    return float(matthews_corrcoef(truth, guessed))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""

    def run() -> int:
        description = __doc__.split("\n")[0]
        with parsed(GueConfig, arguments, prog="python -m eval.gue", description=description) as (config, as_json):
            gue = _folder(config.data)
            missing = _missing(gue)
            if config.list:
                print_json({one.name: missing.get(one.name, []) for one in TASKS}) if as_json else print(listing(gue))
                return 0
            for name, files in missing.items():
                if not is_quiet():
                    print(f"note: {name} lacks {', '.join(files)}", file=sys.stderr)
            print_results(evaluate(config), Path(config.output_dir or "") / "gue.md", as_json)
        return 0

    return exit_status(run, interrupted=CONTINUES)


if __name__ == "__main__":
    sys.exit(main())
