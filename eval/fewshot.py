"""Few-shot evaluation: several models by several shots, draws and seeds, with intervals and paired tests.

    python -m eval.fewshot --data fewshot --contestants mine=RUN/final theirs=DNABERT-6 --controls --output-dir OUT

OUT/results.parquet has a row for each cell, OUT/results.md the tables, OUT/accuracy.png the curves. The same command
goes on where it stopped. The papers' protocol: train on the given rows, no development set, score the test rows once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from eval.cells import Cell, run_cells, write_table
from eval.contestants import Contestant, parse_contestants
from eval.fewshot_data import Task, find_set, prepare
from eval.figure import draw_scores
from eval.pool import default_workers, threads_of_each
from eval.statistics import paired, summary
from eval.text import comparisons_table, wide_table
from gemsdata.files.publish import write_text
from train.finetune import FinetuneConfig
from train.options import exit_status, option, parse

PUBLISHED_SETS = ("Prom-core", "Prom-300", "Cohn-enh", "Splice-40", "Silencer")
PAIR_BY = ("dataset", "shots", "draw", "seed")
_PROM_300_TEST = ("gue/prom/prom_300_all/dev.csv", "gue/prom/prom_300_all/test.csv")


@dataclass(frozen=True, kw_only=True)
class FewshotConfig:
    """Options of eval/fewshot.py."""

    data: str = option("folder with a folder for each data set")
    contestants: tuple[str, ...] = option("models as NAME=FOLDER, Hugging Face folders with their own tokenizers")
    output_dir: str = option("folder of the results")
    sets: tuple[str, ...] = option("data sets, by the names of their folders; all if not given", ())
    test: tuple[str, ...] = option("test files as SET=FILE, where a set has none of its own", ())
    shots: tuple[int, ...] = option("rows of each class", (10, 50, 100, 500, 1000))
    draws: int = option("training sets of each size, where the files allow", 1)
    seeds: tuple[int, ...] = option("of the new head, dropout and the order of rows", (1, 2, 3))
    controls: bool = option("each contestant also with random weights", False)
    published: str | None = option("CSV of figures to set beside: dataset, shots, contestant, accuracy (and mcc)", None)
    max_test_rows: int | None = option("score a random choice of this many test rows", None)
    mixed_precision: str | None = option("no, bf16 or fp16", None)
    trust_remote_code: bool = option("run the Python code that a model's folder brings along", False)
    workers: int | None = option("processes; one a GPU, else one a core, if not given", None)


def fewshot(config: FewshotConfig) -> pd.DataFrame:
    """Run what has not been run, write tables and figure, return the cells.

    Raises ValueError and FileNotFoundError for mistakes in ``config``, `Stopped` when cells failed.
    """
    out = Path(config.output_dir)
    contestants = parse_contestants(config.contestants, controls=config.controls)
    if config.max_test_rows is not None and config.max_test_rows < 1:
        raise ValueError(f"--max-test-rows {config.max_test_rows}; give 1 or more, or leave it out for all rows")
    if config.draws < 1 or not config.seeds or not config.shots:
        raise ValueError(f"--draws {config.draws}, --seeds {config.seeds}, --shots {config.shots}: give 1 or more each")
    published = read_published(config.published) if config.published else None
    tasks, remarks, chance = find_tasks(
        Path(config.data),
        out,
        sets=config.sets,
        test=config.test,
        shots=config.shots,
        num_draws=config.draws,
        max_test_rows=config.max_test_rows,
    )
    workers = config.workers or default_workers()
    cells = [
        fewshot_cell(
            task,
            contestant,
            seed,
            mixed_precision=config.mixed_precision,
            trust_remote_code=config.trust_remote_code,
            threads=threads_of_each(workers),
        )
        for seed in config.seeds
        for task in tasks
        for contestant in contestants
    ]
    report = partial(write_results, out=out, published=published, chance=chance, remarks=remarks)
    return run_cells(cells, out, workers=workers, report=report)


def find_tasks(
    data: Path,
    out: Path,
    *,
    sets: Sequence[str] = (),
    test: Sequence[str] = (),
    shots: Sequence[int],
    num_draws: int = 1,
    max_test_rows: int | None = None,
) -> tuple[list[Task], list[str], dict[str, float]]:
    """Write the files of all draws of the named sets under ``out``; return (tasks, remarks, chance by set).

    Without names all sets in the folder are taken. Prom-300 was published without its test rows; those of GUE's
    prom_300_all are used where that benchmark lies in a folder ``gue`` beside ``data``.
    """
    if not data.is_dir():
        raise FileNotFoundError(f"{data} does not exist; give the folder of the few-shot sets with --data")
    names = list(sets) or [
        *(name for name in PUBLISHED_SETS if (data / name).is_dir()),
        *sorted(path.name for path in data.iterdir() if path.is_dir() and path.name not in PUBLISHED_SETS),
    ]
    own_tests: dict[str, list[Path]] = {}
    for word in test:
        name, equals, path = word.partition("=")
        if not equals or name not in names:
            raise ValueError(f"--test {word!r}: give SET=FILE with one of the sets {', '.join(names)}")
        own_tests.setdefault(name, []).append(Path(path))
    gue = [data.parent / path for path in _PROM_300_TEST]
    if "Prom-300" in names and all(path.exists() for path in gue) and not (data / "Prom-300" / "test.tsv").exists():
        own_tests.setdefault("Prom-300", gue)
    tasks: list[Task] = []
    remarks: list[str] = []
    chance: dict[str, float] = {}
    for name in names:
        found = find_set(data / name, own_tests.get(name, ()))
        chance[name] = 1 / found.num_classes
        more, said = prepare(found, out, shots=shots, num_draws=num_draws, max_test_rows=max_test_rows)
        tasks += more
        remarks += said
    if not tasks:
        raise ValueError(f"none of {', '.join(names)} has training files of {', '.join(map(str, shots))} shots")
    return tasks, remarks, chance


def fewshot_cell(
    task: Task,
    contestant: Contestant,
    seed: int,
    *,
    mixed_precision: str | None,
    trust_remote_code: bool = False,
    threads: int = 1,
) -> Cell:
    """Return the cell of a contestant, a task and a seed, by the papers' recipe."""
    return Cell(
        key={
            "dataset": task.set_name,
            "shots": task.shots,
            "draw": task.draw,
            "contestant": contestant.name,
            "seed": seed,
        },
        config=FinetuneConfig(
            model=contestant.folder,
            output_dir="",
            train=str(task.train),
            test=str(task.test),
            recipe="fewshot",
            random_weights=contestant.random_weights,
            trust_remote_code=trust_remote_code,
            seed=seed,
            mixed_precision=mixed_precision,
            threads=threads,
            scores_only=True,
        ),
    )


