"""Batch requests of clients to servers, as strict JSON.

A batch is a pure function of its request and of the shard sets that it names. A server therefore keeps no
state about its clients, and any server that holds the sets can answer any request. `FIELDS` is the schema: a field that
is missing, unknown, of another type or out of range is rejected by name.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gemsdata.masking.registry import names
from gemsdata.masking.strategies import MASKING_VERSION, Strategy, resolve
from gemsdata.service.view_request import read_view, view_json
from gemsdata.shards.split_reader import CHECKS, FAULT_POLICIES
from gemsdata.stream.order import REMAINDERS
from gemsdata.views.options import ViewOptions

VERSION = 4
"""version of the protocol: of requests and of the record batches that answer them"""
MAX_BYTES = 1 << 20
"""a larger request is rejected without being parsed; with NPMI ranks of k = 8, a request has 0.35 MB"""
MAX_STEPS = 1024
"""steps of one request"""
MAX_STEP = 1 << 40
MAX_GLOBAL_BATCH = 1 << 22
MAX_MASKINGS = 16
MAX_VIEWS = 64
MAX_SEED = (1 << 64) - 1
_MAX_INT = (1 << 31) - 1
_MAX_SETS = 64


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """A request for consecutive batches of one rank."""

    fingerprint: str
    """identity of the data, as `MaskedStream.fingerprint` returns it: 64 hex digits"""
    masking_version: int = MASKING_VERSION
    views: tuple[ViewOptions, ...] | None = None
    """views of each of the server's sets, in portable form; None: the rows that the server was started with"""
    split: str
    check: str
    faults: str
    seed: int
    shuffle: bool | int
    remainder: str
    weights: tuple[float, ...] | None
    """weight of each set of a mixture; None: a single set"""
    global_batch: int
    rank: int
    num_ranks: int
    reverse_complement: float
    coordinates: bool = False
    maskings: tuple[Strategy, ...]
    """strategies of stages 0, 1, ...; later stages use the last"""
    ranks: bytes | None = None
    """NPMI ranks to mask by, little-endian uint32[4**k + 5]; None: those of the sets"""
    first_step: int
    num_steps: int
    stage_log: tuple[tuple[int, int], ...]
    """(step, stage): the stage from that step on; the first entry is not after ``first_step``"""

    def steps(self) -> range:
        """Return the requested steps."""
        return range(self.first_step, self.first_step + self.num_steps)

    def stage(self, step: int) -> int:
        """Return the stage of a step."""
        return [stage for first, stage in self.stage_log if first <= step][-1]

    def to_json(self) -> bytes:
        """Return the request as JSON."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content["views"] = None if self.views is None else [view_json(view) for view in self.views]
        content["maskings"] = [masking.describe() for masking in self.maskings]
        content["ranks"] = None if self.ranks is None else base64.b64encode(self.ranks).decode()
        return json.dumps({"version": VERSION, **content}, separators=(",", ":")).encode()

    def stream_key(self) -> str:
        """Return a hash of everything except the steps; requests for the same stream have the same key."""
        without_steps = dataclasses.replace(self, first_step=0, num_steps=1, stage_log=())
        return hashlib.sha256(without_steps.to_json()).hexdigest()

    @classmethod
    def parse(cls, data: bytes) -> BatchRequest:
        """Parse a request; raise ValueError that names the wrong field."""
        if len(data) > MAX_BYTES:
            raise ValueError(f"batch request of {len(data):,} bytes; the limit is {MAX_BYTES:,}")
        content = _json_object(data)
        version = content.pop("version", None)
        if version != VERSION or type(version) is not int:
            raise ValueError(
                f"batch request of protocol version {_shown(version)}; this server has version {VERSION}: use the same"
                " gemsdata version on client and server"
            )
        if missing := FIELDS.keys() - content.keys():
            raise ValueError(f"batch request without {', '.join(sorted(missing))}")
        if unknown := content.keys() - FIELDS.keys():
            raise ValueError(f"batch request with unknown fields: {', '.join(map(_shown, sorted(unknown)))}")
        request = cls(**{name: read(name, content[name]) for name, read in FIELDS.items()})
        request._check()
        return request

    def _check(self) -> None:
        if not self.rank < self.num_ranks <= self.global_batch:
            raise ValueError(
                f"batch request: rank {self.rank} of {self.num_ranks} in global batches of {self.global_batch} rows"
                " does not exist"
            )
        steps = [step for step, _ in self.stage_log]
        if steps != sorted(set(steps)) or steps[0] > self.first_step or len(steps) > self.num_steps:
            raise ValueError(
                f"batch request: stage_log has entries at steps {_shown(steps)} for {self.num_steps} steps from"
                f" {self.first_step}; give increasing steps, the first not after first_step, at most one per step"
            )


def parse_views(data: bytes) -> tuple[ViewOptions, ...] | None:
    """Parse a request for sources, {"views": as in a batch request}; raise ValueError that names what is wrong."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"request of {len(data):,} bytes; the limit is {MAX_BYTES:,}")
    content = _json_object(data)
    if content.keys() != {"views"}:
        raise ValueError("a request for sources has one field, views")
    views: tuple[ViewOptions, ...] | None = FIELDS["views"]("views", content["views"])
    return views


Reader = Callable[[str, Any], Any]
"""(name of the field, its JSON value) -> its value; raises ValueError"""


