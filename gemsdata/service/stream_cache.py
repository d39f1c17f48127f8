"""From a ticket to the stream that answers it: opened once, kept while it is in use, rebuilt from any ticket."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gemsdata.genome.vocab import vocab_size
from gemsdata.masking.curriculum import Curriculum
from gemsdata.masking.strategies import MASKING_VERSION, Strategy
from gemsdata.service.batch_request import MAX_SEED, Ticket
from gemsdata.shards.shard_set import ShardSet
from gemsdata.stream.mixture import order_of
from gemsdata.stream.reader import SplitReader
from gemsdata.stream.stream import MaskedStream, fingerprint_of
from gemsdata.stream.world import World

MAX_BATCH_BYTES = 64 << 20
_KEPT = 16


@dataclass(frozen=True, kw_only=True)
class Told(Curriculum):
    """A curriculum of which a ticket tells the maskings, and for every step the stage."""

    strategies: tuple[Strategy, ...]

    def maskings(self) -> tuple[Strategy, ...]:  # noqa: D102
        return self.strategies


class Kitchen:
    """Makes the streams that tickets ask for, over the shard sets of one server.

    Parameters
    ----------
    sets
        what stands behind the server; several are mixed, as `build_loader` does with a list.
    seeds
        smallest and largest seed that is answered.
    """

    def __init__(self, sets: Sequence[ShardSet], seeds: tuple[int, int] = (0, MAX_SEED)) -> None:
        self.sets = list(sets)
        self.seeds = seeds
        self.fingerprint = fingerprint_of([entry.manifest for entry in self.sets])
        self._lock = threading.Lock()
        self._readers: dict[tuple[str, str, str], list[SplitReader]] = {}
        self._streams: OrderedDict[str, MaskedStream] = OrderedDict()

    def stream(self, ticket: Ticket) -> MaskedStream:
        """Return the stream of a ticket; raise ValueError or FileNotFoundError when there can be none."""
        key = ticket.stream_key()
        with self._lock:
            if key in self._streams:
                self._streams.move_to_end(key)
                return self._streams[key]
        stream = self._make(ticket)
        with self._lock:
            self._streams[key] = stream
            while len(self._streams) > _KEPT:
                self._streams.popitem(last=False)
        return stream

    def _make(self, ticket: Ticket) -> MaskedStream:
        self._check(ticket)
        readers = self._readers_of(ticket.split, ticket.check, ticket.faults)
        order = order_of(
            readers,
            global_batch=ticket.global_batch,
            seed=ticket.seed,
            shuffle=ticket.shuffle,
            remainder=ticket.remainder,
            weights=ticket.weights,
        )
        stream = MaskedStream(
            readers,
            order,
            Told(strategies=ticket.maskings),
            ranks=[self._ranks_of(entry, ticket) for entry in self.sets],
            seed=ticket.seed,
            reverse_complement=ticket.reverse_complement,
            world=World(rank=ticket.rank, num_ranks=ticket.num_ranks),
        )
        if stream.layout.num_bytes > MAX_BATCH_BYTES:
            raise ValueError(
                f"a batch of {stream.layout.num_rows:,} rows takes {stream.layout.num_bytes:,} bytes; a server makes at"
                f" most {MAX_BATCH_BYTES:,}: give a smaller batch_size"
            )
        return stream

    def _check(self, ticket: Ticket) -> None:
        if ticket.fingerprint != self.fingerprint:
            raise ValueError(
                f"the ticket asks for shard set {ticket.fingerprint}, this server holds {self.fingerprint}; start it on"
                " the set that the run began with"
            )
        if ticket.masking_version != MASKING_VERSION:
            raise ValueError(
                f"the ticket asks for masking version {ticket.masking_version}, this server has {MASKING_VERSION}; use"
                " the same gemsdata on both sides"
            )
        if not self.seeds[0] <= ticket.seed <= self.seeds[1]:
            raise ValueError(
                f"the ticket asks for seed {ticket.seed}, this server answers for seeds {self.seeds[0]} to"
                f" {self.seeds[1]}"
            )

    def _readers_of(self, split: str, check: str, faults: str) -> list[SplitReader]:
        with self._lock:
            key = (split, check, faults)
            if key not in self._readers:
                self._readers[key] = [SplitReader(entry, split, check=check, faults=faults) for entry in self.sets]
            return self._readers[key]

    @staticmethod
    def _ranks_of(entry: ShardSet, ticket: Ticket) -> np.ndarray:
        if ticket.ranks is None:
            return entry.ranks
        ranks = np.frombuffer(ticket.ranks, "<u4")
        if ranks.size != vocab_size(entry.k):
            raise ValueError(f"the ticket brings {ranks.size} ranks; the set has {vocab_size(entry.k)} token ids")
        return ranks
