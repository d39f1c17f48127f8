"""A mutation campaign: the choice of mutants, their tests, and their outcomes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.mutants.operators import REPOSITORY, Mutant, mutants_of
from tools.mutants.processes import TestRun, try_mutant, with_collected

TARGETS = json.loads(Path(__file__).with_name("targets.json").read_text())
"""source file, or folder (its files that are not named before it) -> the test files that must kill their mutants"""
EQUIVALENT = json.loads(Path(__file__).with_name("equivalent.json").read_text())
"""key of a mutant -> why no test can kill it"""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a mutant."""

    mutant: Mutant
    kind: str
    """killed, time limit, equivalent, survived, or not called by any test of its target"""
    end: str
    """the test that failed, or the reason"""


def choose(per_file: int, seed: int, only: Sequence[str]) -> list[tuple[Mutant, tuple[str, ...]]]:
    """Return (mutant, test files) of the mutants to try: of each source file the ``per_file`` first by a seeded hash.

    A mutant's hash depends only on its own function, so that changes elsewhere do not affect the choice.
    """

    def draw(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{seed}/{mutant.key}".encode()).digest()

    chosen = []
    taken: set[Path] = set()
    for target, tests in TARGETS.items():
        place = REPOSITORY / target
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if path in taken:
                continue
            taken.add(path)
            if only and not any(str(path.relative_to(REPOSITORY)).startswith(prefix) for prefix in only):
                continue
            found = sorted(mutants_of(path), key=draw)[:per_file]
            chosen += [(mutant, tuple(tests)) for mutant in sorted(found, key=lambda mutant: mutant.line)]
    return chosen


def outdated() -> list[str]:
    """Return the keys of equivalent.json that no longer name a mutant."""
    paths = {REPOSITORY / key.partition("::")[0] for key in EQUIVALENT}
    keys = {mutant.key for path in paths if path.exists() for mutant in mutants_of(path)}
    return [key for key in EQUIVALENT if key not in keys]


class Results:
    """The outcomes so far, stored in a file, so that a stopped campaign can continue."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, mutant: Mutant, tests: str | None, seconds: float) -> Outcome | None:
        """Return the outcome; None if the function has changed or, if it was not killed, the tests (if given)."""
        found = self._found.get(mutant.key)
        if not found or found["function"] != mutant.function_hash:
            return None
        if (
            tests
            and found["kind"] in ("survived", "not called")
            and (found["tests"] != tests or found["seconds"] < seconds)
        ):
            return None
        return Outcome(mutant, found["kind"], found["end"])

    def put(self, outcome: Outcome, tests: str, seconds: float) -> None:
        """Store an outcome with its tests and its duration in seconds."""
        mutant = outcome.mutant
        self._found[mutant.key] = {"kind": outcome.kind, "end": outcome.end, "function": mutant.function_hash}
        self._found[mutant.key] |= {"tests": tests, "seconds": seconds}
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._found, indent=1) + "\n")
        os.replace(new, self._path)


def run(
    chosen: Sequence[tuple[Mutant, tuple[str, ...]]],
    results: Results,
    seconds: float,
    tell: Callable[[Outcome], None],
    *,
    known_only: bool = False,
) -> list[Outcome]:
    """Return the outcome of each mutant, in order, and report each one; or only those known already.

    A mutant runs the tests that call its function, the quickest first, as many as take ``seconds`` without a mutant.
    """
    outcomes: dict[str, Outcome] = {}

    def note(outcome: Outcome) -> None:
        outcomes[outcome.mutant.key] = outcome
        tell(outcome)

    for files in dict.fromkeys(files for _, files in chosen):
        tests_hash = hashlib.sha256(
            b"".join((REPOSITORY / name.partition("::")[0]).read_bytes() for name in files)
        ).hexdigest()[:16]
        left = []
        for mutant in (mutant for mutant, of in chosen if of == files):
            if mutant.key in EQUIVALENT:
                note(Outcome(mutant, "equivalent", EQUIVALENT[mutant.key]))
            elif found := results.get(mutant, None if known_only else tests_hash, seconds):
                note(found)
            else:
                left.append(mutant)

        def try_all(tests: list[TestRun], left: list[Mutant] = left, tests_hash: str = tests_hash) -> None:
            for mutant in left:
                outcome = Outcome(mutant, *_try(mutant, tests, seconds))
                results.put(outcome, tests_hash, seconds)
                note(outcome)

        if left and not known_only:
            with_collected(files, try_all)
    return [outcomes[mutant.key] for mutant, _ in chosen if mutant.key in outcomes]


def _try(mutant: Mutant, tests: Sequence[TestRun], seconds: float) -> tuple[str, str]:
    place = (mutant.path, mutant.function_line)
    calling = sorted((test for test in tests if place in test.functions), key=lambda test: test.seconds)
    taken, total = [], 0.0
    for test in calling:
        total += test.seconds
        if taken and total > seconds:
            break
        taken.append(test)
    if not taken:
        return "not called", ""
    return try_mutant(mutant, taken)
