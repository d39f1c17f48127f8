"""Studies: pretrain with several maskings under equal budgets and several seeds, fine-tune each, compare.

    python -m eval.compare eval/studies/masking.py --shards OUT --data fewshot --output-dir STUDY

A study is a small Python file with a `Study` called STUDY. The same command goes on where it stopped. It ends in
STUDY/results.md (one table, the comparisons named beforehand, the pretrainings) and STUDY/study.png.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from eval.cells import Cell, run_cells, write_table
from eval.contestants import Contestant
from eval.fewshot import PAIR_BY, fewshot_cell, find_tasks
from eval.figure import draw_arms
from eval.pool import Job, default_workers, run_jobs, threads_of_each
from eval.statistics import paired, summary
from eval.study import RANDOM, Arm, Study, load_study
from eval.text import comparisons_table, markdown, wide_table
from gemsdata.files.publish import write_text
from train.config import PretrainConfig, open_shards
from train.metrics import read_metrics
from train.options import Stopped, exit_status, option, parse
from train.pretrain import train

_BEGUN, _FINISHED = "begun.json", "pretrained.json"
_NOT_COMPARED = ("output_dir", "threads", "resume", "shards", "workers")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Options of eval/compare.py besides the study's file."""

    shards: tuple[str, ...] = option("shard sets to pretrain on, made by `gemsdata shard`")
    data: str = option("folder of the few-shot sets")
    output_dir: str = option("folder of the study")
    workers: int | None = option("processes; one a GPU, else one a core, if not given", None)
    mixed_precision: str | None = option("no, bf16 or fp16", None)


def compare(study: Study, config: CompareConfig) -> pd.DataFrame:
    """Run what has not been run, seed by seed; write tables and figure after each; return the cells.

    Raises ValueError and FileNotFoundError for mistakes in the study or ``config``, `Stopped` when something failed.
    """
    study.check()
    out = Path(config.output_dir)
    workers = config.workers or default_workers()
    threads = threads_of_each(workers)
    runs = {
        (arm.name, seed): _pretraining(study, arm, seed, config, threads) for seed in study.seeds for arm in study.arms
    }
    open_shards(next(iter(runs.values())))
    tasks, remarks, _ = find_tasks(
        Path(config.data), out, sets=study.sets, shots=study.shots, num_draws=study.draws,
        max_test_rows=study.max_test_rows,
    )  # fmt: skip
    is_done = {key: _is_done(run) for key, run in runs.items()}
    finished: list[Cell] = []
    found = pd.DataFrame()
    for number, seed in enumerate(study.seeds, start=1):
        own = {arm.name: runs[arm.name, seed] for arm in study.arms}
        run_jobs(
            [Job(f"{name}, seed {seed}", _run, (run,)) for name, run in own.items() if not is_done[name, seed]],
            workers=workers,
            label="pretraining",
            log=out / "log.txt",
        )
        contestants = [Contestant(name, f"{run.output_dir}/final") for name, run in own.items()]
        if study.random_weights:
            contestants.append(dataclasses.replace(contestants[0], name=RANDOM, random_weights=True))
        finished += [
            fewshot_cell(task, contestant, seed, mixed_precision=config.mixed_precision, threads=threads)
            for task in tasks
            for contestant in contestants
        ]
        done = [run for (_, of_seed), run in runs.items() if of_seed in study.seeds[:number]]
        report = partial(_write, study=study, runs=pretrainings(done), remarks=remarks, out=out)
        found = run_cells(finished, out, workers=workers, report=report)
    return found


def pretrainings(runs: Sequence[PretrainConfig]) -> pd.DataFrame:
    """Return a row for each finished pretraining: arm, seed, rows seen, perplexity on the frozen masks, switch."""
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


def _pretraining(study: Study, arm: Arm, seed: int, config: CompareConfig, threads: int) -> PretrainConfig:
    own = {**study.pretrain, **arm.pretrain}
    unknown = set(own) - {entry.name for entry in dataclasses.fields(PretrainConfig)}
    if unknown:
        raise ValueError(f"arm {arm.name}: pretraining has no option {', '.join(sorted(unknown))}")
    return PretrainConfig(
        **{
            "mixed_precision": config.mixed_precision,
            **own,
            "masking": arm.masking,
            "seed": seed,
            "shards": tuple(config.shards),
            "output_dir": str(Path(config.output_dir) / "models" / arm.name / f"seed-{seed}"),
            "threads": threads,
            "resume": True,
        }
    ).resolved()


