"""The servers of a client, its connections to them, and its retries if a server does not answer."""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.flight as fl

from gemsdata.service.auth import SCHEMES, Address, headers, read_file, read_token
from gemsdata.service.codec import original_error
from gemsdata.service.endpoints import Endpoint, Endpoints
from gemsdata.service.view_request import ServedView, portable
from gemsdata.views.options import ViewOptions

TOKEN_VARIABLE = "GEMSDATA_TOKEN_FILE"
ROOTS_VARIABLE = "GEMSDATA_TLS_ROOTS"
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.05, 5.0
_RETRIED = (fl.FlightError, pa.ArrowException, OSError, StopIteration)
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1)
]  # else a new client inherits the old one's back-off of up to 2 minutes
_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Servers of one shard set, any of which may answer; pass it to `build_loader` instead of a folder."""

    addresses: tuple[str, ...]
    """grpc://HOST:PORT or grpc+tls://HOST:PORT; a HOST that resolves to several IP addresses is a server at each"""
    token_file: str | None = None
    """file with the token; default: $GEMSDATA_TOKEN_FILE, else no token is sent"""
    tls_roots: str | None = None
    """PEM file with the certificates to trust; default: $GEMSDATA_TLS_ROOTS, else those that come with gRPC"""
    timeout_s: float = 30
    """time limit of one request; after it, another server is asked"""
    patience_s: float = 300
    """ConnectionError is raised when no server has answered for this long"""
    connect_s: float = 10
    """the same for the first contact"""

    def view(self, **options: Any) -> ServedView:
        """Return a view of each of the servers' shard sets, for `build_loader`.

        The options are those of `gemsdata.view`. A BED file is sent with the requests; with a tokenizer folder or a
        track the servers must have been started (``gemsdata serve SET --tokens FOLDER``). Raises FileNotFoundError or
        ValueError for options that cannot be sent.
        """
        chosen = ViewOptions(**options)
        chosen.single_regions()
        return ServedView(servers=self, options=portable(chosen))

    @classmethod
    def of(cls, places: Sequence[object]) -> Servers | None:
        """Return the servers that ``places`` name; None if they name folders; raise ValueError for a mixture.

        Views of the servers' sets also name them; all must name the same servers.
        """
        several = [place.servers if isinstance(place, ServedView) else place for place in places]
        seen = sum(isinstance(place, ServedView) for place in places)
        if 0 < seen < len(several) or (seen and len(set(several)) > 1):
            raise ValueError("views of a server's sets are mixed with other views of the same servers only")
        several = several[:1] if seen else several
        given = [place for place in several if isinstance(place, Servers)]
        names = [place for place in several if isinstance(place, str) and place.split("://")[0] in SCHEMES]
        if not given and not names:
            return None
        if len(several) == len(given) == 1:
            return given[0]
        if len(names) < len(several):
            raise ValueError(
                "folders and servers cannot be mixed: give folders, or addresses of servers of the same shard set; for"
                " a mixture of shard sets run `gemsdata serve` with several folders"
            )
        return cls(addresses=tuple(names))


