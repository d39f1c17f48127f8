"""Tests in forked processes: pytest collects them once, and each mutant runs some of them in its own fork.

A mutant is the code of one function, which replaces the original in the fork, with the kernels as plain Python.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import types
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.mutants.operators import REPOSITORY, Mutant, code_of

MEMORY_LIMIT = 16 << 30
"""bytes of address space of a test process"""
LEAST_LIMIT_S, LIMIT_FACTOR = 2, 5
"""limit for the processor time of a test on a mutant: seconds, and multiple of the time without it"""
OBSERVE_LIMIT_S = 1800
"""processor time of all tests without a mutant"""
WALL_FACTOR = 20
"""limit for the elapsed time of a process, as a multiple of that for its processor time"""
KILLED, NOT_RUN = 1, 3
"""exit statuses of a fork: a test failed, the mutant could not be installed"""


@dataclass(frozen=True)
class TestRun:
    """Observation of one test on the code without mutants."""

    __test__ = False
    item: Any
    """pytest's item"""
    seconds: float
    """of processor time"""
    functions: frozenset[tuple[str, int]]
    """(path, first line) of every function that it called, fixtures included"""


def prepare() -> None:
    """Set the environment of the tests, and import their dependencies except the code under test."""
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["GEMSDATA_TEST_DATA"] = os.devnull  # only synthetic rows
    import torch

    torch.set_num_threads(1)


def with_collected(test_files: Sequence[str], use: Callable[[list[TestRun]], None]) -> None:
    """Call ``use`` with the tests of some files, collected and observed; raise ValueError if one fails."""
    import pytest

    plugin = _Campaign(use)
    options = ["-s", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "--no-summary", "--timeout=0"]
    status = pytest.main([*options, "-m", "not compiled and not slow", *test_files], [plugin])
    if plugin.failed or status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):  # none ran here
        raise ValueError(f"the tests fail without any mutant: {plugin.failed or status}: {' '.join(test_files)}")


def try_mutant(mutant: Mutant, tests: Sequence[TestRun]) -> tuple[str, str]:
    """Run tests on a mutant in a fork; return (killed, time limit or survived, what failed).

    Each test is limited to a multiple of its usual processor time.
    """

    def run(log: Path) -> int:
        try:
            _put_in_place(mutant)
        except (ValueError, AttributeError, KeyError) as error:
            log.write_text(f"{type(error).__name__}: {error}")
            return NOT_RUN
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        failed = ""
        for test, after in zip(tests, [*tests[1:], None], strict=True):
            signal.setitimer(signal.ITIMER_PROF, LEAST_LIMIT_S + LIMIT_FACTOR * test.seconds)
            failed = _failure(test.item, after and after.item)
            if failed:
                break
        log.write_text(failed or "")
        return KILLED if failed else 0

    status, said = _in_fork(run, 15 + LIMIT_FACTOR * sum(test.seconds for test in tests))
    if status == NOT_RUN:
        raise RuntimeError(f"{mutant.key}: {said}")
    if status in (-signal.SIGPROF, -signal.SIGXCPU, -signal.SIGKILL):
        return "time limit", ""
    return ("killed", said or f"exit status {status}") if status else ("survived", "")


class _Campaign:
    """Pytest plug-in that takes over when the tests are collected."""

    def __init__(self, use: Callable[[list[TestRun]], None]) -> None:
        self._use = use
        self.failed = ""

    def pytest_runtestloop(self, session: Any) -> bool:
        """Observe the tests in one fork, and pass them to the campaign."""
        status, said = _in_fork(lambda log: _observe(session.items, log), OBSERVE_LIMIT_S)
        found = json.loads(said) if said.startswith("{") else {}
        self.failed = found.get("failed", "") or (f"exit status {status}: {said}" if status else "")
        if not self.failed:
            runs = zip(session.items, found["tests"], strict=True)
            self._use([TestRun(item, seconds, frozenset((p, n) for p, n in calls)) for item, (seconds, calls) in runs])
        return True


def _observe(items: Sequence[Any], log: Path) -> int:
    """Run every test and write its processor time and the functions of gemsdata that it calls."""
    calls: dict[int, types.CodeType] = {}

    def trace(frame: Any, event: str, argument: Any) -> None:
        calls.setdefault(id(frame.f_code), frame.f_code)  # by identity: the hash of code is slow

    def called() -> set[tuple[str, int]]:
        found = ((os.path.relpath(code.co_filename, REPOSITORY), code.co_firstlineno) for code in calls.values())
        return {(path, line) for path, line in found if path.startswith("gemsdata/")}

    tests, in_fixtures = [], defaultdict(set)
    for i, item in enumerate(items):
        calls, began = {}, time.process_time()
        threading.settrace(trace)  # type: ignore[arg-type]
        sys.settrace(trace)  # type: ignore[arg-type]
        failed = _failure(item, items[i + 1] if i + 1 < len(items) else None)
        sys.settrace(None)
        if failed:
            log.write_text(json.dumps({"failed": failed}))
            return KILLED
        tests.append((time.process_time() - began, called()))
        if i == 0 or item.path != items[i - 1].path:  # its fixtures are used by the other tests of the file
            in_fixtures[item.path] |= tests[-1][1]
    found = [
        (seconds, sorted(found | in_fixtures[item.path])) for item, (seconds, found) in zip(items, tests, strict=True)
    ]
    log.write_text(json.dumps({"tests": found}))
    return 0


class _Failures:
    """Pytest plug-in that records failures."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Record the name of a failed test and its error."""
        if report.failed:
            self.found.append(f"{report.nodeid}: {str(report.longrepr).strip().splitlines()[-1][:200]}")


def _failure(item: Any, following: Any) -> str:
    """Run a test; return its name and its error, "" if it passes."""
    failures = _Failures()
    item.config.pluginmanager.register(failures)
    item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
    item.config.pluginmanager.unregister(failures)
    return "".join(failures.found[:1])


def _put_in_place(mutant: Mutant) -> None:
    """Replace the code of the outermost function of a mutant by the mutated code."""
    module = importlib.import_module(mutant.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
    found: Any = module
    code = code_of(mutant)
    for name in mutant.scope.split("."):
        found = vars(found)[name]
        code = next(c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == name)
        if not inspect.isclass(found):
            break
    found = getattr(found, "fget", None) or getattr(found, "func", None) or getattr(found, "__func__", None) or found
    inspect.unwrap(found).__code__ = code


def _in_fork(run: Callable[[Path], int], limit_s: float) -> tuple[int, str]:
    """Call a function in a forked process; return its exit status, and the text that it wrote to the given file."""
    with tempfile.NamedTemporaryFile() as log:
        child = os.fork()
        if child == 0:
            _end_with(run, Path(log.name), limit_s)
        deadline = time.monotonic() + WALL_FACTOR * limit_s
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), Path(log.name).read_text()
            time.sleep(0.005)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return -signal.SIGKILL, ""


def _end_with(run: Callable[[Path], int], log: Path, limit_s: float) -> None:
    """Call a function in a forked process under limits, and exit with the status that it returns."""
    status = KILLED
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime + limit_s) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        status = run(log)
    except BaseException as error:
        log.write_text(f"{type(error).__name__}: {error}"[:300])
    finally:
        os._exit(status)
