"""Kill pretrainings and studies at random moments, resume them, and compare with uninterrupted runs.

A pretraining saves a checkpoint after every update, so that many SIGKILLs hit while one is written or removed. A
process that was sent SIGKILL, SIGTERM or SIGINT is started again with --resume until it is complete. Afterwards
weights, metrics and stage log must equal those of an uninterrupted run bit for bit, and nothing half-written may be
left. A study of pretrainings and their fine-tunings is treated likewise; its workers are sent the signal, too.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from bench.table import markdown
from gemsdata.genome.vocab import BASES
from tools.chaos.kills import SIGNALS
from tools.synthesize import main as synthesize
from train.program import INTERRUPTED
from train.run_log import read_metrics

PRETRAIN = {
    "model": "smoke", "masking": "cm-gems", "max-steps": 120, "batch-rows": 8, "eval-every": 10, "save-every": 1,
    "eval-rows": 16, "log-every": 1, "switch-threshold": 1000.0, "switch-lag": 5, "threads": 1, "peak-lr": 5e-3,
}  # fmt: skip
STUDY = """
from eval.compare.study import Arm, Study

STUDY = Study(
    arms=[Arm("genemask", masking="genemask"), Arm("random-span", masking="random-span")],
    pretrain={"model": "smoke", "max_steps": 6, "batch_rows": 8, "eval_every": 3, "save_every": 1, "eval_rows": 8},
    seeds=(1, 2, 3), sets=("toy",), shots=(4,), random_weights=False,
)
"""
_LONGEST_S = 900.0
_LONGEST_END_S = 120.0
_PRETRAIN_WINDOW_S, _STUDY_WINDOW_S = 1.0, 15.0
"""seconds after the first write of a process in which it is killed"""


@dataclass
class Outcome:
    """Outcome for one subject."""

    subject: str
    kills: int = 0
    """signals that hit a running process"""
    by_signal: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIGNALS, 0))
    during_a_save: int = 0
    """number of them that left an unfinished checkpoint or file on disk"""
    failures: list[str] = field(default_factory=list)
    """what was wrong after a kill or at the end"""
    seconds: float = 0.0


def kill_until_complete(
    command: Sequence[str], folder: Path, outcome: Outcome, *, kills: int, window_s: float, rng: random.Random
) -> None:
    """Start ``command``, send its process group a signal, ``kills`` times, and then let it end.

    A signal comes at a random moment of ``window_s`` after the first new file in ``folder``.
    """
    began = time.monotonic()
    while True:
        allowed = outcome.kills < kills
        before = _newest(folder)
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + _LONGEST_S
        while allowed and process.poll() is None and _newest(folder) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        try:
            process.wait(rng.uniform(0.0, window_s) if allowed else _LONGEST_S)
        except subprocess.TimeoutExpired:
            name = SIGNALS[outcome.kills % len(SIGNALS)] if allowed else "SIGKILL"
            os.killpg(process.pid, signal.Signals[name])
            outcome.kills += 1
            outcome.by_signal[name] += 1
            outcome.during_a_save += any(folder.rglob("_*.tmp")) or any(folder.rglob("_*.old"))
            if not allowed:
                outcome.failures.append(f"hung for {_LONGEST_S:.0f} s")
            if (problem := _problem_of_end(process, name)) or not allowed:
                outcome.failures += [problem] if problem else []
                break
            continue
        printed = process.communicate()[0].decode()
        if process.returncode:
            outcome.failures.append(f"exit status {process.returncode} after kill {outcome.kills}: {printed[-300:]}")
        break
    outcome.seconds = round(time.monotonic() - began, 1)


def _problem_of_end(process: subprocess.Popen[bytes], name: str) -> str:
    """Wait for the end of a process after a signal; return what is wrong with it, "" if nothing is."""
    try:
        printed = process.communicate(timeout=_LONGEST_END_S)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"still there {_LONGEST_END_S:.0f} s after {name}"
    if "Traceback" in printed:
        return f"a traceback after {name}: {printed[-400:]}"
    # a run that had done its work when the signal came ends with 0, one whose workers end first with 1
    allowed = {0, 1, INTERRUPTED, -int(signal.Signals[name])}
    return "" if process.returncode in allowed else f"exit status {process.returncode} after {name}: {printed[-300:]}"


def _newest(folder: Path) -> float:
    """Return when a file or folder below ``folder`` was last created; 0 if there is none."""
    times = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            times.append(path.stat().st_mtime)
    return max(times, default=0.0)


def compare_runs(whole: Path, run: Path, outcome: Outcome) -> None:
    """Add differences between two pretrainings, and incomplete files, to the failures."""
    for one in (whole, run):
        if not (one / "final" / "model.safetensors").exists():
            outcome.failures.append(f"{one.name} has no final model")
            return
    weights, others = (load_file(one / "final" / "model.safetensors") for one in (whole, run))
    for name, values in weights.items():
        if not np.array_equal(values, others[name]):
            outcome.failures.append(f"{name} differs from the uninterrupted run")
    for name in ("loss", "valid_perplexity", "gradient_norm", "stage", "stage_log"):
        one, other = (
            [(line["step"], line[name]) for line in read_metrics(path / "metrics.jsonl") if name in line]
            for path in (whole, run)
        )
        if one != other:
            outcome.failures.append(f"{name} in metrics.jsonl differs from the uninterrupted run")
    left = [path.name for path in run.rglob("_*")]
    if left:
        outcome.failures.append(f"left behind: {', '.join(left)}")


def chaos_pretrain(shards: Path, out: Path, outcome: Outcome, *, kills: int, rng: random.Random) -> None:
    """Send a pretraining ``kills`` signals, and compare it with an uninterrupted one."""
    command = [sys.executable, "train/pretrain.py", "--shards", str(shards)]
    command += [word for name, value in PRETRAIN.items() for word in (f"--{name}", str(value))]
    whole, run = out / "whole", out / outcome.subject.replace(" ", "-")
    if not (whole / "final").exists():
        subprocess.run([*command, "--output-dir", str(whole), "--resume"], check=True, capture_output=True)
    again = [*command, "--output-dir", str(run), "--resume"]
    kill_until_complete(again, run, outcome, kills=kills, window_s=_PRETRAIN_WINDOW_S, rng=rng)
    compare_runs(whole, run, outcome)


def chaos_study(shards: Path, out: Path, outcome: Outcome, *, kills: int, rng: random.Random) -> None:
    """Send a study ``kills`` signals, and compare its results with those of an uninterrupted one."""
    data = write_toy_set(out / "fewshot", rng)
    (out / "study.py").write_text(STUDY)
    command = [sys.executable, "-m", "eval.compare", str(out / "study.py"), "--shards", str(shards)]
    command += ["--data", str(data), "--workers", "2"]
    subprocess.run([*command, "--output-dir", str(out / "study-whole")], check=True, capture_output=True)
    again = [*command, "--output-dir", str(out / "study-killed")]
    kill_until_complete(again, out / "study-killed", outcome, kills=kills, window_s=_STUDY_WINDOW_S, rng=rng)
    tables = [out / name / "results.parquet" for name in ("study-whole", "study-killed")]
    if all(path.exists() for path in tables):
        one, other = (pd.read_parquet(path).drop(columns="seconds") for path in tables)
        if not one.equals(other):
            outcome.failures.append("the results differ from those of the uninterrupted study")
    else:
        outcome.failures.append("the study has no results")


def write_toy_set(folder: Path, rng: random.Random) -> Path:
    """Write a few-shot set of random sequences; return the folder of sets."""
    for name, size in (("toy/4/train.tsv", 8), ("toy/test.tsv", 20)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{''.join(rng.choices(BASES, k=20))}\t{row % 2}" for row in range(size)]
        path.write_text("sequence\tlabel\n" + "\n".join(rows) + "\n")
    return folder


def report(outcomes: Sequence[Outcome], seed: int) -> str:
    """Return the outcomes as Markdown."""
    rows = [
        [one.subject, *(str(one.by_signal[name]) for name in SIGNALS), str(one.during_a_save),
         "; ".join(one.failures) or "none", f"{one.seconds:.0f}"]
        for one in outcomes
    ]  # fmt: skip
    totals = [sum(int(row[column]) for row in rows) for column in range(1, len(SIGNALS) + 2)]
    failures, seconds = sum(len(one.failures) for one in outcomes), sum(one.seconds for one in outcomes)
    rows.append(["**all**", *map(str, totals), str(failures), f"{seconds:.0f}"])
    header = ["subject", *SIGNALS, "during a save", "failures", "seconds"]
    return f"""## Kills during training