def _identity(run: PretrainConfig) -> dict[str, Any]:
    """Return what the weights depend on."""
    options = {name: value for name, value in dataclasses.asdict(run).items() if name not in _NOT_COMPARED}
    fingerprints = [shards.manifest.fingerprint for shards in open_shards(run)]
    return json.loads(json.dumps({**options, "shards": fingerprints}))


def _is_done(run: PretrainConfig) -> bool:
    """Whether a pretraining is finished; raise ValueError when another one was finished or begun in its folder."""
    folder = Path(run.output_dir)
    for name in (_BEGUN, _FINISHED):
        if (folder / name).exists() and json.loads((folder / name).read_text()) != _identity(run):
            raise ValueError(f"{folder} was pretrained with other options or shards; choose another --output-dir")
    return (folder / _FINISHED).exists()


def _run(run: PretrainConfig) -> None:
    folder, identity = Path(run.output_dir), json.dumps(_identity(run), indent=1) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / _BEGUN, identity)
    if not train(run):
        raise Stopped(f"{folder} was interrupted; the same command goes on")
    write_text(folder / _FINISHED, identity)


def _write(found: pd.DataFrame, *, study: Study, runs: pd.DataFrame, remarks: Sequence[str], out: Path) -> None:
    """Write results.md, the Parquet files and the figure."""
    seeds = found["seed"].nunique()
    of_draws = ["dataset", "shots", "contestant", "seed"]
    of_seeds = found.groupby(of_draws, sort=False)["accuracy"].mean().reset_index()  # draws are not independent
    means = summary(of_seeds, by=of_draws[:-1], metric="accuracy")
    cells = means.assign(task=means["dataset"] + " " + means["shots"].astype(str))
    tests = paired(
        found,
        of="contestant",
        metric="accuracy",
        pair_by=PAIR_BY,
        within="dataset",
        pairs=study.comparisons or None,
        unit="seed",
    )
    perplexities = summary(runs, by=["arm"], metric="valid_perplexity")
    lines = [
        [
            row.arm, f"{row.mean:.0f} [{row.low:.0f}, {row.high:.0f}]",
            ", ".join("–" if pd.isna(step) else f"{step:.0f}" for step in runs["switched_at"][runs["arm"] == row.arm]),
        ]
        for row in perplexities.itertuples()
    ]  # fmt: skip
    shown = ", ".join(f"{name} = {value}" for name, value in study.pretrain.items())
    text = f"""# Study of {len(study.arms)} ways to pretrain

Pretraining: {shown}; {seeds} of {len(study.seeds)} seeds. Arms with options of their own: {
        "; ".join(f"{arm.name} ({arm.masking}, {arm.pretrain})" for arm in study.arms if arm.pretrain) or "none"
    }.

## Accuracy

Mean and Student's 95 % interval over {seeds} seeds; each is a pretraining and the mean of its {study.draws} draws.

{wide_table(cells, rows=["contestant"], columns="task", best="column")}

## Differences in accuracy

The comparisons were named in the study's file. Means and their 95 % intervals are over seeds, which are independent.
Pairs are cells of one data set, shots, draw and seed, compared by Wilcoxon's signed-rank test, two-sided, with Holm's
correction over the lines of all sets together, and over the others. The cells of a seed share a pretraining, so these p
are too small: read them beside the intervals.

{comparisons_table(tests)}

## Pretrainings

Perplexity of the validation rows at the end, under masks that are the same for all arms.

{markdown(["arm", "perplexity", "switched at step"], lines)}

## Data

{chr(10).join(f"* {remark}" for remark in remarks)}
"""
    write_text(out / "results.md", text)
    for name, frame in (("results", found), ("comparisons", tests), ("pretrainings", runs)):
        write_table(frame, out / f"{name}.parquet")
    draw_arms(found, means, out / "study", of="contestant", metric="accuracy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""

    def run() -> int:
        words = list(sys.argv[1:] if arguments is None else arguments)
        own = words.pop(0) if words and not words[0].startswith("-") else None
        config = parse(CompareConfig, words, prog="python -m eval.compare STUDY.py", description=__doc__.split("\n")[0])
        if own is None:
            raise ValueError("no study is given; name a Python file first, such as eval/studies/masking.py")
        compare(load_study(Path(own)), config)
        print((Path(config.output_dir) / "results.md").read_text())
        return 0

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
