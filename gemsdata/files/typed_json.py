"""JSON values read into frozen dataclasses, with every name and every type checked."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
_Reader = Callable[[Any, str], Any]
"""called with (value, its place in the document); returns the value of the field, or raises ValueError"""


def parse_object(text: bytes | str) -> dict[str, Any]:
    """Return the JSON object in ``text``; raise ValueError when it is not one JSON object with finite numbers."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__} where an object is needed")
    return value


def from_json(kind: type[T], value: Any, where: str) -> T:
    """Convert ``value``, the result of `json.loads`, to the dataclass ``kind``.

    Fields may be int, float, str, bool, None, dataclasses, and lists (also for `Sequence`), tuples of fixed length,
    dicts with names that are strings (also for `Mapping`) and unions with None of these. A value keeps its type: an int
    is accepted for a float and stays an int. Raises ValueError with the place, which begins with ``where``, for a
    missing or unknown name or a wrong type.
    """
    result: T = _reader(typing.cast(Any, kind))(value, where)
    return result


@functools.cache
def _reader(kind: Any) -> _Reader:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass_reader(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        read = _reader(inner)
        return lambda value, where: None if value is None else read(value, where)
    if origin in (list, Sequence):
        return _list_reader(_reader(arguments[0]))
    if origin is tuple:
        return _tuple_reader([_reader(argument) for argument in arguments])
    if origin in (dict, Mapping):
        return _dict_reader(_reader(arguments[1]))
    if kind is float:
        return _scalar_reader(float, int)
    return _scalar_reader(kind)


def _dataclass_reader(kind: type) -> _Reader:
    hints = typing.get_type_hints(kind)
    fields = {field.name: _reader(hints[field.name]) for field in dataclasses.fields(kind)}
    required = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def read(value: Any, where: str) -> Any:
        _check(value, dict, where)
        if not value.keys() <= fields.keys():
            raise ValueError(f"{where} has the unknown field {min(value.keys() - fields.keys())!r:.80}")
        if not required <= value.keys():
            raise ValueError(f"{where} has no field {min(required - value.keys())!r}")
        return kind(**{name: fields[name](item, f"{where}.{name}") for name, item in value.items()})

    return read


def _list_reader(item: _Reader) -> _Reader:
    def read(value: Any, where: str) -> Any:
        _check(value, list, where)
        return [item(entry, f"{where}[{index}]") for index, entry in enumerate(value)]

    return read


def _tuple_reader(items: list[_Reader]) -> _Reader:
    def read(value: Any, where: str) -> Any:
        _check(value, list, where)
        if len(value) != len(items):
            raise ValueError(f"{where} has {len(value)} entries, not {len(items)}")
        return tuple(item(entry, f"{where}[{i}]") for i, (item, entry) in enumerate(zip(items, value, strict=True)))

    return read


def _dict_reader(item: _Reader) -> _Reader:
    def read(value: Any, where: str) -> Any:
        _check(value, dict, where)
        return {name: item(entry, f"{where}.{name:.80}") for name, entry in value.items()}

    return read


def _scalar_reader(*kinds: type) -> _Reader:
    def read(value: Any, where: str) -> Any:
        if type(value) not in kinds:  # a bool is an int to isinstance
            raise ValueError(f"{where} is {value!r:.80}, which is not of type {kinds[0].__name__}")
        if kinds == (str,) and not value.isascii():
            _check_encodable(value, where)
        return value

    return read


def _check(value: Any, kind: type, where: str) -> None:
    if type(value) is not kind:
        raise ValueError(f"{where} is {value!r:.80}, which is not of type {kind.__name__}")


def _check_encodable(value: str, where: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where} is {value!r:.80}, which is not Unicode text") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the number {name}")
