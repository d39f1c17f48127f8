"""Few-shot evaluation: several models, shots, draws and seeds, with intervals and paired tests.

    python -m eval.fewshot --data fewshot --models mine=RUN/final theirs=DNABERT-6 --controls --output-dir OUT

OUT/results.parquet has a row for each run, OUT/results.md the tables, OUT/accuracy.png the curves. The same command
continues after an interruption. The papers' protocol: train on the given rows, no development set, score the test once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from eval.fewshot.report import read_published, write_results
from eval.fewshot.tasks import fewshot_run, find_tasks
from eval.results.jobs import CONTINUES, default_workers, threads_of_each
from eval.results.runs import parse_models, run_all
from eval.results.tables import print_results
from gemsdata.cli.output import say
from train.options import option, parsed
from train.pooling import POOLINGS
from train.program import exit_status


@dataclass(frozen=True, kw_only=True)
class FewshotConfig:
    """Options of python -m eval.fewshot."""

    data: str = option("folder with a subfolder for each data set")
    models: tuple[str, ...] = option("models as NAME=FOLDER, Hugging Face folders with their own tokenizers")
    output_dir: str = option("folder of the results")
    sets: tuple[str, ...] = option("data sets, by the names of their folders; default: all", ())
    test: tuple[str, ...] = option("test files as SET=FILE, for sets without one", ())
    shots: tuple[int, ...] = option("training rows of each class", (10, 50, 100, 500, 1000))
    draws: int = option("number of training sets of each size, if the files are large enough", 1)
    seeds: tuple[int, ...] = option("random seeds of the new head, dropout and the order of rows", (1, 2, 3))
    controls: bool = option("also evaluate each model with random weights", False)
    published: str | None = option(
        "CSV file of published results to show as well: dataset, shots, model, accuracy (and mcc)", None
    )
    max_test_rows: int | None = option("score a random sample of this many test rows", None)
    pooling: str | None = option(
        f"classify by the states of {', '.join(POOLINGS)}; default: each architecture's own classifier", None
    )
    mixed_precision: str | None = option("precision: no, bf16 or fp16", None)
    trust_remote_code: bool = option("run the Python code in a model's folder", False)
    workers: int | None = option("number of processes; default: one per GPU, or one per core", None)


def fewshot(config: FewshotConfig) -> pd.DataFrame:
    """Do the missing runs, write tables and figure, and return the table of all runs.

    Raises ValueError and FileNotFoundError for invalid values in ``config``, `Stopped` if runs failed.
    """
    out = Path(config.output_dir)
    models = parse_models(config.models, controls=config.controls)
    if config.max_test_rows is not None and config.max_test_rows < 1:
        raise ValueError(f"--max-test-rows {config.max_test_rows}; give 1 or more, or omit it for all rows")
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
    runs = [
        fewshot_run(
            task,
            model,
            seed,
            pooling=config.pooling,
            mixed_precision=config.mixed_precision,
            trust_remote_code=config.trust_remote_code,
            threads=threads_of_each(workers),
        )
        for seed in config.seeds
        for task in tasks
        for model in models
    ]
    report = partial(write_results, out=out, published=published, chance=chance, remarks=remarks)
    return run_all(runs, out, workers=workers, report=report)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""

    def run() -> int:
        description = __doc__.split("\n")[0]
        with parsed(FewshotConfig, arguments, prog="python -m eval.fewshot", description=description) as (
            config,
            as_json,
        ):
            found = fewshot(config)
            out = Path(config.output_dir)
            print_results(found, out / "results.md", as_json)
            if not as_json:
                say(f"{out}: {len(found)} runs; results.md, results.parquet, accuracy.png")
        return 0

    return exit_status(run, interrupted=CONTINUES)


if __name__ == "__main__":
    sys.exit(main())
