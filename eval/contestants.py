"""Who takes part in an evaluation: names and model folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RANDOM_SUFFIX = "-random"


@dataclass(frozen=True)
class Contestant:
    """A model folder under a name."""

    name: str
    folder: str
    random_weights: bool = False
    """take the folder's architecture and tokenizer with random weights: the control"""


def parse_contestants(words: Sequence[str], *, controls: bool = False) -> list[Contestant]:
    """Return the contestants of ``NAME=FOLDER`` words; with ``controls`` each once more with random weights.

    Raises ValueError for a word of another form, a name with a slash, or a name that comes twice.
    """
    found = []
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder) or "/" in name:
            raise ValueError(f"--contestants {word!r}: give NAME=FOLDER, such as mine=RUN/final")
        found.append(Contestant(name, folder))
        if controls:
            found.append(Contestant(name + RANDOM_SUFFIX, folder, random_weights=True))
    names = [contestant.name for contestant in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--contestants names {name!r} twice; give each a name of its own")
    return found
