"""docs/reliability.md and docs/views.md name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize(("page", "at_least"), [("reliability.md", 20), ("views.md", 10)])
def test_every_promise_names_tests_that_exist(page: str, at_least: int) -> None:
    promises = [
        line for line in (REPOSITORY / "docs" / page).read_text().splitlines() if re.match(r"\| .*tests/", line)
    ]
    assert len(promises) > at_least
    for line in promises:
        named = re.findall(r"`(tests/\w+\.py)::(\w+)`", line)
        assert named, line
        for path, name in named:
            assert f"\ndef {name}(" in (REPOSITORY / path).read_text(), f"{path} has no {name}"
