"""The server: answers batch requests with streams of record batches. Its only state is caches.

Memory: a response holds the record batch that is being sent and the next one, each of `MESSAGE_ROWS` rows or one batch,
and at most `MAX_ANSWERS` responses are sent at a time. Clients that read slowly, or not at all, use no more memory.
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
from gemsdata.service.auth import Address, TokenCheck, check_binding
from gemsdata.service.batch_request import VERSION, BatchRequest, parse_views
from gemsdata.service.codec import Codec, codec_of, remote_error
from gemsdata.service.stream_cache import StreamCache
from gemsdata.shards.manifest import NPMI_FILE
from gemsdata.shards.shard_set import ShardSet
from gemsdata.stream.batch import BatchLayout
from gemsdata.stream.stream import MaskedStream

MAX_ANSWERS = 64
"""responses that are sent at a time; further requests get an error that asks for a retry"""
MESSAGE_ROWS = 4096
"""rows of one record batch; each record batch costs about 0.3 ms of processor time, as much as masking 256 rows"""
MESSAGE_BYTES = 16 << 20
"""of one record batch, before it is encoded"""
_CHUNK_BYTES = 1 << 20
ACTIONS = {
    "health": "Whether the server is serving, and its data, versions and seeds. Answer: one JSON object.",
    "counters": "What the server has sent and rejected since it started. Answer: one JSON object.",
    "manifest": "The manifest of every shard set. Answer: one JSON object each.",
    "sources": "The tokens and numbers of rows of every source of batches (body: views, as in a batch request)."
    " Answer: one JSON object each.",
    "ranks": "The NPMI ranks of a shard set (body: its number and n, the length of the n-grams). Answer: little-endian"
    " uint32[4**n + 5] each.",
    "npmi": "The NPMI table of a shard set (body: its number, default 0). Answer: the Parquet file, in pieces.",
}


@dataclass(kw_only=True)
class Counters:
    """Counters of a server since its start."""

    requests: int = 0
    """valid batch requests"""
    refused: int = 0
    """batch requests and actions that were answered with an error"""
    batches: int = 0
    rows: int = 0
    num_bytes: int = 0
    """of batches, as sent"""
    active_streams: int = 0
    """responses that are being sent"""


class Server(fl.FlightServerBase):
    """Answers batch requests at an address, from the moment it is constructed.

    Parameters
    ----------
    streams
        the streams over the served shard sets.
    address
        address to listen on; port 0: any free port, see ``port``.
    workers
        number of record batches computed at a time.
    token
        token that every call must have; None on a loopback address only.
    tls
        certificate chain and private key, PEM; None on a loopback address only.

    Raises
    ------
    ValueError
        for an address that is in use, or that other machines can reach without a token and TLS.
    """

    def __init__(
        self,
        streams: StreamCache,
        address: Address,
        *,
        workers: int,
        token: bytes | None = None,
        tls: tuple[bytes, bytes] | None = None,
    ) -> None:
        check_binding(address, token)
        assert address.tls == (tls is not None)
        self.streams = streams
        self.counters = Counters()
        self._counters_lock = threading.Lock()
        self._computing = threading.BoundedSemaphore(workers)
        self._started = time.monotonic()
        self._stopping = False
        try:
            super().__init__(
                str(address),
                tls_certificates=None if tls is None else [tls],
                middleware=None if token is None else {"token": TokenCheck(token)},
            )
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"cannot serve at {address}: {reason}; if another server uses the port, give another --port"
            ) from None

    def do_get(self, context: Any, ticket: fl.Ticket) -> fl.FlightDataStream:
        """Answer the batch request in a Flight ticket with record batches, each with its `BatchInfo` list as JSON."""
        try:
            request = BatchRequest.parse(ticket.ticket)
            stream = self.streams.stream(request)
        except Exception as error:
            raise self._failed(error) from None
        self._count(requests=1)
        codec = codec_of(stream.layout, stream.token_identity)
        options = pa.ipc.IpcWriteOptions(compression=codec.compression, use_threads=False)
        return fl.GeneratorStream(codec.schema, self._record_batches(stream, codec, request), options)

    def _record_batches(
        self, stream: MaskedStream, codec: Codec, request: BatchRequest
    ) -> Iterator[tuple[pa.RecordBatch, bytes]]:
        self._begin_answer()
        buffer = stream.layout.empty()
        try:
            for steps in _messages(request.steps(), stream.layout):
                filled = ((buffer, stream.fill(step, buffer, stage=request.stage(step))) for step in steps)
                try:
                    with self._computing:
                        batch, metadata = codec.encode(filled, len(steps))
                except Exception as error:
                    raise self._failed(error) from None
                self._count(batches=len(steps), rows=batch.num_rows, num_bytes=batch.nbytes)
                yield batch, metadata
        finally:
            self._count(active_streams=-1)

    def do_action(self, context: Any, action: fl.Action) -> Iterator[bytes]:
        """Answer one of `ACTIONS`."""
        if action.type not in ACTIONS:
            raise self._failed(ValueError(f"action {ascii(action.type)[:80]} is unknown: use {', '.join(ACTIONS)}"))
        if action.type == "health":
            yield json.dumps(self.health()).encode()
        elif action.type == "counters":
            with self._counters_lock:
                content = dataclasses.asdict(self.counters)
            yield json.dumps({**content, "uptime_s": round(time.monotonic() - self._started, 1)}).encode()
        elif action.type == "manifest":
            for entry in self.streams.sets:
                yield entry.manifest.to_json().encode()
        else:
            answer = {"sources": self._sources, "ranks": self._ranks, "npmi": self._npmi}[action.type]
            yield from answer(action.body.to_pybytes() if action.body else b"")

    def list_actions(self, context: Any) -> list[tuple[str, str]]:
        """Return `ACTIONS`."""
        return list(ACTIONS.items())

    def list_flights(self, context: Any, criteria: bytes) -> Iterator[fl.FlightInfo]:
        """Yield every split of every shard set; the metadata of the schema has the manifest."""
        for entry in self.streams.sets:
            for split in entry.manifest.splits:
                yield self._flight(entry.manifest.fingerprint, split)

    def get_flight_info(self, context: Any, descriptor: fl.FlightDescriptor) -> fl.FlightInfo:
        """Return a split of a shard set by the path (fingerprint, split)."""
        path = [part.decode("utf-8", "replace") for part in descriptor.path or []]
        if len(path) != 2:
            raise self._failed(ValueError("the path of a flight is (fingerprint of a shard set, split)"))
        return self._flight(*path)

    def health(self) -> dict[str, Any]:
        """Return what a client compares before it sends batch requests."""
        return {
            "status": "stopping" if self._stopping else "serving",
            "gemsdata": __version__,
            "protocol_version": VERSION,
            "masking_version": MASKING_VERSION,
            "fingerprint": self.streams.fingerprint,
            "seeds": list(self.streams.seeds),
        }

    def stop(self, grace_s: float) -> bool:
        """Accept no more calls and finish responses in progress; return False if that takes longer than ``grace_s``."""
        self._stopping = True
        shutdown = threading.Thread(target=self.shutdown, name="shutdown", daemon=True)
        shutdown.start()
        shutdown.join(grace_s)
        return not shutdown.is_alive()

    def _flight(self, fingerprint: str, split: str) -> fl.FlightInfo:
        for entry in self.streams.sets:
            manifest = entry.manifest
            if manifest.fingerprint == fingerprint and split in manifest.splits:
                return fl.FlightInfo(
                    pa.schema([], metadata={"manifest": manifest.to_json()}),
                    fl.FlightDescriptor.for_path(fingerprint, split),
                    [],
                    manifest.num_rows(split),
                    -1,
                )
        raise self._failed(
            ValueError(f"this server has no split {ascii(split)[:80]} of a shard set {ascii(fingerprint)[:80]}")
        )

    def _sources(self, body: bytes) -> Iterator[bytes]:
        try:
            described = self.streams.rows(parse_views(body) if body else None).describe()
        except Exception as error:
            raise self._failed(error) from None
        for source in described:
            yield json.dumps(source).encode()

    def _ranks(self, body: bytes) -> Iterator[bytes]:
        number, _, n = body.partition(b" ")
        try:
            tables = (
                [self._set(number).npmi.ranks(_parsed_n(n))] if body else [entry.ranks for entry in self.streams.sets]
            )
        except Exception as error:
            raise self._failed(error) from None
        for table in tables:
            yield table.astype("<u4").tobytes()

    def _set(self, number: bytes) -> ShardSet:
        """Return the shard set of a number, "" for 0; raise ValueError where there is none."""
        numbers = {str(number).encode(): entry for number, entry in enumerate(self.streams.sets)}
        if (number or b"0") not in numbers:
            raise ValueError(f"this server has no shard set {ascii(number)[:80]}; they count from 0")
        return numbers[number or b"0"]

    def _npmi(self, body: bytes) -> Iterator[bytes]:
        try:
            entry = self._set(body)
        except ValueError as error:
            raise self._failed(error) from None
        with entry.store.file(NPMI_FILE) as path, open(path, "rb") as stream:
            while piece := stream.read(_CHUNK_BYTES):
                yield piece

    def _begin_answer(self) -> None:
        with self._counters_lock:
            if self.counters.active_streams >= MAX_ANSWERS:
                raise fl.FlightUnavailableError(f"{MAX_ANSWERS} responses are being sent; retry later")
            self.counters.active_streams += 1

    def _failed(self, error: Exception) -> fl.FlightServerError:
        self._count(refused=1)
        if isinstance(error, ValueError | FileNotFoundError):
            return remote_error(error)
        return remote_error(ValueError(f"the server failed: {type(error).__name__}: {error}"))

    def _count(self, **changes: int) -> None:
        with self._counters_lock:
            for name, change in changes.items():
                setattr(self.counters, name, getattr(self.counters, name) + change)


def _parsed_n(text: bytes) -> int:
    if not (text.isdigit() and len(text) <= 2):
        raise ValueError(f"n = {ascii(text)[:80]}; give the bases of the n-grams whose ranks are wanted")
    return int(text)


def _messages(steps: range, layout: BatchLayout) -> Iterator[range]:
    """Split steps into those of one record batch: as many as fit `MESSAGE_ROWS` and `MESSAGE_BYTES`, at least 1."""
    size = max(1, min(MESSAGE_ROWS // layout.num_rows, MESSAGE_BYTES // layout.num_bytes))
    for first in range(0, len(steps), size):
        yield steps[first : first + size]
