"""The streams of a server: built from a batch request, cached while they are in use, rebuilt from any later request."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from gemsdata.genome.vocab import vocab_size
from gemsdata.masking.curriculum import Curriculum
from gemsdata.masking.strategies import MASKING_VERSION, Strategy
from gemsdata.service.batch_request import MAX_SEED, BatchRequest
from gemsdata.service.view_request import local
from gemsdata.shards.manifest import SPLITS
from gemsdata.shards.shard_set import ShardSet
from gemsdata.stream.config import combined_fingerprint
from gemsdata.stream.order import build_order
from gemsdata.stream.row_reader import RowReader
from gemsdata.stream.rows import Rows, fingerprint_of, ranks_of, reader_of, rows_of
from gemsdata.stream.stream import MaskedStream, Ranks
from gemsdata.stream.world import World
from gemsdata.views.options import ViewOptions
from gemsdata.views.view import View, open_view

MAX_BATCH_BYTES = 64 << 20
_MAX_STREAMS_KEPT = 16
_MAX_VIEWS_KEPT = 16
_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True)
class ExplicitStages(Curriculum):
    """A curriculum whose strategies and stages are given in every batch request."""

    strategies: tuple[Strategy, ...]

    def maskings(self) -> tuple[Strategy, ...]:  # noqa: D102
        return self.strategies


class ServedRows:
    """The rows of several sources, each a shard set of the server or a view of one; thread-safe."""

    def __init__(self, sources: Sequence[tuple[int, Rows]]) -> None:
        self.sources = list(sources)
        """(number of the shard set, its rows)"""
        self.fingerprint = combined_fingerprint([fingerprint_of(rows) for _, rows in self.sources])
        self._readers = _Kept[list[RowReader]](most=8)

    def readers(self, split: str, check: str, faults: str) -> list[RowReader]:
        """Return the readers of a split of every source."""
        return self._readers.get(
            (split, check, faults),
            lambda: [reader_of(rows, split, check=check, faults=faults) for _, rows in self.sources],
        )

    def ranks(self, request: BatchRequest) -> list[Ranks]:
        """Return the NPMI ranks to mask every source by; raise ValueError for ranks of a request that do not fit."""
        if request.ranks is None:
            return [ranks_of(rows) for _, rows in self.sources]
        ranks = np.frombuffer(request.ranks, "<u4")
        for _, rows in self.sources:
            if isinstance(rows, ShardSet) and ranks.size != vocab_size(rows.k):
                raise ValueError(f"the request has {ranks.size} ranks; the set has {vocab_size(rows.k)} token ids")
        return [ranks] * len(self.sources)

    def describe(self) -> list[dict[str, Any]]:
        """Return the description of every source for clients, as JSON values."""
        return [
            _described(number, rows, reader)
            for (number, rows), reader in zip(self.sources, self.readers("train", "hash", "raise"), strict=True)
        ]


class StreamCache:
    """Builds and keeps the streams over the shard sets of one server; thread-safe.

    Parameters
    ----------
    sets
        the shard sets; several are mixed, as `build_loader` does with a list.
    seeds
        smallest and largest seed that requests may have.
    view
        options of the view for requests that name no view.
    """

    def __init__(
        self,
        sets: Sequence[ShardSet],
        seeds: tuple[int, int] = (0, MAX_SEED),
        view: ViewOptions = ViewOptions(),  # noqa: B008
    ) -> None:
        self.sets = list(sets)
        self.seeds = seeds
        self._options = view.of_sets(len(self.sets))
        self.own = ServedRows([(number, rows_of(self.sets[number], options)) for number, options in self._options])
        self._views = _Kept[ServedRows](most=_MAX_VIEWS_KEPT)
        self._streams = _Kept[MaskedStream](most=_MAX_STREAMS_KEPT)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the rows that the server was started with."""
        return self.own.fingerprint

    def rows(self, views: tuple[ViewOptions, ...] | None) -> ServedRows:
        """Return the rows of views of each set, or those that the server was started with.

        Raises ValueError for options that do not fit the sets.
        """
        if views is None:
            return self.own
        return self._views.get(views, lambda: self._open(views))

    def stream(self, request: BatchRequest) -> MaskedStream:
        """Return the stream of a request; raise ValueError or FileNotFoundError if the request cannot be answered."""
        return self._streams.get(request.stream_key(), lambda: self._build(request))

    def _open(self, views: tuple[ViewOptions, ...]) -> ServedRows:
        own = [options for _, options in self._options]
        opened = [local(options, own) for options in views]
        return ServedRows([(i, open_view(shards, options)) for options in opened for i, shards in enumerate(self.sets)])

    def _build(self, request: BatchRequest) -> MaskedStream:
        self._check(request)
        rows = self.rows(request.views)
        if request.fingerprint != rows.fingerprint:
            raise ValueError(
                f"the request is for shard set {request.fingerprint}, this server has {rows.fingerprint}; start it with"
                " the shard set that the run began with"
            )
        readers = rows.readers(request.split, request.check, request.faults)
        order = build_order(
            readers,
            global_batch=request.global_batch,
            seed=request.seed,
            shuffle=request.shuffle,
            remainder=request.remainder,
            weights=request.weights,
        )
        stream = MaskedStream(
            readers,
            order,
            ExplicitStages(strategies=request.maskings),
            ranks=rows.ranks(request),
            seed=request.seed,
            reverse_complement=request.reverse_complement,
            world=World(rank=request.rank, num_ranks=request.num_ranks),
            coordinates=request.coordinates,
        )
        if stream.layout.num_bytes > MAX_BATCH_BYTES:
            raise ValueError(
                f"a batch of {stream.layout.num_rows:,} rows has {stream.layout.num_bytes:,} bytes; the limit of a"
                f" server is {MAX_BATCH_BYTES:,}: give a smaller batch_size"
            )
        return stream

    def _check(self, request: BatchRequest) -> None:
        if request.masking_version != MASKING_VERSION:
            raise ValueError(
                f"the request is for masking version {request.masking_version}, this server has {MASKING_VERSION}; use"
                " the same gemsdata version on client and server"
            )
        if not self.seeds[0] <= request.seed <= self.seeds[1]:
            raise ValueError(
                f"the request has seed {request.seed}, this server answers seeds {self.seeds[0]} to {self.seeds[1]}"
            )


class _Kept(Generic[_Value]):
    """A thread-safe cache of the ``most`` most recently used values."""

    def __init__(self, *, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """Return the value of a key; for a new key, the result of ``make``, unless another thread was first."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        made = make()
        with self._lock:
            value = self._values.setdefault(key, made)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


def _described(number: int, rows: Rows, reader: RowReader) -> dict[str, Any]:
    vocabulary = dataclasses.asdict(reader.vocabulary)
    if vocabulary["random_ids"] is not None:
        vocabulary["random_ids"] = vocabulary["random_ids"].tolist()
    return {
        "shards": number,
        "fingerprint": fingerprint_of(rows),
        "token_identity": reader.token_identity,
        "k": reader.k,
        "row_tokens": reader.row_tokens,
        "num_rows": {split: rows.num_rows(split) for split in SPLITS},
        "vocabulary": vocabulary,
        "weighted": reader.weighted,
        "viewed": isinstance(rows, View),
    }
