"""Two processes that train together under gloo: one is killed, the other ends with a message, both resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stream_support import make_set
from tools.soak.two_processes import LIMIT_S, kill_one, losses, train

pytestmark = [pytest.mark.compiled, pytest.mark.slow]


def test_one_of_two_is_killed_and_both_resume_to_the_same_losses(tmp_path: Path) -> None:
    shards = make_set(tmp_path / "set")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(shards, whole)
    survived = kill_one(shards, broken, 12)
    assert survived.seconds < LIMIT_S
    assert survived.status > 0
    assert "RuntimeError" in survived.message
    assert any(word in survived.message.lower() for word in ("connection", "peer", "closed")), survived.message
    assert survived.last_step == 11
    train(shards, broken)
    for rank in range(2):
        assert losses(broken, rank) == losses(whole, rank)
        assert {stage for stage, _ in losses(whole, rank).values()} == {0, 1}
