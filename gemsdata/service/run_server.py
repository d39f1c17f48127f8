"""Run a server process: read its options, warm up, serve, and finish responses in progress before it stops."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypedDict

from gemsdata.masking.strategies import resolve
from gemsdata.service.auth import Address, check_binding, read_file, read_key, read_token
from gemsdata.service.batch_request import MAX_SEED, BatchRequest
from gemsdata.service.codec import codec_of
from gemsdata.service.server import Server
from gemsdata.service.stream_cache import StreamCache
from gemsdata.shards.manifest import SPLITS
from gemsdata.shards.shard_set import ShardSet
from gemsdata.views.options import ViewOptions

if TYPE_CHECKING:
    from typing import Unpack

GRACE_S = 30.0
_SIGNAL_CHECK_S = 0.2
"""the main thread wakes up this often, because a signal received by another thread does not interrupt its wait"""


class ServerOptions(TypedDict, total=False):
    """How a server listens and what it answers: the options of `start_server`."""

    host: str
    port: int
    workers: int | None
    token_file: str | Path | None
    tls_cert: str | Path | None
    tls_key: str | Path | None
    seeds: tuple[int, int]
    view: ViewOptions


def run_server(
    sets: Sequence[ShardSet],
    *,
    ready: Callable[[Server, Address], None] = lambda server, address: None,
    **options: Unpack[ServerOptions],
) -> bool:
    """Serve shard sets until SIGTERM or SIGINT; must be called in the main thread.

    Parameters
    ----------
    sets, **options
        as for `start_server`.
    ready
        called with the server and its address once it answers.

    Returns
    -------
    bool
        whether all responses in progress were sent within `GRACE_S` seconds; if not, threads that still send remain,
        and the process can only be ended by ``os._exit``.

    Raises
    ------
    FileNotFoundError, ValueError
        as `start_server`.
    """
    listen, address = _prepared(sets, **options)
    with stop_signals() as stop:
        server = listen()
        ready(server, dataclasses.replace(address, port=server.port))
        while not stop.requested:
            time.sleep(_SIGNAL_CHECK_S)
        return server.stop(GRACE_S)


def start_server(sets: Sequence[ShardSet], **options: Unpack[ServerOptions]) -> tuple[Server, Address]:
    """Serve shard sets in threads of this process; return the server, which answers until `stop`, and its address.

    Parameters
    ----------
    sets
        one, or several to mix.
    host, port
        address to listen on; port 0: any free port. Default: 127.0.0.1 and 8815.
    workers
        batches computed at a time; default: one for each processor that this process may use.
    token_file, tls_cert, tls_key
        file with the token that clients must send, certificate chain and private key (PEM). All are required if other
        machines can reach the host.
    seeds
        smallest and largest seed that requests may have.
    view
        options of the view that clients get if they do not request another one.

    Raises
    ------
    FileNotFoundError, ValueError
        for files that do not exist, and for an address that is in use or reachable by others without a token and TLS.
    """
    listen, address = _prepared(sets, **options)
    server = listen()
    return server, dataclasses.replace(address, port=server.port)


def _prepared(
    sets: Sequence[ShardSet],
    *,
    host: str = "127.0.0.1",
    port: int = 8815,
    workers: int | None = None,
    token_file: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    seeds: tuple[int, int] = (0, MAX_SEED),
    view: ViewOptions = ViewOptions(),  # noqa: B008
) -> tuple[Callable[[], Server], Address]:
    """Check the options, compile what is needed, and return what begins to listen, and where."""
    if workers is not None and workers < 1:
        raise ValueError(f"workers = {workers}; give 1 or more")
    tls = _read_tls(tls_cert, tls_key)
    address = Address(host=host, port=port, tls=tls is not None)
    token = None if token_file is None else read_token(token_file)
    check_binding(address, token)
    streams = StreamCache(sets, seeds, view)
    warm_up(streams)
    listen = functools.partial(Server, streams, address, workers=workers or usable_processors(), token=token, tls=tls)
    return listen, address


def _read_tls(cert: str | Path | None, key: str | Path | None) -> tuple[bytes, bytes] | None:
    """Return the certificate chain and the private key; None without TLS."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ValueError("give --tls-cert and --tls-key together")
    return read_file(cert, "certificate"), read_key(key)


@dataclass
class StopRequest:
    """Flag that asks the server to stop; not an Event, on whose lock a signal handler could deadlock."""

    requested: bool = False


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Handle SIGTERM and SIGINT; a second signal ends the process at once."""
    stop = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            os._exit(1)
        stop.requested = True

    handlers = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def warm_up(streams: StreamCache) -> None:
    """Compute one row, so that kernels are compiled and missing files are found before the server listens."""
    _, rows = streams.own.sources[0]
    split = next(name for name in SPLITS if rows.num_rows(name))
    request = BatchRequest(
        fingerprint=streams.fingerprint,
        split=split,
        check="hash",
        faults="raise",
        seed=streams.seeds[0],
        shuffle=True,
        remainder="wrap",
        weights=None,
        global_batch=1,
        rank=0,
        num_ranks=1,
        reverse_complement=0.5,
        maskings=(resolve("genemask"),),
        first_step=0,
        num_steps=1,
        stage_log=((0, 0),),
    )
    stream = streams.stream(request)
    buffer = stream.layout.empty()
    info = stream.fill(0, buffer, stage=0)
    codec_of(stream.layout, stream.token_identity).encode([(buffer, info)], 1)


def usable_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
