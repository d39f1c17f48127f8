"""A sample of `make tamper` and `make chaos`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tools.chaos.kills import SIGNALS, kill
from tools.chaos.subjects import subjects
from tools.chaos.tamper import campaign

pytestmark = [pytest.mark.once, pytest.mark.compiled]


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("name", ["arrow", "webdataset, zstd", "packed"])
def test_no_change_of_a_set_is_missed(tmp_path: Path, name: str) -> None:
    outcomes = campaign(tmp_path / "sets", 12, 5, [name])
    assert sum(outcome.tries for outcome in outcomes) > 25
    assert {outcome.change: outcome.missed for outcome in outcomes if outcome.missed} == {}
    assert {outcome.change: outcome.wrong for outcome in outcomes if outcome.wrong} == {}


@pytest.mark.usefixtures("unsynced")
def test_killed_commands_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    for subject in subjects(tmp_path):
        if subject.name in ("shard --overwrite", "npmi", "finalise"):
            outcome = kill(subject, tmp_path / "kills", 3, random.Random(1), said.append)
            assert outcome.failures == [], said
            assert outcome.by_signal == dict.fromkeys(SIGNALS, 1)
