"""The server: answers tickets with streams of batches. It keeps nothing between two calls that another could not make.

Memory: a stream holds the one message that is being sent and the one that is made next, each of `MESSAGE_ROWS` rows or
one batch, and no more than `MAX_STREAMS` are sent at a time, so a client that reads slowly, or not at all, costs that.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

from gemsdata import __version__
from gemsdata.masking.strategies import MASKING_VERSION
from gemsdata.service import codec as wire
from gemsdata.service.auth import Address, TokenCheck, check_binding
from gemsdata.service.batch_request import VERSION, Ticket
from gemsdata.service.stream_cache import Kitchen
from gemsdata.shards.manifest import NPMI_FILE
from gemsdata.stream.stream import MaskedStream

MAX_STREAMS = 64
MESSAGE_ROWS = 4096
"""A message costs a third of a millisecond of processor time, whatever it holds: as much as masking 256 rows"""
_CHUNK = 1 << 20
ACTIONS = {
    "health": "Is the server serving, which data, versions and seeds. Answer: one JSON object.",
    "counters": "What it has sent and refused since it started. Answer: one JSON object.",
    "manifest": "The manifest of every shard set. Answer: one JSON object each.",
    "ranks": "The NPMI ranks of every shard set. Answer: little-endian uint32[4**k + 5] each.",
    "npmi": "The NPMI table of a shard set (body: its number, default 0). Answer: the Parquet file, in pieces.",
}


@dataclass(kw_only=True)
class Counters:
    """What a server has done since it started."""

    requests: int = 0
    """tickets that were read"""
    refused: int = 0
    """tickets and actions that were refused"""
    batches: int = 0
    rows: int = 0
    num_bytes: int = 0
    """of batches"""
    active_streams: int = 0


class Server(fl.FlightServerBase):
    """Serves a kitchen's streams at an address, from the moment it is made.

    Parameters
    ----------
    kitchen
        what makes the streams.
    address
        where to stand; port 0: any free one, see ``port``.
    workers
        how many batches are computed at a time.
    token
        what every call must show; None on loopback only.
    tls
        certificate chain and key, PEM; None on loopback only.

    Raises
    ------
    ValueError
        for an address that is taken, or that others can reach without token and TLS.
    """

    def __init__(
        self,
        kitchen: Kitchen,
        address: Address,
        *,
        workers: int,
        token: bytes | None = None,
        tls: tuple[bytes, bytes] | None = None,
    ) -> None:
        check_binding(address, token)
        assert address.tls == (tls is not None)
        self.kitchen = kitchen
        self.counters = Counters()
        self._counting = threading.Lock()
        self._computing = threading.BoundedSemaphore(workers)
        self._began = time.monotonic()
        self._stopping = False
        try:
            super().__init__(
                str(address),
                tls_certificates=None if tls is None else [tls],
                middleware=None if token is None else {"token": TokenCheck(token)},
            )
        except (pa.ArrowException, OSError) as error:
            why = str(error).splitlines()[0]
            raise ValueError(
                f"cannot serve at {address}: {why}; is another server there? Give another --port"
            ) from None

    def do_get(self, context: Any, ticket: fl.Ticket) -> fl.FlightDataStream:
        """Answer a ticket with a stream of record batches, each of several steps, whose `BatchInfo` it has as JSON."""
        try:
            wanted = Ticket.parse(ticket.ticket)
            stream = self.kitchen.stream(wanted)
        except Exception as error:
            raise self._refused(error) from None
        self._count(requests=1)
        codec = wire.Codec(layout=stream.layout, k=stream.k)
        return fl.GeneratorStream(codec.schema, self._batches(stream, codec, wanted))

    def _batches(
        self, stream: MaskedStream, codec: wire.Codec, ticket: Ticket
    ) -> Iterator[tuple[pa.RecordBatch, bytes]]:
        self._enter()
        buffer = stream.layout.empty()
        try:
            for steps in _messages(ticket.steps(), stream.layout.num_rows):
                filled = ((buffer, stream.fill(step, buffer, stage=ticket.stage(step))) for step in steps)
                try:
                    with self._computing:
                        batch, told = codec.encode(filled, len(steps))
                except Exception as error:
                    raise self._refused(error) from None
                self._count(batches=len(steps), rows=batch.num_rows, num_bytes=batch.nbytes)
                yield batch, told
        finally:
            self._count(active_streams=-1)

    def do_action(self, context: Any, action: fl.Action) -> Iterator[bytes]:
        """Answer one of `ACTIONS`."""
        if action.type not in ACTIONS:
            raise self._refused(ValueError(f"action {ascii(action.type)[:80]} is unknown: use {', '.join(ACTIONS)}"))
        if action.type == "health":
            yield json.dumps(self.health()).encode()
        elif action.type == "counters":
            with self._counting:
                told = dataclasses.asdict(self.counters)
            yield json.dumps({**told, "uptime_s": round(time.monotonic() - self._began, 1)}).encode()
        elif action.type == "manifest":
            for entry in self.kitchen.sets:
                yield entry.manifest.to_json().encode()
        elif action.type == "ranks":
            for entry in self.kitchen.sets:
                yield entry.ranks.astype("<u4").tobytes()
        else:
            yield from self._npmi(action.body.to_pybytes() if action.body else b"")

    def list_actions(self, context: Any) -> list[tuple[str, str]]:
        """Return `ACTIONS`."""
        return list(ACTIONS.items())

    def list_flights(self, context: Any, criteria: bytes) -> Iterator[fl.FlightInfo]:
        """Tell every split of every shard set; the schema's metadata holds the manifest."""
        for entry in self.kitchen.sets:
            for split in entry.manifest.splits:
                yield self._flight(entry.manifest.fingerprint, split)

    def get_flight_info(self, context: Any, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
        """Tell the split of a shard set, by the path (fingerprint, split)."""
        path = [part.decode("utf-8", "replace") for part in descriptor.path or []]
        if len(path) != 2:
            raise self._refused(ValueError("a flight's path is (fingerprint of a shard set, split)"))
        return self._flight(*path)

    def health(self) -> dict[str, Any]:
        """Return what a client compares before it asks for batches."""
        return {
            "status": "stopping" if self._stopping else "serving",
            "gemsdata": __version__,
            "ticket_version": VERSION,
            "masking_version": MASKING_VERSION,
            "fingerprint": self.kitchen.fingerprint,
            "seeds": list(self.kitchen.seeds),
        }

    def stop(self, grace_s: float) -> bool:
        """Take no more calls, finish what is being sent; return False when that took longer than ``grace_s``."""
        self._stopping = True
        waiting = threading.Thread(target=self.shutdown, name="shutdown", daemon=True)
        waiting.start()
        waiting.join(grace_s)
        return not waiting.is_alive()

    def _flight(self, fingerprint: str, split: str) -> fl.FlightInfo:
        for entry in self.kitchen.sets:
            manifest = entry.manifest
            if manifest.fingerprint == fingerprint and split in manifest.splits:
                return fl.FlightInfo(
                    pa.schema([], metadata={"manifest": manifest.to_json()}),
                    fl.FlightDescriptor.for_path(fingerprint, split),
                    [],
                    manifest.num_rows(split),
                    -1,
                )
        raise self._refused(ValueError(f"no split {ascii(split)[:80]} of a shard set {ascii(fingerprint)[:80]} here"))

    def _npmi(self, body: bytes) -> Iterator[bytes]:
        numbers = {str(number).encode(): entry for number, entry in enumerate(self.kitchen.sets)}
        entry = numbers.get(body or b"0")
        if entry is None:
            raise self._refused(ValueError(f"there is no shard set {ascii(body)[:80]} here; they count from 0"))
        with entry.store.small_file(NPMI_FILE) as path, open(path, "rb") as stream:
            while piece := stream.read(_CHUNK):
                yield piece

    def _enter(self) -> None:
        with self._counting:
            if self.counters.active_streams >= MAX_STREAMS:
                raise fl.FlightUnavailableError(f"{MAX_STREAMS} streams are being sent; ask again later")
            self.counters.active_streams += 1

    def _refused(self, error: Exception) -> fl.FlightServerError:
        self._count(refused=1)
        if isinstance(error, ValueError | FileNotFoundError):
            return wire.refusal(error)
        return wire.refusal(ValueError(f"the server failed: {type(error).__name__}: {error}"))

    def _count(self, **changes: int) -> None:
        with self._counting:
            for name, change in changes.items():
                setattr(self.counters, name, getattr(self.counters, name) + change)


def _messages(steps: range, num_rows: int) -> Iterator[range]:
    """Cut steps of ``num_rows`` rows each into those of one message: as many as have `MESSAGE_ROWS` rows, or one."""
    size = max(1, MESSAGE_ROWS // num_rows)
    for first in range(0, len(steps), size):
        yield steps[first : first + size]