def read_published(path: str) -> pd.DataFrame:
    """Return published figures: dataset, shots, contestant, and accuracy or mcc or both, as shares of 1."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist; give a CSV of published figures with --published")
    found = pd.read_csv(path)
    lacking = {"dataset", "shots", "contestant"} - set(found.columns)
    metrics = [name for name in ("accuracy", "mcc") if name in found]
    if lacking or not metrics:
        raise ValueError(f"{path} has columns {', '.join(found.columns)}; give dataset, shots, contestant, accuracy")
    if (found[metrics].abs() > 1).any(axis=None):
        raise ValueError(f"{path} has figures above 1; give shares, such as 0.715 for 71.5 %")
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
        means = summary(found, by=["dataset", "shots", "contestant"], metric=metric)
        parts.append(
            f"## {name}\n\nMean and Student's 95 % interval over {_cells_of(found)}; the best of a line is bold."
            "\n\n" + wide_table(_beside(means, published, metric), rows=["dataset", "shots"], columns="contestant")
        )
        if metric == "accuracy":
            draw_scores(means, out / "accuracy", of="contestant", metric="accuracy", chance=chance)
    if found["contestant"].nunique() > 1:
        tests = paired(found, of="contestant", metric="accuracy", pair_by=PAIR_BY, within="dataset")
        write_table(tests, out / "comparisons.parquet")
        parts.append(
            "## Differences in accuracy\n\nPairs of cells of one data set, shots, draw and seed; Wilcoxon's"
            " signed-rank test, two-sided, with Holm's correction over the lines of all sets together, and over the"
            " others. Cells of one training set are not independent of each other, so these p are rather too small than"
            " too large.\n\n" + comparisons_table(tests)
        )
    parts.append("## Data\n\n" + "\n".join(f"* {remark}" for remark in remarks))
    write_text(out / "results.md", "\n\n".join(parts) + "\n")


def _beside(means: pd.DataFrame, published: pd.DataFrame | None, metric: str) -> pd.DataFrame:
    """Return the means with published figures as further contestants, where they are of tasks that ran."""
    if published is None or metric not in published:
        return means
    ran = set(zip(means["dataset"], means["shots"], strict=True))
    same = [task in ran for task in zip(published["dataset"], published["shots"], strict=True)]
    rows = published[same].rename(columns={metric: "mean"})
    rows = rows.assign(contestant=rows["contestant"] + " (published)", low=np.nan, high=np.nan, num=1)
    return pd.concat([means, rows[means.columns]], ignore_index=True)


def _cells_of(found: pd.DataFrame) -> str:
    sizes = found.groupby(["dataset", "shots", "contestant"]).agg({"draw": "nunique", "seed": "nunique"})
    draws, seeds = (sorted({int(value) for value in sizes[column]}) for column in ("draw", "seed"))
    return f"{' or '.join(map(str, seeds))} seeds and {' or '.join(map(str, draws))} draws"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""

    def run() -> int:
        config = parse(FewshotConfig, arguments, prog="python -m eval.fewshot", description=__doc__.split("\n")[0])
        found = fewshot(config)
        out = Path(config.output_dir)
        print((out / "results.md").read_text())
        print(f"{out}: {len(found)} cells; results.md, results.parquet, accuracy.png")
        return 0

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
