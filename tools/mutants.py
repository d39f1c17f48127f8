"""Mutation testing: change one operator or number at a time, and see whether a test fails.

    python -m tools.mutants [--per-file N] [--seed S] [--only PATH ...] [--jobs J] [--output mutants.json]

Every mutant runs in a process of its own, with the kernels as plain Python, so that the tests see mutated kernels as
well. A mutant is killed when a test fails or the time limit is exceeded. Survivors that change nothing observable are
listed with the reason in ``tools/equivalent_mutants.json``; any other survivor makes the exit status 1.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.json")
BASELINE_LIMIT_S = 600

TARGETS = json.loads(Path(__file__).with_name("mutant_targets.json").read_text())
"""source file or folder -> the test files that must kill its mutants, the quickest first"""

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Div: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Pow: ast.Mult,
}  # fmt: skip
_CALLS = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any"}
_INDICES = {"epoch", "step", "stage", "seed", "source", "key", "first", "first_row"}
"""Arguments of these names are replaced by 0"""


@dataclass(frozen=True)
class Mutant:
    """One changed place of one source file."""

    path: str
    """relative to the repository"""
    line: int
    scope: str
    """function in which it stands"""
    before: str
    after: str
    source: str
    """the whole file, mutated"""

    @property
    def key(self) -> str:
        """Identify the mutant independently of line numbers."""
        return f"{self.path}::{self.scope}::{self.before} => {self.after}"


def mutants_of(path: Path) -> list[Mutant]:
    """Return every mutant of a source file, in the order of the file."""
    tree = ast.parse(path.read_text())
    found = []
    for scope, node in _mutable(tree):
        for field_owner, attribute, value in _changes(node):
            original = copy.deepcopy(getattr(field_owner, attribute))
            shown = node.test if isinstance(node, ast.If | ast.While) else node
            before = ast.unparse(shown)
            setattr(field_owner, attribute, value)
            shown = node.test if isinstance(node, ast.If | ast.While) else node
            after, source = ast.unparse(shown), ast.unparse(ast.fix_missing_locations(tree))
            setattr(field_owner, attribute, original)
            if after != before:
                found.append(
                    Mutant(str(path.relative_to(REPOSITORY)), node.lineno, scope, before[:160], after[:160], source)
                )
    return found


def _mutable(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    """Yield (scope, node) for the nodes that may be changed: no annotations, docstrings, messages or decorators."""

    def walk(node: ast.AST, scope: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = f"{scope}.{node.name}".lstrip(".")
            for child in node.body:
                yield from walk(child, inner)
            return
        if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert):
            return
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                yield from walk(node.value, scope)
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if scope:  # module-level constants name formats and tags; tests compare files with them
            yield scope, node
        for child in ast.iter_child_nodes(node):
            yield from walk(child, scope)

    for statement in tree.body:
        yield from walk(statement, "")


def _changes(node: Any) -> Iterator[tuple[Any, str, Any]]:
    """Yield (owner, attribute, new value) for the changes of one node."""
    if isinstance(node, ast.Compare):
        new = _COMPARISONS.get(type(node.ops[0]))
        if new:
            yield node, "ops", [new(), *node.ops[1:]]
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        new_operator = _ARITHMETIC.get(type(node.op))
        if new_operator:
            yield node, "op", new_operator()
    elif isinstance(node, ast.BoolOp):
        yield node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield node, "value", not node.value
        elif isinstance(node.value, int | float):
            yield node, "value", node.value + 1
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        yield node, "test", ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in _CALLS:
            owner, attribute = (node.func, "id") if isinstance(node.func, ast.Name) else (node.func, "attr")
            yield owner, attribute, _CALLS[name]
        for i, argument in enumerate(node.args):
            if isinstance(argument, ast.Name) and argument.id in _INDICES:
                yield node, "args", [*node.args[:i], ast.Constant(0), *node.args[i + 1 :]]


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
        module = mutant.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        self._name, self._mutant = module, mutant

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Return the spec of the mutated module, None for every other."""
        if fullname != self._name:
            return None
        file = str(REPOSITORY / self._mutant.path)
        return importlib.util.spec_from_file_location(
            fullname, file, loader=_MutatedLoader(fullname, file, self._mutant.source)
        )


