"""Loaders in frameworks that count epochs: passes from the first batch, and resuming between two passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gemsdata.stream.loader import Batch, Loader


class Passes:
    """An iterable of known length over a loader; ``from_start``: every pass begins with the first batch."""

    def __init__(self, loader: Loader, *, from_start: bool) -> None:
        self.loader = loader
        self.from_start = from_start

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        if self.from_start:
            restart(self.loader)
        return iter(self.loader)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the loader; Lightning keeps it in its checkpoints."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, as `resume` does."""
        resume(self.loader, state)


def restart(loader: Loader) -> None:
    """Let the next iteration of a loader begin with its first batch, also after an interrupted one."""
    loader.load_state_dict({**loader.state_dict(), "step": 0})


def resume(loader: Loader, state: dict[str, Any]) -> None:
    """Continue from ``state``; at the end of a pass, with the first batch of the next one.

    The framework decides whether there is another pass. Raises ValueError as `Loader.load_state_dict` does.
    """
    loader.load_state_dict(state)
    if loader.step == loader.num_steps:
        restart(loader)
