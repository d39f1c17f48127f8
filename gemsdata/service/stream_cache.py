"""The streams of a server: built from a batch request, kept while they are in use, rebuilt from any later request."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gemsdata.genome.vocab import vocab_size
from gemsdata.masking.curriculum import Curriculum
from gemsdata.masking.strategies import MASKING_VERSION, Strategy
from gemsdata.service.batch_request import MAX_SEED, BatchRequest
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.split_reader import SplitReader
from gemsdata.stream.config import combined_fingerprint
from gemsdata.stream.order import build_order
from gemsdata.stream.stream import MaskedStream
from gemsdata.stream.world import World

MAX_BATCH_BYTES = 64 << 20
_MAX_STREAMS_KEPT = 16


@dataclass(frozen=True, kw_only=True)
class ExplicitStages(Curriculum):
    """A curriculum whose strategies and stages come with every batch request."""

    strategies: tuple[Strategy, ...]

    def maskings(self) -> tuple[Strategy, ...]:  # noqa: D102
        return self.strategies


class StreamCache:
    """Builds and keeps the streams over the shard sets of one server; thread-safe.

    Parameters
    ----------
    sets
        the shard sets; several are mixed, as `build_loader` does with a list.
    seeds
        smallest and largest seed that requests may have.
    """

    def __init__(self, sets: Sequence[ShardSet], seeds: tuple[int, int] = (0, MAX_SEED)) -> None:
        self.sets = list(sets)
        self.seeds = seeds
        self.fingerprint = combined_fingerprint([entry.manifest.fingerprint for entry in self.sets])
        self._lock = threading.Lock()
        self._readers: dict[tuple[str, str, str], list[SplitReader]] = {}
        self._streams: OrderedDict[str, MaskedStream] = OrderedDict()

    def stream(self, request: BatchRequest) -> MaskedStream:
        """Return the stream of a request; raise ValueError or FileNotFoundError if the request cannot be answered."""
        key = request.stream_key()
        with self._lock:
            if key in self._streams:
                self._streams.move_to_end(key)
                return self._streams[key]
        stream = self._build(request)
        with self._lock:
            self._streams[key] = stream
            while len(self._streams) > _MAX_STREAMS_KEPT:
                self._streams.popitem(last=False)
        return stream

    def _build(self, request: BatchRequest) -> MaskedStream:
        self._check(request)
        readers = self._readers_of(request.split, request.check, request.faults)
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
            ranks=[self._ranks_of(entry, request) for entry in self.sets],
            seed=request.seed,
            reverse_complement=request.reverse_complement,
            world=World(rank=request.rank, num_ranks=request.num_ranks),
        )
        if stream.layout.num_bytes > MAX_BATCH_BYTES:
            raise ValueError(
                f"a batch of {stream.layout.num_rows:,} rows has {stream.layout.num_bytes:,} bytes; the limit of a"
                f" server is {MAX_BATCH_BYTES:,}: give a smaller batch_size"
            )
        return stream

    def _check(self, request: BatchRequest) -> None:
        if request.fingerprint != self.fingerprint:
            raise ValueError(
                f"the request is for shard set {request.fingerprint}, this server has {self.fingerprint}; start it with"
                " the shard set that the run began with"
            )
        if request.masking_version != MASKING_VERSION:
            raise ValueError(
                f"the request is for masking version {request.masking_version}, this server has {MASKING_VERSION}; use"
                " the same gemsdata version on client and server"
            )
        if not self.seeds[0] <= request.seed <= self.seeds[1]:
            raise ValueError(
                f"the request has seed {request.seed}, this server answers seeds {self.seeds[0]} to {self.seeds[1]}"
            )

    def _readers_of(self, split: str, check: str, faults: str) -> list[SplitReader]:
        with self._lock:
            key = (split, check, faults)
            if key not in self._readers:
                self._readers[key] = [SplitReader(entry, split, check=check, faults=faults) for entry in self.sets]
            return self._readers[key]

    @staticmethod
    def _ranks_of(entry: ShardSet, request: BatchRequest) -> np.ndarray:
        if request.ranks is None:
            return entry.ranks
        ranks = np.frombuffer(request.ranks, "<u4")
        if ranks.size != vocab_size(entry.k):
            raise ValueError(f"the request has {ranks.size} ranks; the set has {vocab_size(entry.k)} token ids")
        return ranks
