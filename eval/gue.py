"""GUE: every task with its published recipe, for each contestant and seed, beside the published figures.

python -m eval.gue --data GUE --contestants ours=RUN/final --output-dir OUT
python -m eval.gue --data GUE --list
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, matthews_corrcoef
from transformers.utils import logging as transformers_logging

from eval.cells import Cell, run_cells, write_table
from eval.contestants import Entry, parse_contestants
from eval.gue_report import published_names, report
from eval.gue_tasks import SPLITS, TASKS, Task, task, unseen
from eval.pool import default_workers, threads_of_each
from gemsdata.atomic import write_text
from train.finetune import FinetuneConfig
from train.options import exit_status, option, parse


@dataclass(frozen=True, kw_only=True)
class GueConfig:
    """Options of eval.gue."""

    data: str = option("folder of GUE: EMP, mouse, prom, splice, tf, virus")
    contestants: tuple[str, ...] = option("name=FOLDER of a checkpoint, or name=random:FOLDER for random weights", ())
    output_dir: str | None = option("folder of the results; the same again goes on with what is missing", None)
    list: bool = option("say which tasks are complete and which files are missing, and do nothing", False)
    tasks: tuple[str, ...] = option("names of tasks; all that are complete if not given", ())
    seeds: tuple[int, ...] = option("of new weights, dropout and the order of rows; the papers have 42 only", (42,))
    published: tuple[str, ...] = option("published columns; those of CM-GEMS if not given", ())
    max_steps: int | None = option("updates of every training, in place of the recipe's: not the protocol", None)
    workers: int | None = option("trainings at a time; one a GPU, or a core, if not given", None)
    threads: int | None = option("torch's threads of each; its share of the cores if not given", None)
    mixed_precision: str | None = option("no, bf16 or fp16", None)
    trust_remote_code: bool = option("run the Python code that contestants' folders bring along", False)


def evaluate(config: GueConfig) -> pd.DataFrame:
    """Run what has not been run; write gue.parquet and gue.md; return the table, a row for each cell."""
    gue = _folder(config.data)
    entries = parse_contestants(config.contestants)
    if not entries or not config.output_dir:
        raise ValueError("give --contestants and --output-dir, or --list")
    published = published_names(config.published)
    tasks = _chosen(config, gue)
    out = Path(config.output_dir)
    workers = config.workers or default_workers()
    cells = [
        _cell(config, gue, one, entry, seed, workers) for one in tasks for entry in entries for seed in config.seeds
    ]
    found = _with_unseen(run_cells(cells, out, workers=workers), cells, out, gue)
    write_table(found, out / "gue.parquet")
    text = report(found, published=published, missing=_missing(gue), max_steps=config.max_steps)
    write_text(out / "gue.md", text)
    return found


def listing(gue: Path) -> str:
    """Return a line for each task: complete, or the files that it lacks."""
    missing = _missing(gue)
    return "\n".join(
        f"{one.name:<22}{'no ' + ', '.join(missing[one.name]) if one.name in missing else 'complete'}" for one in TASKS
    )


def _folder(data: str) -> Path:
    gue = Path(data)
    if not any((gue / one.folder).is_dir() for one in TASKS):
        raise ValueError(f"{data} holds no task of GUE; give the folder with {TASKS[0].folder}, {TASKS[-1].folder} ...")
    return gue


def _missing(gue: Path) -> dict[str, list[str]]:
    """Return the files that a task lacks, for each that lacks any."""
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


def _cell(config: GueConfig, gue: Path, one: Task, entry: Entry, seed: int, workers: int) -> Cell:
    train, dev, test = (str(gue / one.folder / f"{split}.csv") for split in SPLITS)
    return Cell(
        key={"task": one.name, "contestant": entry.name, "seed": seed},
        config=FinetuneConfig(
            model=entry.folder,
            output_dir="",
            train=train,
            dev=dev,
            test=test,
            recipe=one.recipe,
            max_steps=config.max_steps,
            random_weights=entry.random_weights,
            trust_remote_code=config.trust_remote_code,
            other_letters="unk",
            seed=seed,
            mixed_precision=config.mixed_precision,
            threads=config.threads or threads_of_each(workers),
            no_model=True,
        ),
    )


def _with_unseen(found: pd.DataFrame, cells: list[Cell], out: Path, gue: Path) -> pd.DataFrame:
    """Add columns metric, score (in it), and unseen_rows and unseen_score, of test rows that train and dev lack."""
    masks = {name: unseen(gue / task(str(name)).folder) for name in found["task"].unique()}
    extra = []
    for cell in cells:
        one = task(str(cell.key["task"]))
        kept = masks[one.name]
        with open(cell.folder(out) / "test.predictions.tsv", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        truth, guessed = (np.array([row[name] for row in rows]) for name in ("label", "prediction"))
        extra.append({
            "metric": one.metric,
            "score": _score(one.metric, truth, guessed),
            "unseen_rows": int(kept.sum()),
            "unseen_score": _score(one.metric, truth[kept], guessed[kept]),
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
    transformers_logging.disable_progress_bar()

    def run() -> int:
        config = parse(GueConfig, arguments, prog="eval.gue", description=__doc__.split("\n")[0])
        gue = _folder(config.data)
        if config.list:
            print(listing(gue))
            return 0
        for name, files in _missing(gue).items():
            print(f"note: {name} lacks {', '.join(files)}", file=sys.stderr)
        evaluate(config)
        print((Path(config.output_dir or "") / "gue.md").read_text())
        return 0

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
