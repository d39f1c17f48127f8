"""A loader under a host that counts in epochs: passes from the first batch, and a resume between two of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gemsdata.stream.loader import Batch, Loader


class Passes:
    """Iterates a loader as an iterable of known length; ``from_start``: every time from its first batch."""

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
        """Go on where ``state`` stands, as `resume` does."""
        resume(self.loader, state)


def restart(loader: Loader) -> None:
    """Let the next iteration of a loader begin with its first batch, also after one that was broken off."""
    loader.load_state_dict({**loader.state_dict(), "step": 0})


def resume(loader: Loader, state: dict[str, Any]) -> None:
    """Go on where ``state`` stands; at the end of a pass, with the first batch of the next one.

    The host decides whether another pass comes. Raises ValueError as `Loader.load_state_dict` does.
    """
    loader.load_state_dict(state)
    if loader.step == loader.num_steps:
        restart(loader)
