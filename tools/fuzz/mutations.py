"""Mutations of bytes and of JSON values: pure functions of a content and a random generator."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

_BYTES = b"\x00\x01\x09\x0a\x0d\x20\x22\x2b\x2c\x3b\x3e\x40\x7f\x80\xff"
_NUMBERS = (0, 1, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_LONGEST_RANGE = 200
_MOST_OPERATIONS = 4
_LARGEST_FLOAT = 10**300
"""and somewhat less: larger integers do not fit a float"""
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x",
    "\u0000", "é" * 50, "../../etc/passwd", "train", [], {}, [0], [[0, 0]], {"x": 1}, "0" * 64, [None],
)  # fmt: skip


def mutate_bytes(content: bytes, generator: random.Random, words: Sequence[bytes] = ()) -> bytes:
    """Return ``content`` after one to four mutations; ``words`` are tokens of the format."""
    data = bytearray(content)
    for _ in range(generator.randint(1, _MOST_OPERATIONS)):
        generator.choice(_OPERATIONS)(data, generator, words)
    return bytes(data)


def mutate_json(content: bytes, generator: random.Random) -> bytes:
    """Return a JSON document in which one to three values were replaced, removed, repeated or renamed."""
    document = json.loads(content)
    for _ in range(generator.randint(1, 3)):
        document = _mutate_value(document, generator)
    return json.dumps(document).encode()


def _mutate_value(document: Any, generator: random.Random) -> Any:
    document = copy.deepcopy(document)
    places = list(_places(document))
    if not places:
        return generator.choice(_VALUES)
    parent, key = generator.choice(places)
    action = generator.randrange(6)
    if action == 0:
        del parent[key]
    elif action == 1 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif action == 1:
        parent[str(key) + generator.choice(("_", "s", " "))] = parent.pop(key)
    elif action == 2 and isinstance(parent[key], int | float):
        change = generator.choice((-1, 1, 2, 1000, 0.5))
        parent[key] += int(change) if abs(parent[key]) > _LARGEST_FLOAT else change
    elif action == 3:
        other_parent, other_key = generator.choice(places)
        value = copy.deepcopy(other_parent[other_key])
        parent[key] = value
    elif action == 4 and isinstance(parent[key], str) and parent[key]:
        at = generator.randrange(len(parent[key]))
        parent[key] = parent[key][:at] + generator.choice("0f/\\é\u0000 x") + parent[key][at + 1 :]
    else:
        parent[key] = copy.deepcopy(generator.choice(_VALUES))
    return document


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of every value inside ``value``."""
    found: list[tuple[Any, Any]] = []
    keys: Any = ()
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        found.append((value, key))
        found += _places(value[key])
    return found


def _range(data: bytearray, generator: random.Random) -> tuple[int, int]:
    first = generator.randrange(len(data) + 1)
    return first, min(len(data), first + generator.randint(1, _LONGEST_RANGE))


def _flip(data: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)


def _set(data: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[generator.randrange(len(data))] = generator.choice(_BYTES)


def _number(data: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    at = generator.randrange(len(data) + 1)
    number = struct.pack(generator.choice("<>") + "I", generator.choice(_NUMBERS))
    data[at : at + 4] = number


def _cut(data: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    del data[generator.randrange(len(data) + 1) :]


def _delete(data: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    first, end = _range(data, generator)
    del data[first:end]


def _repeat(data: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    first, end = _range(data, generator)
    data[end:end] = data[first:end] * generator.choice((1, 2, 50))


def _insert(data: bytearray, generator: random.Random, words: Sequence[bytes]) -> None:
    at = generator.randrange(len(data) + 1)
    random_bytes = generator.randbytes(generator.randint(1, 8))
    data[at:at] = generator.choice([*words, random_bytes, bytes([generator.choice(_BYTES)])])


def _swap(data: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    first, end = _range(data, generator)
    other = generator.randrange(len(data) + 1)
    piece = bytes(data[first:end])
    data[first:end] = data[other : other + len(piece)]
    data[other : other + len(piece)] = piece


def _blank(data: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    first, end = _range(data, generator)
    data[first:end] = bytes([generator.choice(b"\x00\xff")]) * (end - first)


_OPERATIONS: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    _flip, _flip, _set, _number, _cut, _delete, _repeat, _insert, _insert, _swap, _blank,
)  # fmt: skip