Seed {seed}. Each subject is sent signals, its workers too, at random moments after it has begun to write, and is
started again until it is complete. A pretraining saves a checkpoint after each of its {PRETRAIN["max-steps"]} updates.
It fails unless weights, metrics and stage log equal those of an uninterrupted run bit for bit and nothing half-written
is left; a study fails unless its table of results is the same.

{markdown(header, rows)}
"""


def campaign(out: Path, kills: int, seed: int, outcomes: list[Outcome], keep: Callable[[], None]) -> None:
    """Send a study a fifth of ``kills`` signals, and pretrainings the others, at most eight each; work in ``out``.

    Each outcome is added to ``outcomes``, and ``keep`` is called after it. A campaign that was stopped is given those
    that it had.
    """
    out.mkdir(parents=True)
    genome, shards = out / "genome.fa", out / "shards"
    synthesize(["-o", str(genome), "--bases", "20000", "--seed", "1"], standalone_mode=False)
    subprocess.run(
        [sys.executable, "-m", "gemsdata.cli", "shard", str(genome), "-o", str(shards), "-k", "3", "--row-tokens", "30",
         "--valid-fraction", "0.2"],
        check=True, capture_output=True,
    )  # fmt: skip
    of_study = kills // 5
    while (left := kills - sum(one.kills for one in outcomes)) > 0 and len(outcomes) <= kills:
        rng = random.Random(f"{seed}:training:{len(outcomes)}")
        if of_study and all(one.subject != "study" for one in outcomes):
            outcome = Outcome("study")
            chaos_study(shards, out, outcome, kills=of_study, rng=rng)
        else:
            outcome = Outcome(f"pretraining {len(outcomes)}")
            chaos_pretrain(shards, out, outcome, kills=min(8, left), rng=rng)
        click.echo(f"{outcome.subject}: {outcome.kills} kills, {outcome.failures or 'as if uninterrupted'}", err=True)
        outcomes.append(outcome)
        keep()
