"""GUE: every task with its published recipe, for each contestant and seed, beside the published figures.

    python -m eval.gue --data GUE --list
    python -m eval.gue --data GUE --contestants mine=RUN/final --controls --output-dir OUT --seeds 1 2 3

OUT/gue.parquet has a row for each cell, OUT/gue.md the table as CM-GEMS prints it. The same command goes on where it
stopped.
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

from eval.cells import Cell, read_cell, run_cells, write_table
from eval.contestants import Contestant, parse_contestants
from eval.gue_report import published_names, report
from eval.gue_tasks import SPLITS, TASKS, Task, task, unseen
from eval.pool import default_workers, threads_of_each
from gemsdata.files.publish import write_text
from train.finetune import FinetuneConfig
from train.options import exit_status, option, parse


@dataclass(frozen=True, kw_only=True)
class GueConfig:
    """Options of eval.gue."""

    data: str = option("folder of GUE: EMP, mouse, prom, splice, tf, virus")
    contestants: tuple[str, ...] = option("models as NAME=FOLDER, Hugging Face folders with their own tokenizers", ())
    output_dir: str | None = option("folder of the results; the same again goes on with what is missing", None)
    list: bool = option("say which tasks are complete and which files are missing, and do nothing", False)
    tasks: tuple[str, ...] = option("names of tasks; all that are complete if not given", ())
    seeds: tuple[int, ...] = option("of new weights, dropout and the order of rows; the papers have 42 only", (42,))
    controls: bool = option("each contestant also with random weights", False)
    published: tuple[str, ...] = option("published columns; those of CM-GEMS if not given", ())
    max_steps: int | None = option("updates of every training, in place of the recipe's: not the protocol", None)
    mixed_precision: str | None = option("no, bf16 or fp16", None)
    trust_remote_code: bool = option("run the Python code that a model's folder brings along", False)
    workers: int | None = option("processes; one a GPU, else one a core, if not given", None)


def evaluate(config: GueConfig) -> pd.DataFrame:
    """Run what has not been run; write gue.parquet and gue.md; return the table, a row for each cell.

    Raises ValueError and FileNotFoundError for mistakes in ``config``, `Stopped` when cells failed.
    """
    gue = _folder(config.data)
    contestants = parse_contestants(config.contestants, controls=config.controls)
    if not contestants or not config.output_dir:
        raise ValueError("give --contestants and --output-dir, or --list")
    published = published_names(config.published)
    tasks = _chosen(config, gue)
    out = Path(config.output_dir)
    workers = config.workers or default_workers()
    threads = threads_of_each(workers)
    cells = [
        _cell(config, gue, one, contestant, seed, threads)
        for seed in config.seeds
        for one in tasks
        for contestant in contestants
    ]

    def write(found: pd.DataFrame) -> None:
        scored = _with_unseen(found, [cell for cell in cells if read_cell(cell, out)], out, gue)
        write_table(scored, out / "gue.parquet")
        text = report(scored, published=published, missing=_missing(gue), max_steps=config.max_steps)
        write_text(out / "gue.md", text)

    run_cells(cells, out, workers=workers, report=write)
    return pd.read_parquet(out / "gue.parquet")


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


def _cell(config: GueConfig, gue: Path, one: Task, contestant: Contestant, seed: int, threads: int) -> Cell:
    train, dev, test = (str(gue / one.folder / f"{split}.csv") for split in SPLITS)
    return Cell(
        key={"task": one.name, "contestant": contestant.name, "seed": seed},
        config=FinetuneConfig(
            model=contestant.folder,
            output_dir="",
            train=train,
            dev=dev,
            test=test,
            recipe=one.recipe,
            max_steps=config.max_steps,
            random_weights=contestant.random_weights,
            trust_remote_code=config.trust_remote_code,
            other_letters="unk",
            seed=seed,
            mixed_precision=config.mixed_precision,
            threads=threads,
            no_model=True,
        ),
    )


def _with_unseen(found: pd.DataFrame, cells: list[Cell], out: Path, gue: Path) -> pd.DataFrame:
    """Add columns from what the cells wrote.

    metric; score, in that metric; unseen_rows and unseen_score, of the test rows that train and dev lack; and
    test_rows_cut, those that are longer than the model takes.
    """
    masks = {name: unseen(gue / task(str(name)).folder) for name in found["task"].unique()}
    extra = []
    for cell in cells:
        one = task(str(cell.key["task"]))
        kept = masks[one.name]
        folder = cell.folder(out)
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
        config = parse(GueConfig, arguments, prog="python -m eval.gue", description=__doc__.split("\n")[0])
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
