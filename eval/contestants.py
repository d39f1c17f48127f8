"""Who competes: names and folders of models, as a command line gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_RANDOM = "random:"


@dataclass(frozen=True)
class Entry:
    """A model that competes under a name."""

    name: str
    folder: str
    random_weights: bool = False
    """the control: its architecture and tokenizer, without what it has learned"""


def parse_contestants(words: Sequence[str]) -> list[Entry]:
    """Return entries from ``name=FOLDER``, or ``name=random:FOLDER`` for random weights; raise ValueError otherwise."""
    entries = []
    for word in words:
        name, _, folder = word.partition("=")
        if not name or not folder.removeprefix(_RANDOM):
            raise ValueError(f"contestant {word!r}: give name=FOLDER, or name=random:FOLDER for random weights")
        entries.append(Entry(name, folder.removeprefix(_RANDOM), folder.startswith(_RANDOM)))
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError(f"two contestants have the same name ({', '.join(names)}); give each its own")
    return entries