def _whole(low: int, high: int) -> Reader:
    def read(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"batch request: {name} = {_shown(value)}; give a whole number from {low} to {high}")
        return value

    return read


def _number(low: float, high: float) -> Reader:
    def read(name: str, value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise ValueError(f"batch request: {name} = {_shown(value)}; give a number from {low} to {high}")
        return float(value)

    return read


def _one_of(*choices: str) -> Reader:
    def read(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"batch request: {name} = {_shown(value)}; give one of {', '.join(choices)}")
        return value

    return read


def _list(most: int, entry: Reader) -> Reader:
    def read(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise ValueError(f"batch request: {name} = {_shown(value)}; give a list of 1 to {most} entries")
        return tuple(entry(name, item) for item in value)

    return read


def _or_none(read_value: Reader) -> Reader:
    return lambda name, value: None if value is None else read_value(name, value)


def _bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"batch request: {name} = {_shown(value)}; give true or false")
    return value


def _fingerprint(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"batch request: {name} = {_shown(value)}; give 64 hex digits")
    return value


def _shuffle(name: str, value: Any) -> bool | int:
    return value if isinstance(value, bool) else int(_whole(1, MAX_STEP)(f"{name} (true, false or rows)", value))


def _stage_entry(name: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"batch request: {name} has the entry {_shown(value)}; give [step, stage]")
    return _whole(0, MAX_STEP)(f"{name} step", value[0]), _whole(0, _MAX_INT)(f"{name} stage", value[1])


def _ranks(name: str, value: Any) -> bytes:
    try:
        ranks = base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        raise ValueError(f"batch request: {name} = {_shown(value)}; give the ranks in base64") from None
    if not ranks or len(ranks) % 4 or int(np.frombuffer(ranks, "<u4").max()) > 1 << 16:
        raise ValueError(
            f"batch request: {name} has {len(ranks):,} bytes; give ranks up to 65536 as little-endian uint32"
        )
    return ranks


def _masking(name: str, value: Any) -> Strategy:
    """Return the strategy that ``Strategy.describe`` described; every field is checked against its annotation."""
    if not isinstance(value, dict):
        raise ValueError(
            f"batch request: {name} has the entry {_shown(value)}; give objects as Strategy.describe returns them"
        )
    given = dict(value)
    title, version = given.pop("name", None), given.pop("masking_version", None)
    if version != MASKING_VERSION:
        raise ValueError(
            f"batch request: {name} of masking version {_shown(version)}; this server has {MASKING_VERSION}"
        )
    if not isinstance(title, str) or title not in names():
        raise ValueError(
            f"batch request: masking {_shown(title)} is unknown to this server; it has {', '.join(names())}"
        )
    cls = type(resolve(title))
    hints = _hints(title)
    for option, setting in given.items():
        if option not in {field.name for field in dataclasses.fields(cls)}:
            raise ValueError(f"batch request: masking {title!r} has no option {_shown(option)}")
        if not _fits(setting, hints[option]):
            raise ValueError(
                f"batch request: masking {title!r} has {option} = {_shown(setting)}; expected {hints[option]}"
            )
    options: dict[str, Any] = {
        option: tuple(setting) if isinstance(setting, list) else setting for option, setting in given.items()
    }
    try:
        return cls(**options)
    except (ValueError, TypeError) as error:
        raise ValueError(f"batch request: masking {title!r}: {str(error)[:300]}") from None


@functools.cache
def _hints(title: str) -> dict[str, Any]:
    return typing.get_type_hints(type(resolve(title)))


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value has an annotated type; sequences are tuples of one type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if hint is float:
        return type(value) in (int, float) and abs(value) <= _MAX_INT
    return type(value) is hint and not (hint is int and abs(value) > _MAX_INT)


FIELDS: dict[str, Reader] = {
    "fingerprint": _fingerprint,
    "masking_version": _whole(0, _MAX_INT),
    "views": _or_none(_list(MAX_VIEWS, read_view)),
    "split": _one_of("train", "valid"),
    "check": _one_of(*CHECKS),
    "faults": _one_of(*FAULT_POLICIES),
    "seed": _whole(0, MAX_SEED),
    "shuffle": _shuffle,
    "remainder": _one_of(*REMAINDERS),
    "weights": _or_none(_list(_MAX_SETS, _number(0, 1e18))),
    "global_batch": _whole(1, MAX_GLOBAL_BATCH),
    "rank": _whole(0, MAX_GLOBAL_BATCH),
    "num_ranks": _whole(1, MAX_GLOBAL_BATCH),
    "reverse_complement": _number(0, 1),
    "coordinates": _bool,
    "maskings": _list(MAX_MASKINGS, _masking),
    "ranks": _or_none(_ranks),
    "first_step": _whole(0, MAX_STEP),
    "num_steps": _whole(1, MAX_STEPS),
    "stage_log": _list(MAX_STEPS, _stage_entry),
}
"""the schema: every field of a request except its version, and the function that reads it"""


def _json_object(data: bytes) -> dict[str, Any]:
    """Parse strict JSON: UTF-8, an object, no name twice, no NaN."""

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            raise ValueError("an object has a name twice")
        return content

    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is not a JSON number")

    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=without_duplicates, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the batch request is not JSON: {str(error).splitlines()[0][:200]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"the batch request is not a JSON object but {_shown(content)}")
    return content


def _shown(value: Any) -> str:
    """Return a value as short ASCII text for an error message."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
