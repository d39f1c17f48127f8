"""docs/reliability.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
REPOSITORY = Path(__file__).parents[1]


def test_every_promise_names_tests_that_exist() -> None:
    promises = [
        line for line in (REPOSITORY / "docs/reliability.md").read_text().splitlines() if re.match(r"\| .*tests/", line)
    ]
    assert len(promises) > 20
    for line in promises:
        named = re.findall(r"`(tests/\w+\.py)::(\w+)`", line)
        assert named, line
        for path, name in named:
            assert f"\ndef {name}(" in (REPOSITORY / path).read_text(), f"{path} has no {name}"
