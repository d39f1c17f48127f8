"""A stream whose batches are computed by servers; order, curriculum, stage log and state are computed locally."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.flight as fl

from gemsdata.masking.curriculum import Curriculum
from gemsdata.masking.masker import Masker
from gemsdata.masking.strategies import MASKING_VERSION
from gemsdata.npmi.table import NpmiTable
from gemsdata.service.batch_request import VERSION, BatchRequest
from gemsdata.service.client import Connections, Servers
from gemsdata.service.codec import Codec
from gemsdata.shards.manifest import Manifest
from gemsdata.stream.batch import PendingBatch
from gemsdata.stream.config import StreamConfig, combined_fingerprint, rank_hash
from gemsdata.stream.mixture import Mixture
from gemsdata.stream.order import Order
from gemsdata.stream.source import BatchInfo
from gemsdata.stream.stage_log import StageLog
from gemsdata.stream.stream import masked_layout
from gemsdata.stream.world import World


@dataclass(frozen=True, kw_only=True)
class RemoteSet:
    """What a client knows of a shard set that servers hold."""

    manifest: Manifest
    ranks: np.ndarray
    """NPMI rank of every token id, uint32[4**k + 5]"""

    @property
    def k(self) -> int:
        """Bases of a token."""
        return self.manifest.k


@dataclass(frozen=True, kw_only=True)
class RemoteSplit:
    """The size and options of a split that servers read."""

    shards: RemoteSet
    split: str
    check: str
    faults: str
    needs_windows: ClassVar[bool] = False
    """the server checks whether the split fits its cache"""

    @property
    def num_rows(self) -> int:
        """Rows of the split."""
        return self.shards.manifest.num_rows(self.split)

    @property
    def row_tokens(self) -> int:
        """Token positions of a row, L."""
        return self.shards.manifest.row_tokens


class RemoteSets:
    """The shard sets of servers, all of which hold the same ones."""

    def __init__(self, servers: Servers, seed: int) -> None:
        self.connections = Connections(servers)
        healths = self.connections.health()
        self.fingerprint: str = healths[0]["fingerprint"]
        for health in healths:
            self._check(health, healths[0], seed)
        self.sets = self._fetch()

    def npmi(self, number: int = 0) -> NpmiTable:
        """Fetch the NPMI table of a shard set."""
        pieces = self.connections.ask(0, lambda client, options: _action(client, options, "npmi", str(number)))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "npmi.parquet"
            path.write_bytes(b"".join(pieces))
            return NpmiTable.from_parquet(path)

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

    def _fetch(self) -> list[RemoteSet]:
        manifests = self.connections.ask(0, lambda client, options: _action(client, options, "manifest"))
        tables = self.connections.ask(0, lambda client, options: _action(client, options, "ranks"))
        sets = [
            RemoteSet(manifest=Manifest.parse(manifest, "the manifest of a server"), ranks=np.frombuffer(table, "<u4"))
            for manifest, table in zip(manifests, tables, strict=True)
        ]
        for entry in sets:
            assert hashlib.sha256(entry.ranks.tobytes()).hexdigest() == entry.manifest.npmi.rank_sha256
        if combined_fingerprint([entry.manifest.fingerprint for entry in sets]) != self.fingerprint:
            raise ValueError("the servers hold different shard sets; give servers of the same set")
        return sets


class RemoteStream:
    """A `BatchSource` whose batches come from servers; its order, curriculum, stage log and state are local.

    Parameters
    ----------
    sets
        the shard sets and the connections to their servers.
    splits
        what is requested of each set.
    own_ranks
        NPMI ranks to mask by instead of the sets' own, integers[4**k + 5].

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
    ) -> None:
        shapes = {(split.shards.k, split.row_tokens) for split in splits}
        if len(shapes) > 1:
            raise ValueError(f"shard sets of different (k, row tokens) cannot be mixed: {sorted(shapes)}")
        tables = [entry.ranks if own_ranks is None else own_ranks for entry in sets.sets]
        maskers = [[Masker(masking, ranks=table, seed=seed) for masking in curriculum.maskings()] for table in tables]
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
        self.layout = masked_layout(self.config.num_rows, first.row_tokens, maskers[0][0])
        self.connections = sets.connections
        self.codec = Codec(layout=self.layout, k=first.shards.k)
        self._options: dict[str, Any] = {
            "fingerprint": sets.fingerprint,
            "split": first.split,
            "check": first.check,
            "faults": first.faults,
            "seed": seed,
            **_order_options(order),
            "global_batch": order.global_batch,
            "rank": world.rank,
            "num_ranks": world.num_ranks,
            "reverse_complement": reverse_complement,
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
            if not left:  # the connection was lost between the last batch and the end of the answer
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
