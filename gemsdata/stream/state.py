"""The state of a loader as a small dict for checkpoints, with validation of states that may be damaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gemsdata.stream.stage_log import CAPACITY

STATE_VERSION = 2
"""1 called config_hash "recipe" """
MAX_STEP = 1 << 40
_MAX_STAGE = 1 << 31
_MUST_MATCH = {
    "fingerprint": "open the shard set that the run began with",
    "seed": "pass that seed to build_loader",
    "global_batch": "pass global_batch_size to build_loader, or a batch_size that fits the number of ranks",
    "config_hash": "pass the masking, curriculum, split, remainder, shuffle, weights and so on of that run",
    "stage_lag": "pass that stage_lag to build_loader",
}


@dataclass(frozen=True, kw_only=True)
class LoaderState:
    """The state of a stream after a batch: equal on every rank, independent of the topology."""

    fingerprint: str
    """fingerprint of the data"""
    config_hash: str
    """hash of all options that batches depend on"""
    seed: int
    global_batch: int
    step: int
    """step of the next batch"""
    stage_lag: int
    stage_log: tuple[tuple[int, int], ...]
    """(step, stage): the stage from that step on"""
    perplexities: tuple[tuple[int, float], ...]
    """(step, perplexity) of every evaluation"""

    def to_dict(self) -> dict[str, Any]:
        """Return the state as numbers, strings and lists, which JSON can hold."""
        content = dataclasses.asdict(self)
        for name in ("stage_log", "perplexities"):
            content[name] = [list(entry) for entry in content[name]]
        return {"version": STATE_VERSION, **content}

    @classmethod
    def parse(cls, content: Any) -> LoaderState:
        """Read what `to_dict` returned; raise ValueError, naming the field, for anything else."""
        if not isinstance(content, Mapping):
            raise ValueError(f"a loader state is a dict; {_shown(content)} is given: give what state_dict returned")
        content = dict(content)
        version = content.get("version", 0)
        if type(version) is not int:
            raise ValueError(f"the loader state has version {_shown(version)}; give what Loader.state_dict returned")
        if version > STATE_VERSION:
            raise ValueError(
                f"the state has version {_shown(version)}; this gemsdata reads up to {STATE_VERSION}: upgrade it"
            )
        if version == 1 and "recipe" in content:
            content["config_hash"] = content.pop("recipe")
        lacking = sorted({"version", *_READERS} - content.keys())
        if lacking:
            raise ValueError(f"the state lacks {', '.join(lacking)}; give what Loader.state_dict returned")
        return cls(**{name: read(name, content[name]) for name, read in _READERS.items()})

    def check_fits(self, own: LoaderState) -> None:
        """Raise ValueError if this state is of another stream than the loader whose state is ``own``."""
        for name, advice in _MUST_MATCH.items():
            if getattr(self, name) != getattr(own, name):
                raise ValueError(
                    f"the state has {name} {getattr(self, name)}, this loader has {getattr(own, name)}; {advice}"
                )


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 64 or not value.isascii() or not value.isprintable():
        raise ValueError(f"the loader state has {name} {_shown(value)}; it should be a hash in hex digits")
    return value


def _integer(low: int, high: int) -> Callable[[str, Any], int]:
    def read(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value < high:
            raise ValueError(f"the loader state has {name} {_shown(value)}; it should be an integer from {low}")
        return value

    return read


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float) or (type(value) is int and abs(value) > 1 << 1000):
        raise ValueError(f"the loader state has {name} {_shown(value)}; it should be a number")
    return float(value)


def _pairs(
    read_first: Callable[[str, Any], Any], read_second: Callable[[str, Any], Any], most: int | None = None
) -> Callable[[str, Any], tuple[tuple[Any, Any], ...]]:
    def read(name: str, value: Any) -> tuple[tuple[Any, Any], ...]:
        entries = value if isinstance(value, list | tuple) else None
        if entries is None or not all(isinstance(entry, list | tuple) and len(entry) == 2 for entry in entries):
            raise ValueError(f"the loader state has {name} {_shown(value)}; it should be a list of pairs")
        if most is not None and len(entries) > most:
            raise ValueError(f"the loader state has {len(entries)} entries in {name}; at most {most} are possible")
        pairs = tuple((read_first(name, first), read_second(name, second)) for first, second in entries)
        if list(pairs) != sorted(pairs, key=lambda pair: pair[0]):
            raise ValueError(f"the loader state has {name} {_shown(value)}; its steps should not decrease")
        return pairs

    return read


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "fingerprint": _text,
    "config_hash": _text,
    "seed": _integer(0, 1 << 64),
    "global_batch": _integer(1, 1 << 62),
    "step": _integer(0, MAX_STEP),
    "stage_lag": _integer(0, 1 << 62),
    "stage_log": _pairs(_integer(0, 1 << 62), _integer(0, _MAX_STAGE), CAPACITY),
    "perplexities": _pairs(_integer(0, MAX_STEP), _number),
}


def _shown(value: Any) -> str:
    """Return a value for an error message: ASCII, and short."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of too many digits, a list in itself
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
