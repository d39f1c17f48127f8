"""A stream whose batches are computed by servers; order, curriculum, stage log and state are computed locally."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.flight as fl

from gemsdata.files.typed_json import from_json, parse_object
from gemsdata.masking.curriculum import Curriculum
from gemsdata.masking.strategies import MASKING_VERSION
from gemsdata.masking.token_rows import Vocabulary
from gemsdata.npmi.table import NpmiTable
from gemsdata.service.batch_request import VERSION, BatchRequest
from gemsdata.service.client import Connections, Servers
from gemsdata.service.codec import codec_of
from gemsdata.service.view_request import view_json
from gemsdata.stream.batch import PendingBatch
from gemsdata.stream.config import StreamConfig, combined_fingerprint, rank_hash
from gemsdata.stream.mixture import Mixture
from gemsdata.stream.order import Order
from gemsdata.stream.source import BatchInfo
from gemsdata.stream.stage_log import StageLog
from gemsdata.stream.stream import Ranks, check_mixable, masked_layout, masker_of
from gemsdata.stream.world import World
from gemsdata.views.options import ViewOptions


@dataclass(frozen=True, kw_only=True)
class VocabularyInfo:
    """The fields of `gemsdata.masking.token_rows.Vocabulary`, from JSON."""

    size: int
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    first_random_id: int
    num_random_ids: int
    random_ids: list[int] | None


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """Description of a source of rows for a client: a shard set of the servers, or a view of it."""

    shards: int
    """number of the shard set"""
    fingerprint: str
    """identity of the rows of every epoch"""
    token_identity: str
    k: int
    """bases of a token"""
    row_tokens: int
    num_rows: dict[str, int]
    """of each split"""
    vocabulary: VocabularyInfo
    weighted: bool
    """whether batches have loss weights"""
    viewed: bool
    """whether rows are those of a view, which are masked by n-grams of any n"""


@dataclass(frozen=True, kw_only=True)
class RemoteSplit:
    """A split of a source on servers."""

    source: SourceInfo
    split: str
    check: str
    faults: str
    needs_windows: ClassVar[bool] = False
    """the server checks whether the rows fit its cache"""

    @property
    def num_rows(self) -> int:
        """Rows of the split; ValueError where there is no such split."""
        if self.split not in self.source.num_rows:
            raise ValueError(f"split {self.split!r} is unknown; the set has {', '.join(self.source.num_rows)}")
        return self.source.num_rows[self.split]

    @property
    def row_tokens(self) -> int:
        """Token positions of a row, L."""
        return self.source.row_tokens

    @property
    def k(self) -> int:
        """Bases of a token."""
        return self.source.k

    @property
    def token_identity(self) -> str:
        """The kind of tokens, as text."""
        return self.source.token_identity

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The token ids."""
        fields = vars(self.source.vocabulary)
        ids = fields["random_ids"]
        return Vocabulary(**{**fields, "random_ids": None if ids is None else np.array(ids, np.uint32)})


class RemoteSets:
    """The shard sets of servers, or views of them; all servers hold the same sets."""

    def __init__(self, servers: Servers, seed: int, views: tuple[ViewOptions, ...] | None = None) -> None:
        self.connections, self.views = Connections(servers), views
        healths = self.connections.health()
        for health in healths:
            self._check(health, healths[0], seed)
        self.sources = self._fetch()
        self.fingerprint = combined_fingerprint([source.fingerprint for source in self.sources])
        if views is None and self.fingerprint != healths[0]["fingerprint"]:
            raise ValueError("the servers hold different shard sets; give servers of the same set")

    def npmi(self, number: int = 0) -> NpmiTable:
        """Fetch the NPMI table of a shard set."""
        pieces = self.connections.ask(0, lambda client, options: _action(client, options, "npmi", str(number)))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "npmi.parquet"
            path.write_bytes(b"".join(pieces))
            return NpmiTable.from_parquet(path)

    def ranks(self, source: SourceInfo) -> Ranks:
        """Return the NPMI ranks for masking a source: those of its tokens, or for a view a function of n."""
        fetch = functools.partial(self._fetch_ranks, source.shards)
        return fetch if source.viewed else fetch(source.k)

    @staticmethod
    def _check(health: dict[str, Any], first: dict[str, Any], seed: int) -> None:
        """Raise ValueError, with the address, for a server whose batches would differ."""
        address = health["address"]
        expected = {"protocol_version": VERSION, "masking_version": MASKING_VERSION}
        for name, version in expected.items():
            if health.get(name, "unknown") != version:
                raise ValueError(
                    f"{address} has {name.replace('_', ' ')} {health.get(name, 'unknown')}, this client {version}; use"
                    " the same gemsdata version on client and server"
                )
        if health["fingerprint"] != first["fingerprint"]:
            raise ValueError(
                f"{address} holds shard set {health['fingerprint']}, {first['address']} holds {first['fingerprint']};"
                " give servers of the same set"
            )
        low, high = health["seeds"]
        if not low <= seed <= high:
            raise ValueError(f"{address} answers seeds {low} to {high}; seed = {seed} is given")

    def _fetch(self) -> list[SourceInfo]:
        views = "" if self.views is None else json.dumps({"views": [view_json(view) for view in self.views]})
        answers = self.connections.ask(0, lambda client, options: _action(client, options, "sources", views))
        return [from_json(SourceInfo, parse_object(answer), "a source of a server") for answer in answers]

    def _fetch_ranks(self, number: int, n: int) -> np.ndarray:
        [table] = self.connections.ask(0, lambda client, options: _action(client, options, "ranks", f"{number} {n}"))
        return np.frombuffer(table, "<u4")


