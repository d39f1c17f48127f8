"""A server's life: set up, warmed up, serving, and a stop that finishes what is being sent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from gemsdata.masking.strategies import resolve
from gemsdata.service.auth import Address, check_binding, read_file, read_token
from gemsdata.service.batch_request import MAX_SEED, Ticket
from gemsdata.service.codec import Codec
from gemsdata.service.server import Server
from gemsdata.service.stream_cache import Kitchen
from gemsdata.shards.shard_set import ShardSet

GRACE_S = 30.0


def serve(
    sets: Sequence[ShardSet],
    *,
    host: str = "127.0.0.1",
    port: int = 8815,
    workers: int | None = None,
    token_file: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    seeds: tuple[int, int] = (0, MAX_SEED),
    ready: Callable[[Server, Address], None] = lambda server, address: None,
) -> bool:
    """Serve shard sets until SIGTERM or SIGINT; to be called in the main thread.

    Parameters
    ----------
    sets
        one, or several to mix.
    host, port
        where to stand; port 0: any free one.
    workers
        batches computed at a time; default: one for each processor that this process may use.
    token_file, tls_cert, tls_key
        the token that clients must show, and the certificate chain and key (PEM). Both are needed for a host that
        other machines can reach.
    seeds
        smallest and largest seed that is answered.
    ready
        called with the server and its address once it answers.

    Returns
    -------
    bool
        whether everything that was being sent could be finished within `GRACE_S` seconds; if not, threads that still
        send are left, and only ``os._exit`` ends the process.

    Raises
    ------
    FileNotFoundError, ValueError
        for files that are not there, or an address that is taken or open to others without token and TLS.
    """
    if (tls_cert is None) != (tls_key is None):
        raise ValueError("give --tls-cert and --tls-key together")
    if workers is not None and workers < 1:
        raise ValueError(f"workers = {workers}; give 1 or more")
    address = Address(host=host, port=port, tls=tls_cert is not None)
    token = None if token_file is None else read_token(token_file)
    check_binding(address, token)
    tls = None
    if tls_cert is not None and tls_key is not None:
        tls = read_file(tls_cert, "certificate"), read_file(tls_key, "key")
    kitchen = Kitchen(sets, seeds)
    warm_up(kitchen)
    stop = threading.Event()
    handlers = {number: signal.signal(number, _stopper(stop)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server = Server(kitchen, address, workers=workers or len(os.sched_getaffinity(0)), token=token, tls=tls)
        ready(server, Address(host=host, port=server.port, tls=address.tls))
        stop.wait()
        return server.stop(GRACE_S)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def warm_up(kitchen: Kitchen) -> None:
    """Make one row, so that kernels are compiled and files are found before anybody asks."""
    splits = kitchen.sets[0].manifest.splits
    split = next(name for name, shards in splits.items() if shards)
    ticket = Ticket(
        fingerprint=kitchen.fingerprint,
        split=split,
        check="size",
        faults="raise",
        seed=kitchen.seeds[0],
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
    stream = kitchen.stream(ticket)
    buffer = stream.layout.empty()
    info = stream.fill(0, buffer, stage=0)
    Codec(layout=stream.layout, k=stream.k).encode([(buffer, info)], 1)


def _stopper(stop: threading.Event) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(1)  # asked twice: at once
        stop.set()

    return handle