def survives(mutant: Mutant | None, tests: Sequence[str], limit_s: float) -> tuple[bool, str]:
    """Run tests on a mutant (None: on the code as it is) in a forked process; return (all passed, how it ended)."""
    with tempfile.TemporaryFile() as log:
        child = os.fork()
        if child == 0:
            _run_tests(mutant, tests, log.fileno())
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines()
                return os.waitstatus_to_exitcode(status) == 0, lines[-1] if lines else "no output"
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False, "time limit"


def _run_tests(mutant: Mutant | None, tests: Sequence[str], log: int) -> None:
    import pytest

    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
    arguments = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-m",
        "not compiled and not slow",
        "--no-header",
    ]
    status = 3
    try:
        status = int(pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *arguments, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def choose(per_file: int, seed: int, only: Sequence[str]) -> list[tuple[Mutant, tuple[str, ...]]]:
    """Return the mutants to try, at most ``per_file`` of each source file, with their tests."""
    chosen = []
    for target, tests in TARGETS.items():
        place = REPOSITORY / target
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            name = str(path.relative_to(REPOSITORY))
            if only and not any(name.startswith(prefix) for prefix in only):
                continue
            found = mutants_of(path)
            if len(found) > per_file:
                found = random.Random(f"{seed}/{name}").sample(found, per_file)
            chosen += [(mutant, tuple(tests)) for mutant in sorted(found, key=lambda mutant: mutant.line)]
    return chosen


def preload() -> None:
    """Import what every test process needs, once, without the code under test."""
    os.environ["NUMBA_DISABLE_JIT"] = "1"
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    import numba
    import numpy
    import pyarrow.parquet
    import pytest
    import torch.utils.data
    import transformers

    assert not any(name.partition(".")[0] == "gemsdata" for name in sys.modules), "the code under test is imported"
    torch.set_num_threads(1)
    del numba, numpy, pyarrow, pytest, transformers


def main() -> int:
    """Run the command line; return 1 when a mutant survives that is not known to be equivalent."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--per-file", type=int, default=25, help="most mutants of one source file")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of mutants")
    parser.add_argument("--only", nargs="*", default=[], help="source files or folders, relative to the repository")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--output", type=Path, default=None, help="write every mutant and its fate as JSON")
    options = parser.parse_args()
    os.chdir(REPOSITORY)
    preload()
    chosen = choose(options.per_file, options.seed, options.only)
    limit_s: dict[tuple[str, ...], float] = {}
    for tests in dict.fromkeys(tests for _, tests in chosen):
        began = time.monotonic()
        passed, end = survives(None, tests, BASELINE_LIMIT_S)
        if not passed:
            print(f"error: the tests fail without any mutant: {' '.join(tests)}: {end}", file=sys.stderr)
            return 2
        limit_s[tests] = 20 + 3 * options.jobs * (time.monotonic() - began)
    equivalent = json.loads(EQUIVALENT.read_text())
    rows: list[dict[str, Any]] = []

    def run(task: tuple[Mutant, tuple[str, ...]]) -> dict[str, Any]:
        mutant, tests = task
        if mutant.key in equivalent:
            outcome, end = "equivalent", equivalent[mutant.key]
        else:
            passed, end = survives(mutant, tests, limit_s[tests])
            outcome = "survived" if passed else "time limit" if end == "time limit" else "killed"
        row = {**asdict(mutant), "outcome": outcome, "end": end}
        del row["source"]
        return row

    with ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(run, chosen):
            rows.append(row)
            if row["outcome"] == "survived":
                print(
                    f"survived: {row['path']}:{row['line']} {row['scope']}: {row['before']}  =>  {row['after']}",
                    flush=True,
                )
            if options.output:
                options.output.write_text(json.dumps(rows, indent=1) + "\n")
    print_table(rows)
    return int(any(row["outcome"] == "survived" for row in rows))


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print outcomes by source file as Markdown."""
    outcomes = ("killed", "time limit", "equivalent", "survived")
    print("| source | mutants | " + " | ".join(outcomes) + " |\n| --- " * 1 + "| ---: " * (1 + len(outcomes)) + "|")
    for path in [*dict.fromkeys(row["path"] for row in rows), "all"]:
        counts = Counter(row["outcome"] for row in rows if path in (row["path"], "all"))
        print(f"| {path} | {counts.total()} | " + " | ".join(str(counts[name]) for name in outcomes) + " |")


if __name__ == "__main__":
    sys.exit(main())
