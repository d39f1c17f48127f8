"""Run mutated inputs in forked workers under limits of time and memory, and classify the outcomes.

A worker tries one input after the other and reports each. When it dies or is silent for too long, that input is a bug,
and a new worker goes on with the next one.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import random
import resource
import select
import signal
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gemsdata.shards.verify import VerificationError

_TRY_SECONDS = 10
"""limit in processor time, because other programs may use the machine"""
_SILENT_SECONDS = 60
_MEMORY_BYTES = 3 << 30
"""memory that a worker may allocate beyond its initial size"""
_MOST_BUGS_KEPT = 20
_CLEAN = (ValueError, VerificationError)
_CLEAN_FAMILIES = (OSError,)


class WrongAnswer(Exception):
    """An input was accepted, but a second reader reads other values."""


class Target(Protocol):
    """A kind of input: how to make it, mutate it and read it."""

    name: str

    def prepare(self) -> None:
        """Make the inputs that are mutated, and compile their readers."""

    def seeds(self) -> Sequence[Any]:
        """Return the inputs that are mutated."""

    def mutate(self, seed: Any, generator: random.Random) -> Any:
        """Return a mutated input."""

    def run(self, content: Any) -> None:
        """Read an input, twice; raise WrongAnswer if the readers differ, or the exception of the reader."""


@dataclass
class Outcome:
    """Outcomes of all inputs of one kind."""

    name: str
    tries: int = 0
    right: int = 0
    refused: int = 0
    bugs: int = 0
    seconds: float = 0
    commit: str = ""
    """of the code that was tried"""
    examples: list[dict[str, Any]] = field(default_factory=list)


def run_target(target: Target, tries: int, seed: int, first: int = 0) -> Outcome:
    """Try ``tries`` mutated inputs of one kind; the same for the same seed."""
    began = time.perf_counter()
    target.prepare()
    for content in target.seeds():
        target.run(content)  # inputs without mutations must be read
    outcome = Outcome(target.name)
    position = first
    while position < first + tries:
        position = _run_worker(target, position, first + tries, seed, outcome)
    outcome.tries = tries
    outcome.seconds = time.perf_counter() - began
    return outcome


def mutated_input(target: Target, seed: int, index: int) -> Any:
    """Return mutated input number ``index``."""
    digest = hashlib.sha256(f"{seed}:{target.name}:{index}".encode()).digest()
    generator = random.Random(int.from_bytes(digest[:8], "big"))
    return target.mutate(generator.choice(target.seeds()), generator)


def _run_worker(target: Target, first: int, end: int, seed: int, outcome: Outcome) -> int:
    """Fork a worker for the inputs from ``first`` on; return the first one that it did not finish."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # about threads of this process: the child does not need them
        pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _work(target, first, end, seed, write_end)
        os._exit(0)
    os.close(write_end)
    position, rest, died_of = first, b"", ""
    while True:
        ready, _, _ = select.select([read_end], [], [], _SILENT_SECONDS)
        if not ready:
            died_of = f"no answer in {_SILENT_SECONDS} s"
            os.kill(pid, signal.SIGKILL)
        chunk = os.read(read_end, 1 << 16)
        if not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            _count(outcome, json.loads(line))
            position += 1
    os.close(read_end)
    _, status = os.waitpid(pid, 0)
    if position < end:
        if not died_of:
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            died_of = f"killed by {signal.Signals(number).name}" if number else f"exit status {status >> 8}"
        _count(outcome, {"kind": "bug", "index": position, "error": f"the process died: {died_of}", "trace": ""})
        position += 1
    return position


def _count(outcome: Outcome, report: dict[str, Any]) -> None:
    if report["kind"] == "right":
        outcome.right += 1
    elif report["kind"] == "refused":
        outcome.refused += 1
    else:
        outcome.bugs += 1
        if len(outcome.examples) < _MOST_BUGS_KEPT:
            outcome.examples.append(report)


def _work(target: Target, first: int, end: int, seed: int, write_end: int) -> None:
    """Try inputs in this process and write one line of JSON for each."""
    with open("/proc/self/statm") as stream:
        in_use = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + _MEMORY_BYTES, in_use + _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()  # a crash is reported by the parent
    signal.signal(signal.SIGPROF, _raise_timeout)
    for index in range(first, end):
        report = _try(target, mutated_input(target, seed, index))
        if report["kind"] == "bug":
            report["index"] = index
        os.write(write_end, json.dumps(report).encode() + b"\n")


class _Timeout(BaseException):
    """An input took too long."""


def _raise_timeout(*_: object) -> None:
    raise _Timeout


def _try(target: Target, content: Any) -> dict[str, Any]:
    """Read one input; return its class, and for a bug the error."""
    signal.setitimer(signal.ITIMER_PROF, _TRY_SECONDS)
    try:
        target.run(content)
    except _Timeout:
        return {"kind": "bug", "error": f"more than {_TRY_SECONDS} s", "trace": traceback.format_exc()[-2000:]}
    except BaseException as error:
        message = str(error)
        is_clean = type(error) in _CLEAN or isinstance(error, _CLEAN_FAMILIES)
        if is_clean and message and "\n" not in message and "\0" not in message:
            return {"kind": "refused"}
        text = f"{type(error).__name__}: {message[:300]}"
        return {"kind": "bug", "error": text, "trace": traceback.format_exc()[-2000:]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return {"kind": "right"}