class RemoteStream:
    """A `BatchSource` whose batches come from servers; its order, curriculum, stage log and state are local.

    Parameters
    ----------
    sets
        the shard sets and the connections to their servers.
    splits
        what is requested of each set.
    own_ranks
        NPMI ranks to mask by instead of the sets' own, integers[4**n + 5].

    The others are those of `gemsdata.stream.stream.MaskedStream`.
    """

    prefers_step_ranges = True

    def __init__(
        self,
        sets: RemoteSets,
        splits: Sequence[RemoteSplit],
        order: Order | Mixture,
        curriculum: Curriculum,
        *,
        own_ranks: np.ndarray | None,
        seed: int,
        reverse_complement: float,
        world: World,
        coordinates: bool = False,
    ) -> None:
        check_mixable(splits)
        maskers = [
            [
                masker_of(masking, split, sets.ranks(split.source) if own_ranks is None else own_ranks, seed)
                for masking in curriculum.maskings()
            ]
            for split in splits
        ]
        self.config = StreamConfig(
            fingerprint=sets.fingerprint,
            splits=tuple(split.split for split in splits),
            order=order,
            curriculum=curriculum,
            rank_hashes=tuple(rank_hash(of_set[0].ranks) for of_set in maskers),
            seed=seed,
            reverse_complement=reverse_complement,
            world=world,
        )
        self.log = StageLog()
        first = splits[0]
        self.layout = masked_layout(
            self.config.num_rows,
            first.row_tokens,
            maskers[0][0],
            weighted=any(split.source.weighted for split in splits),
            coordinates=coordinates,
        )
        self.connections = sets.connections
        self.codec = codec_of(self.layout, first.token_identity)
        self._options: dict[str, Any] = {
            "fingerprint": sets.fingerprint,
            "views": sets.views,
            "split": first.split,
            "check": first.check,
            "faults": first.faults,
            "seed": seed,
            **_order_options(order),
            "global_batch": order.global_batch,
            "rank": world.rank,
            "num_ranks": world.num_ranks,
            "reverse_complement": reverse_complement,
            "coordinates": coordinates,
            "maskings": curriculum.maskings(),
            "ranks": None if own_ranks is None else maskers[0][0].ranks.astype("<u4").tobytes(),
        }
        BatchRequest.parse(self.request(range(1)))  # fail here, not at the first batch

    def stage(self, step: int) -> int:
        """Return the stage of batch ``step`` by the stage log as it is now."""
        return self.config.stage(step, self.log)

    def fill(self, step: int, buffer: np.ndarray) -> BatchInfo:
        """Write this rank's batch ``step`` to ``buffer``, uint8[layout.num_bytes]."""
        [(batch, info)] = self.compute(range(step, step + 1))
        batch.write(self.layout.views(buffer))
        return info

    def compute(self, steps: range) -> list[tuple[PendingBatch, BatchInfo]]:
        """Return this rank's batches ``steps`` from any server; if one fails, another one sends the remaining steps."""
        batches: list[tuple[PendingBatch, BatchInfo]] = []

        def query(client: fl.FlightClient, options: fl.FlightCallOptions) -> None:
            left = steps[len(batches) :]
            if not left:  # the connection was lost between the last batch and the end of the response
                return
            for chunk in client.do_get(fl.Ticket(self.request(left)), options):
                received = self.codec.decode(chunk.data, chunk.app_metadata.to_pybytes())
                numbers = [info.step for _, info in received]
                expected = list(steps[len(batches) : len(batches) + len(received)])
                if numbers != expected:
                    raise ValueError(f"received batches {numbers} from a server, expected {expected}")
                batches.extend(received)
            if len(batches) < len(steps):
                raise ConnectionError("the answer is incomplete")

        self.connections.ask(steps.start // len(steps) + self.config.world.rank, query)
        return batches

    def check_unchanged(self) -> None:
        """Do nothing: every request names the fingerprint, and a server compares it with what it holds."""

    def interrupt(self) -> None:  # noqa: D102
        self.connections.interrupt()

    def request(self, steps: range) -> bytes:
        """Return the batch request for steps of this stream, as JSON."""
        stages = [(step, self.stage(step)) for step in steps]
        log = tuple(entry for i, entry in enumerate(stages) if i == 0 or entry[1] != stages[i - 1][1])
        return BatchRequest(**self._options, first_step=steps.start, num_steps=len(steps), stage_log=log).to_json()


def _order_options(order: Order | Mixture) -> dict[str, Any]:
    if isinstance(order, Order):
        return {"shuffle": order.permutation.shuffle, "remainder": order.remainder, "weights": None}
    return {"shuffle": order.permutations[0].shuffle, "remainder": "wrap", "weights": order.weights}


def _action(client: fl.FlightClient, options: fl.FlightCallOptions, name: str, body: str = "") -> list[bytes]:
    return [answer.body.to_pybytes() for answer in client.do_action(fl.Action(name, body.encode()), options)]
