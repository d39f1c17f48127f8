"""Kill commands at random moments, continue them, and compare the result with an undisturbed run."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gemsdata.shards.work_folder import holds_work, is_complete
from tools.chaos.subjects import Subject
from tools.chaos.victim import run_command

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
_MOST_TRIES = 5
"""maximum number of processes started per kill that hits a running one"""


@dataclass
class Killed:
    """Outcomes of the kills of one subject."""

    subject: str
    kills: int = 0
    """signals that hit a running process"""
    by_signal: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIGNALS, 0))
    found: dict[str, int] = field(default_factory=lambda: {"absent": 0, "unfinished": 0, "complete": 0})
    """number of kills by the state that they left"""
    failures: list[str] = field(default_factory=list)


def content(folder: Path) -> dict[str, str]:
    """Return {path: sha256} of every file below a folder, except the lock of a killed process."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def kill(subject: Subject, folder: Path, kills: int, rng: random.Random, say: Callable[[str], None]) -> Killed:
    """Kill the command ``kills`` times, each time in a new folder below ``folder``, and continue it."""
    outcome = Killed(subject.name)
    log = folder / "log"
    for name in ("warm-up", "whole"):  # the first may compile kernels
        whole = folder / name
        whole.mkdir(parents=True)
        subject.prepare(whole)
        before = content(whole)
        undisturbed = run_command(subject.command(whole), log)
        expected = content(whole)
    for number in range(kills * _MOST_TRIES):
        if outcome.kills >= kills:
            break
        out = folder / str(number)
        out.mkdir()
        subject.prepare(out)
        name = SIGNALS[outcome.kills % len(SIGNALS)]
        moment = rng.uniform(0.0, undisturbed.seconds)
        ended = run_command(subject.command(out), log, signal.Signals[name], moment)
        if ended.hit:
            outcome.kills += 1
            outcome.by_signal[name] += 1
            problem = _problem_of_end(name, ended.status, ended.printed, undisturbed.status)
            problem = problem or _problem_after_kill(out, before, expected, outcome)
            problem = problem or _problem_of_resumption(subject, out, log, expected, undisturbed.status)
            if problem:
                outcome.failures.append(f"{name} after {moment:.3f} s: {problem}")
                say(f"{subject.name}: {outcome.failures[-1]}")
        shutil.rmtree(out)
    shutil.rmtree(folder)
    if outcome.kills < kills:
        outcome.failures.append(f"only {outcome.kills} of {kills} signals hit a running process")
    say(f"{subject.name}: {outcome.kills} kills, {len(outcome.failures)} failures, found {outcome.found}")
    return outcome


def _problem_of_end(name: str, status: int, printed: str, undisturbed: int) -> str:
    """Return what is wrong with the end of a process after a signal; "" if nothing is."""
    if "Traceback" in printed:
        return f"a traceback: {printed[-400:]}"
    # a signal may come after the work is done; the process then ends normally
    allowed = {undisturbed, 130 if name == "SIGINT" else -int(signal.Signals[name])}
    return "" if status in allowed else f"exit status {status}: {printed[-300:]}"


def _problem_after_kill(out: Path, before: dict[str, str], expected: dict[str, str], outcome: Killed) -> str:
    """Count the state of the folder; return what is wrong with it."""
    found = content(out)
    published = {path: digest for path, digest in found.items() if "_work/" not in path and not _is_temporary(path)}
    folder = out / "set"
    if is_complete(folder):
        outcome.found["complete"] += 1
        if published not in (before, expected):
            return "the complete set has other files than the one before and the new one"
        return ""
    unfinished = holds_work(folder) if folder.exists() else found != before and found != expected
    outcome.found["unfinished" if unfinished else "complete" if found == expected else "absent"] += 1
    return ""


def _is_temporary(path: str) -> bool:
    return path.endswith(".tmp")


def _problem_of_resumption(subject: Subject, out: Path, log: Path, expected: dict[str, str], status: int) -> str:
    """Continue after a kill, and compare with the undisturbed run; return what is wrong."""
    said = []
    for command in subject.resume(out):
        ended = run_command(command, log)
        if ended.status == status:
            break
        said.append(ended.printed[-200:])
    else:
        return f"it could not be resumed: {' | '.join(said)}"
    found = content(out)
    if found == expected:
        return ""
    other = sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))
    return f"{len(other)} files differ from the undisturbed run: {', '.join(other[:5])}"


def table(outcomes: Sequence[Killed]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of kills."""
    header = ["command", *SIGNALS, "found absent", "unfinished", "complete", "failures"]
    rows = [
        [one.subject, *(str(one.by_signal[name]) for name in SIGNALS), *(str(n) for n in one.found.values()),
         "; ".join(one.failures) or "none"]
        for one in outcomes
    ]  # fmt: skip
    totals = [sum(column) for column in zip(*([int(cell) for cell in row[1:7]] for row in rows), strict=True)]
    rows.append(["**all**", *map(str, totals), str(sum(len(one.failures) for one in outcomes))])
    return header, rows