class Connections:
    """Connections to servers, opened on first use and shared by the threads of a loader."""

    def __init__(self, servers: Servers) -> None:
        if not servers.addresses:
            raise ValueError("no server address is given")
        token_file = servers.token_file or os.environ.get(TOKEN_VARIABLE)
        roots_file = servers.tls_roots or os.environ.get(ROOTS_VARIABLE)
        token = read_token(token_file) if token_file else None
        roots = read_file(roots_file, "certificates to trust") if roots_file else None
        addresses = [Address.parse(text) for text in servers.addresses]
        for address in addresses:
            if token and not (address.tls or address.is_loopback):
                raise ValueError(f"{address}: a token is not sent unencrypted to another machine; use grpc+tls://")
        self.servers = servers
        self._endpoints, self._token, self._roots = Endpoints(addresses), token, roots
        self._peers: dict[Endpoint, _Peer] = {}
        self._changed = threading.Condition()
        self._generation = 0

    @property
    def peers(self) -> list[_Peer]:
        """The servers, as of the last look-up of their names."""
        found = self._endpoints.current()
        with self._changed:
            known = self._peers
            self._peers = {place: known.get(place) or _Peer(place, self._token, self._roots) for place in found}
            return list(self._peers.values())

    def ask(self, first: int, query: Callable[[fl.FlightClient, fl.FlightCallOptions], _Answer]) -> _Answer:
        """Return the answer of server ``first`` (modulo their number) to a query, or of another if it does not answer.

        Raises ValueError or FileNotFoundError when a server rejects the query, ConnectionError when none has answered
        for ``patience_s`` or one rejects the token.
        """
        began, generation = time.monotonic(), self._generation
        while True:
            peers = self.peers
            in_turn = [peers[(first + i) % len(peers)] for i in range(len(peers))]
            peer = min(in_turn, key=lambda peer: max(peer.retry_at, time.monotonic()))
            self._wait(peer.retry_at - time.monotonic(), generation)
            failures = peer.failures
            try:
                answer = query(peer.client(), self.call_options(peer))
            except _RETRIED as error:
                peer.raise_if_permanent(error)
                peer.failed(failures, error)
                self._endpoints.failed()
                if time.monotonic() - began > self.servers.patience_s:
                    raise ConnectionError(self._no_answer(time.monotonic() - began)) from None
            else:
                peer.failures = 0
                return answer

    def health(self) -> list[dict[str, Any]]:
        """Return the health of every server that answers, {"address": ..., ...}; ConnectionError when none does."""
        deadline = time.monotonic() + self.servers.connect_s
        while True:
            answers = []
            for peer in self.peers:
                try:
                    results = peer.client().do_action(fl.Action("health", b""), self.call_options(peer))
                    answers.append({**json.loads(next(results).body.to_pybytes()), "address": str(peer.address)})
                except _RETRIED as error:
                    peer.raise_if_permanent(error)
                    peer.failed(peer.failures, error)
                    self._endpoints.failed()
            if answers:
                return answers
            if time.monotonic() > deadline:
                raise ConnectionError(self._no_answer(self.servers.connect_s))
            time.sleep(0.2)

    def interrupt(self) -> None:
        """Make calls of `ask` that wait for a server raise ConnectionError."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()

    def call_options(self, peer: _Peer) -> fl.FlightCallOptions:
        """Return the options of a call: the token and the time limit."""
        return fl.FlightCallOptions(timeout=self.servers.timeout_s, headers=headers(peer.token))

    def _wait(self, seconds: float, generation: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._generation != generation, max(seconds, 0))
            if self._generation != generation:
                raise ConnectionError("the loader was closed while it waited for a server")

    def _no_answer(self, seconds: float) -> str:
        tried = "; ".join(f"{peer.address}: {peer.last_error}" for peer in self.peers)
        return f"no server has answered for {seconds:.0f} s ({tried}); start `gemsdata serve`, or correct the addresses"

    def __getstate__(self) -> dict[str, Any]:
        return {"servers": self.servers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Connections.__init__(self, state["servers"])


class _Peer:
    """One server as a client sees it."""

    def __init__(self, endpoint: Endpoint, token: bytes | None, roots: bytes | None) -> None:
        self.address, self.token = endpoint.address, token
        self.failures = 0
        """in a row"""
        self.retry_at = 0.0
        """time.monotonic of the next attempt"""
        self.last_error = "not asked yet"
        self._roots, self._name = roots, endpoint.name
        self._lock = threading.Lock()
        self._client: fl.FlightClient | None = None

    def client(self) -> fl.FlightClient:
        """Return the connection, a new one after a failure."""
        with self._lock:
            if self._client is None:
                self._client = fl.FlightClient(
                    str(self.address),
                    tls_root_certs=self._roots,
                    override_hostname=self._name,
                    generic_options=list(_OPTIONS),
                )
            return self._client

    def raise_if_permanent(self, error: Exception) -> None:
        """Raise an exception for the user if a retry after ``error`` cannot succeed."""
        original = original_error(error)
        if original is not None:
            raise type(original)(f"{self.address}: {original}") from None
        if isinstance(error, fl.FlightUnauthenticatedError):
            raise ConnectionError(
                f"{self.address} rejected the token; give that of the server with Servers(token_file=...) or"
                f" ${TOKEN_VARIABLE}"
            ) from None

    def failed(self, failures: int, error: Exception) -> None:
        """Record the failure of a call that began after ``failures`` earlier ones, and double the delay."""
        with self._lock:
            self.last_error = (str(error).splitlines() or [type(error).__name__])[0]
            self.last_error = self.last_error.split(" gRPC client debug")[0][:200]
            if self.failures != failures:
                return  # the call of another thread failed for the same reason
            if not failures:
                _log.warning("%s does not answer, retrying: %s", self.address, self.last_error)
            delay = min(_FIRST_DELAY_S * 2.0 ** min(failures, 20), _LONGEST_DELAY_S)
            self.retry_at = time.monotonic() + delay * random.uniform(0.5, 1)
            self.failures += 1
            self._client = None
