"""A campaign: which mutants are tried, on which tests, and what became of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools.mutants.operators import REPOSITORY, Mutant, mutants_of
from tools.mutants.processes import TestRun, observe, survives

TARGETS = json.loads(Path(__file__).with_name("targets.json").read_text())
"""source file or folder -> the test files that must kill its mutants, the quickest first"""
EQUIVALENT = json.loads(Path(__file__).with_name("equivalent.json").read_text())
"""key of a mutant -> why no test can kill it"""
OBSERVE_LIMIT_S = 900


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant."""

    mutant: Mutant
    kind: str
    """killed, time limit, equivalent or survived"""
    end: str
    """the test that failed, or the reason"""


def choose(per_file: int, seed: int, only: Sequence[str]) -> list[tuple[Mutant, tuple[str, ...]]]:
    """Return (mutant, test files) of the mutants to try: of each source file the ``per_file`` first by a seeded hash.

    A mutant's hash depends on its own function alone, so that a change elsewhere keeps the choice.
    """

    def draw(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{seed}/{mutant.key}".encode()).digest()

    chosen = []
    for target, tests in TARGETS.items():
        place = REPOSITORY / target
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if only and not any(str(path.relative_to(REPOSITORY)).startswith(prefix) for prefix in only):
                continue
            found = sorted(mutants_of(path), key=draw)[:per_file]
            chosen += [(mutant, tuple(tests)) for mutant in sorted(found, key=lambda mutant: mutant.line)]
    return chosen


def outdated() -> list[str]:
    """Return the keys of equivalent.json that name no mutant any more."""
    paths = {REPOSITORY / key.partition("::")[0] for key in EQUIVALENT}
    keys = {mutant.key for path in paths if path.exists() for mutant in mutants_of(path)}
    return [key for key in EQUIVALENT if key not in keys]


def run(chosen: Sequence[tuple[Mutant, tuple[str, ...]]], results: Path, jobs: int) -> Iterator[Outcome]:
    """Yield what becomes of each mutant, in order; ``results`` keeps it, so that a stopped campaign goes on.

    A mutant runs the tests that call its function, the quickest first, and then, where all of them pass, the other
    tests of the files.
    """
    known = json.loads(results.read_text()) if results.exists() else {}
    observed: dict[tuple[str, ...], dict[str, TestRun]] = {}
    hashes = {tests: _hash_of(tests) for _, tests in chosen}
    for mutant, tests in chosen:
        if tests not in observed and mutant.key not in EQUIVALENT and not _answer(known, mutant, hashes[tests]):
            observed[tests] = observe(tests, OBSERVE_LIMIT_S)

    def outcome(task: tuple[Mutant, tuple[str, ...]]) -> Outcome:
        mutant, tests = task
        if mutant.key in EQUIVALENT:
            return Outcome(mutant, "equivalent", EQUIVALENT[mutant.key])
        kind, end = _answer(known, mutant, hashes[tests]) or _try(mutant, observed[tests])
        known[mutant.key] = {"function": mutant.function_hash, "tests": hashes[tests], "kind": kind, "end": end}
        return Outcome(mutant, kind, end)

    with ThreadPoolExecutor(jobs) as pool:
        for found in pool.map(outcome, chosen):
            new = results.with_suffix(".new")
            new.write_text(json.dumps(dict(known), indent=1) + "\n")
            os.replace(new, results)
            yield found


def _answer(known: dict[str, dict[str, str]], mutant: Mutant, tests: str) -> tuple[str, str] | None:
    """Return what an earlier run found, None where the function has changed, or the tests of a survivor."""
    found = known.get(mutant.key)
    if not found or found["function"] != mutant.function_hash:
        return None
    return None if found["kind"] == "survived" and found["tests"] != tests else (found["kind"], found["end"])


def _try(mutant: Mutant, observed: dict[str, TestRun]) -> tuple[str, str]:
    place = (mutant.path, mutant.function_line)
    calling = [name for name, test in observed.items() if place in test.functions]
    others = [name for name in observed if name not in set(calling)]
    for tests in (calling, others):
        if tests:
            tests.sort(key=lambda name: observed[name].seconds)
            limit_s = 10 + 5 * sum(observed[name].seconds for name in tests)
            passed, end = survives(mutant, tests, limit_s)
            if not passed:
                return "time limit" if end == "time limit" else "killed", end
    return "survived", ""


def _hash_of(tests: Sequence[str]) -> str:
    files = [REPOSITORY / name for name in tests]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
