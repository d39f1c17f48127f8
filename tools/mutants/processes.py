"""Tests in a forked process of their own: on a mutant, or on the code as it is, watched for what each test calls."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.mutants.operators import REPOSITORY, Mutant

MEMORY_LIMIT = 16 << 30
"""bytes of address space of a test process"""
WALL_FACTOR = 10
"""how much longer than its processor time a test process may take"""


@dataclass(frozen=True)
class TestRun:
    """What one test did on the code without mutants."""

    __test__ = False
    seconds: float
    """of processor time"""
    functions: frozenset[tuple[str, int]]
    """(path, first line) of every function that it called, fixtures included"""


def preload() -> None:
    """Import what every test process needs, once, without the code under test."""
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    os.environ["OMP_NUM_THREADS"] = "1"
    import hypothesis.strategies
    import numba
    import numpy
    import pyarrow.dataset
    import pyarrow.parquet
    import pytest
    import torch.utils.data

    torch.set_num_threads(1)
    assert not any(name.partition(".")[0] == "gemsdata" for name in sys.modules), "the code under test is imported"
    del hypothesis, numba, numpy, pyarrow, pytest


def survives(mutant: Mutant, tests: Sequence[str], limit_s: float) -> tuple[bool, str]:
    """Run tests on a mutant; return (all passed, how it ended). The limit is of processor time."""
    status, said = _forked(tests, limit_s, mutant, [])
    return status == 0, said


def observe(tests: Sequence[str], limit_s: float) -> dict[str, TestRun]:
    """Run tests without a mutant and return what each did, by its pytest node id; ValueError where one fails."""
    with tempfile.NamedTemporaryFile() as report:
        status, said = _forked(tests, limit_s, None, [_Observer(report.name)])
        if status != 0:
            raise ValueError(f"the tests fail without any mutant: {' '.join(tests)}: {said}")
        found = json.loads(Path(report.name).read_text())
    return {
        name: TestRun(seconds, frozenset((path, line) for path, line in functions))
        for name, (seconds, functions) in found.items()
    }


class _Observer:
    """Pytest plug-in that notes the processor time of each test and the functions of gemsdata that it calls."""

    def __init__(self, report: str) -> None:
        self._report = report
        self._prefix = f"{REPOSITORY}/gemsdata/"
        self._calls: set[tuple[str, int]] = set()
        self._tests: dict[str, tuple[float, set[tuple[str, int]]]] = {}
        self._setup: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self._began = 0.0

    def _trace(self, frame: Any, event: str, argument: Any) -> None:
        code = frame.f_code
        if code.co_filename.startswith(self._prefix):
            self._calls.add((os.path.relpath(code.co_filename, REPOSITORY), code.co_firstlineno))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._calls, self._began = set(), time.process_time()
        threading.settrace(self._trace)  # type: ignore[arg-type]
        sys.settrace(self._trace)  # type: ignore[arg-type]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "setup":  # what a fixture calls counts for every test of the file
            self._setup[report.nodeid.partition("::")[0]] |= self._calls

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        sys.settrace(None)
        self._tests[nodeid] = (time.process_time() - self._began, self._calls)

    def pytest_sessionfinish(self) -> None:
        found = {
            name: (seconds, sorted(calls | self._setup[name.partition("::")[0]]))
            for name, (seconds, calls) in self._tests.items()
        }
        Path(self._report).write_text(json.dumps(found))


class _MutatedLoader(importlib.machinery.SourceFileLoader):
    """Loads one module from mutated source."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> Any:
        """Compile the mutated source."""
        return compile(self._source, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the mutated module before the file on disk."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = mutant.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        self._mutant = mutant

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Return the spec of the mutated module, None for every other."""
        if fullname != self._name:
            return None
        file = str(REPOSITORY / self._mutant.path)
        return importlib.util.spec_from_file_location(
            fullname, file, loader=_MutatedLoader(fullname, file, self._mutant.source)
        )


def _forked(tests: Sequence[str], limit_s: float, mutant: Mutant | None, plugins: list[Any]) -> tuple[int, str]:
    """Run pytest in a forked process; return its exit status and its last line, or what ended it."""
    with tempfile.TemporaryFile() as log:
        child = os.fork()
        if child == 0:
            _run_tests(mutant, tests, limit_s, plugins, log.fileno())
        deadline = time.monotonic() + WALL_FACTOR * limit_s
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines()
                code = os.waitstatus_to_exitcode(status)
                if code == -signal.SIGXCPU:
                    return code, "time limit"
                return code, next((line for line in lines if line.startswith(("FAILED", "ERROR"))), "".join(lines[-1:]))
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return -signal.SIGKILL, "time limit"


def _run_tests(mutant: Mutant | None, tests: Sequence[str], limit_s: float, plugins: list[Any], log: int) -> None:
    import pytest

    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + limit_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not compiled and not slow", "--no-header"]
    status = 3
    try:
        status = int(pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *options, *tests], plugins))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)
