"""The fuzzer finds crashes and wrong answers, and its findings stay mended: a short run of every format."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.fuzz import runner
from tools.fuzz.__main__ import all_targets
from tools.fuzz.runner import WrongAnswer, mutated_input, run_target

pytestmark = pytest.mark.once
NAMES = [target.name for target in all_targets(Path("unused"))]


class Misbehaving:
    """Numbers from 0 to 9, each of which has its own fate."""

    name = "misbehaving"

    def prepare(self) -> None:
        pass

    def seeds(self) -> Sequence[int]:
        return [0]

    def mutate(self, seed: int, generator: random.Random) -> int:
        return generator.randrange(8)

    def run(self, content: int) -> None:
        if content == 1:
            raise ValueError("one line")
        if content == 2:
            raise ValueError("two\nlines")
        if content == 3:
            os.kill(os.getpid(), signal.SIGBUS)
        if content == 4:
            raise WrongAnswer("four")
        if content == 5:
            bytearray(1 << 40)
        if content == 6:
            raise KeyError(6)
        if content == 7:
            os._exit(7)


def test_every_kind_of_failure_is_classed() -> None:
    target = Misbehaving()
    inputs = [mutated_input(target, 1, index) for index in range(40)]
    outcome = run_target(target, 40, 1)
    assert outcome.right == inputs.count(0)
    assert outcome.refused == inputs.count(1)
    assert outcome.bugs == 40 - outcome.right - outcome.refused
    said = {inputs[example["index"]]: example["error"] for example in outcome.examples}
    assert said == {
        2: "ValueError: two\nlines",
        3: "the process died: killed by SIGBUS",
        4: "WrongAnswer: four",
        5: "MemoryError: ",
        6: "KeyError: 6",
        7: "the process died: exit status 7",
    }


def test_a_hang_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Misbehaving):
        def run(self, content: int) -> None:
            while content:
                pass

    monkeypatch.setattr(runner, "_TRY_SECONDS", 0.05)
    outcome = run_target(Hanging(), 4, 1)
    inputs = [mutated_input(Hanging(), 1, index) for index in range(4)]
    assert outcome.bugs == sum(map(bool, inputs)) > 0
    assert {example["error"] for example in outcome.examples} == {"more than 0.05 s"}


@pytest.mark.parametrize("name", NAMES)
def test_a_short_run_finds_nothing(tmp_path: Path, name: str) -> None:
    (target,) = [target for target in all_targets(tmp_path) if target.name == name]
    outcome = run_target(target, 60, seed=7)
    assert outcome.bugs == 0, outcome.examples
    assert outcome.refused > 0
