"""Progress callbacks of long-running functions."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""called with (stage, amount done since the last call, total or None)"""


def no_progress(stage: str, done: int, total: int | None) -> None:
    """Report nothing."""
