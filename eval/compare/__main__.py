"""Studies: pretrain with several maskings at equal budgets and several seeds, fine-tune each model, and compare.

    python -m eval.compare eval/studies/masking.py --shards SHARDS --data fewshot --output-dir STUDY

A study is a small Python file with a `Study` called STUDY, or with two called SCREENING and CONFIRMATION for --stage:
the first ranks many arms with few seeds, the second tests the best of them (--after) on other data and seeds. The same
command continues after an interruption. Results are STUDY/results.md (a table of scores, the planned comparisons, the
pretrainings) and STUDY/study.png.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from eval.compare.pretraining import is_complete, named_sets, pretrain, pretraining_of, shards_of
from eval.compare.report import pretrainings, write_results
from eval.compare.study import RANDOM, SCREENING, Study, load_study
from eval.fewshot.tasks import fewshot_run, find_tasks
from eval.results.jobs import CONTINUES, Job, default_workers, run_jobs, threads_of_each
from eval.results.runs import Model, Run, run_all
from eval.results.tables import print_results
from train.options import argument, option, parsed
from train.program import exit_status
from train.rows import open_rows


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Options of python -m eval.compare."""

    study: str | None = argument(None)
    shards: tuple[str, ...] = option(
        "shard sets to pretrain on, made by `gemsdata shard`; NAME=FOLDER for the arms of a study that name one"
    )
    data: str = option("folder of the few-shot sets")
    output_dir: str = option("folder of the study")
    stage: str | None = option("stage of a study that has two: screening or confirmation", None)
    after: str | None = option("folder of the complete screening whose best arms are confirmed", None)
    workers: int | None = option("number of processes; default: one per GPU, or one per core", None)
    threads: int | None = option(
        "threads of torch on CPU for each process; default: the cores divided among them", None
    )
    mixed_precision: str | None = option("precision: no, bf16 or fp16", None)


def compare(study: Study, config: CompareConfig) -> pd.DataFrame:
    """Do the missing runs, seed by seed; write tables and figure after each seed; return the runs.

    Raises ValueError and FileNotFoundError for invalid values in the study or ``config``, `Stopped` if a run failed.
    """
    study.check()
    out = Path(config.output_dir)
    workers = config.workers or default_workers()
    threads = config.threads or threads_of_each(workers)
    options = {"mixed_precision": config.mixed_precision, "threads": threads}
    sets = named_sets(config.shards)
    configs = {
        (arm.name, seed): pretraining_of(study, arm, seed, out, shards=shards_of(arm, sets), **options)
        for seed in study.seeds
        for arm in study.pretrained_arms
    }
    for arm in study.pretrained_arms:  # mistakes before the first hour, not after it
        open_rows(configs[arm.name, study.seeds[0]].shards, configs[arm.name, study.seeds[0]].view)
    tasks, remarks, _ = find_tasks(
        Path(config.data),
        out,
        sets=study.sets,
        shots=study.shots,
        num_draws=study.draws,
        max_test_rows=study.max_test_rows,
    )
    missing = {key for key, one in configs.items() if not is_complete(one)}
    runs: list[Run] = []
    found = pd.DataFrame()
    for number, seed in enumerate(study.seeds, start=1):
        own = {arm.name: configs[arm.name, seed] for arm in study.pretrained_arms}
        jobs = [Job(f"{name}, seed {seed}", pretrain, (one,)) for name, one in own.items() if (name, seed) in missing]
        run_jobs(jobs, workers=workers, label="pretraining", log=out / "log.txt")
        models = [
            (Model(arm.name, f"{own[arm.weights_of or arm.name].output_dir}/final"), {**study.finetune, **arm.finetune})
            for arm in study.arms
        ]
        if study.random_weights:
            first, of_first = models[0]
            models.append((dataclasses.replace(first, name=RANDOM, random_weights=True), of_first))
        runs += [
            fewshot_run(task, model, seed, mixed_precision=config.mixed_precision, threads=threads, **own_options)
            for task in tasks
            for model, own_options in models
        ]
        done = [one for (_, of_seed), one in configs.items() if of_seed in study.seeds[:number]]
        report = partial(write_results, study=study, runs=pretrainings(done), remarks=remarks, out=out)
        found = run_all(runs, out, workers=workers, report=report)
    return found


def _study(config: CompareConfig) -> Study:
    """Return the study of the command line, with the arms to run."""
    study = load_study(Path(config.study or ""), config.stage)
    if study.num_best is None:
        if config.after is not None:
            raise ValueError(
                "--after is for a stage that runs the best arms of a screening; this one runs all its arms"
            )
        return study
    results = Path(config.after or "") / "results.parquet"
    if config.after is None or not results.exists():
        raise ValueError(f"--after {config.after}: give the folder of the complete screening, with results.parquet")
    found = pd.read_parquet(results)
    planned = load_study(Path(config.study or ""), SCREENING).seeds
    if missing := set(planned) - set(found["seed"]):
        raise ValueError(
            f"{config.after} lacks seeds {', '.join(map(str, sorted(missing)))}; finish the screening first"
        )
    return study.best_after(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""

    def run() -> int:
        description = __doc__.split("\n")[0]
        with parsed(CompareConfig, arguments, prog="python -m eval.compare", description=description) as (
            config,
            as_json,
        ):
            if config.study is None:
                raise ValueError("no study is given; name a Python file first, such as eval/studies/masking.py")
            found = compare(_study(config), config)
            print_results(found, Path(config.output_dir) / "results.md", as_json)
        return 0

    return exit_status(run, interrupted=CONTINUES)


if __name__ == "__main__":
    sys.exit(main())
