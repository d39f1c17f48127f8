"""A server under garbage, idle connections, clients that do not read, huge requests, and one signal."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl
import pytest

import gemsdata as gd
from gemsdata.service import run_server
from gemsdata.service.server import MAX_ANSWERS
from tests.service_support import Served, served
from tests.stream_support import digest, global_batches, loaders_of_ranks, make_set
from tests.test_service_stops import flight_ticket

pytestmark = pytest.mark.once

NUM_CONNECTIONS = 200
RUN = {"masking": "genemask", "seed": 5, "num_steps": 3}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("attacks") / "set")


@pytest.fixture(scope="module")
def server(shards):
    with served(shards) as [server]:
        yield server


@pytest.fixture(scope="module")
def right(shards) -> str:
    return digest(global_batches(loaders_of_ranks(shards, 1, **RUN)))


@contextlib.contextmanager
def connections(server: Served, number: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 30)) for _ in range(number)]


def served_digest(server: Served) -> str:
    return digest(global_batches(loaders_of_ranks(server.address, 1, **RUN)))


def test_garbage_changes_nothing(server, right):
    rng = random.Random(0)
    frames = [b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", b"\x00\x00\x00\x04\x01\x00\x00\x00\x00", rng.randbytes(4096)]
    headers = [b"\x00\x40\x00\x01\x04\x00\x00\x00\x01" + rng.randbytes(1 << 14)]  # what HPACK cannot decode
    sent = [rng.randbytes(1 << size) for size in range(0, 17, 4)]
    sent += [PREFACE + SETTINGS + frame for frame in frames + headers]
    sent += [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", PREFACE * 1000, b"A" * (1 << 20)]
    with connections(server, len(sent)) as open_connections:
        for connection, content in zip(open_connections, sent, strict=True):
            with contextlib.suppress(ConnectionError):
                connection.sendall(content)
        assert served_digest(server) == right
    assert server.counters()["active_streams"] == 0


def test_idle_connections_keep_nobody_out(server, right):
    with connections(server, NUM_CONNECTIONS) as open_connections:
        for connection in open_connections[::2]:
            connection.sendall(PREFACE + SETTINGS)
        assert served_digest(server) == right


def test_clients_that_do_not_read_have_no_more_than_their_places(server, right, shards):
    loader = gd.build_loader(server.address, global_batch_size=4000)
    with contextlib.ExitStack() as stack:
        readers = []
        for _ in range(MAX_ANSWERS + 4):
            client = stack.enter_context(contextlib.closing(server.client))
            readers.append(client.do_get(flight_ticket(loader, num_steps=50)))
            stack.callback(readers[-1].cancel)
        refused = 0
        for reader in readers:
            try:
                reader.read_chunk()
            except fl.FlightUnavailableError as error:
                refused += "responses are being sent; retry later" in str(error)
        assert refused == 4
        assert server.counters()["active_streams"] == MAX_ANSWERS
    assert served_digest(server) == right  # waits until a place is free


@pytest.mark.parametrize(
    "call",
    [
        lambda client, content: client.do_get(fl.Ticket(content)).read_all(),
        lambda client, content: list(client.do_action(fl.Action("npmi", content))),
        lambda client, content: client.get_flight_info(fl.FlightDescriptor.for_command(content)),
        lambda client, content: client.get_flight_info(fl.FlightDescriptor.for_path(content, b"train")),
        lambda client, content: list(client.do_action(fl.Action("a" * len(content), b""))),
        lambda client, content: list(
            client.do_action(
                fl.Action("health", b""), fl.FlightCallOptions(headers=[(b"authorization", content[: 1 << 20])])
            )
        ),
    ],
    ids=["ticket", "action", "command", "path", "action-name", "header"],
)
def test_huge_requests_are_refused_in_a_short_message(server, right, call):
    with pytest.raises((fl.FlightError, pa.ArrowException, OSError)) as caught:
        call(server.client, b"[" * (24 << 20))
    assert len(str(caught.value)) < 2000
    assert served_digest(server) == right


def test_a_request_to_stop_is_noted_at_any_moment(monkeypatch):
    """An Event would be locked by the wait that the signal interrupts: its handler would wait without end."""
    monkeypatch.setattr(run_server, "_SIGNAL_CHECK_S", 1e-4)
    monkeypatch.setattr(run_server, "warm_up", lambda streams: None)
    monkeypatch.setattr(run_server, "StreamCache", lambda sets, seeds, view: None)

    class Server:
        port = 1

        def __init__(self, *arguments: Any, **options: Any) -> None: ...

        def stop(self, grace_s: float) -> bool:
            return True

    monkeypatch.setattr(run_server, "Server", Server)

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the signal had no effect")

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        for moment in range(1, 60):
            events = 0

            def trace(frame: FrameType, event: str, argument: Any, moment: int = moment) -> Any:
                nonlocal events
                frame.f_trace_opcodes = True
                events += 1
                if events == moment:
                    signal.raise_signal(signal.SIGTERM)
                return trace

            def ready(server: Any, address: Any, trace: Any = trace) -> None:
                sys._getframe(1).f_trace = trace
                sys.settrace(trace)

            signal.alarm(20)
            try:
                assert run_server.run_server([], ready=ready)
            finally:
                sys.settrace(None)
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(sys.platform != "linux", reason="needs tgkill")
@pytest.mark.parametrize("which", ["main", "other"])
def test_one_sigterm_ends_a_busy_server_whichever_thread_receives_it(shards, which):
    with served(shards) as [server]:
        stop, answered = threading.Event(), threading.Event()
        loader = gd.build_loader(server.address, batch_size=500)
        ticket = flight_ticket(loader, num_steps=4)

        def keep_busy() -> None:
            while not stop.is_set():
                with contextlib.suppress(fl.FlightError, OSError):
                    server.client.do_get(ticket).read_all()
                    answered.set()

        threads = [threading.Thread(target=keep_busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            assert answered.wait(120)
            others = [int(name) for name in os.listdir(f"/proc/{server.process.pid}/task")]
            others.remove(server.process.pid)
            receiver = server.process.pid if which == "main" else others[0]
            assert ctypes.CDLL(None).tgkill(server.process.pid, receiver, int(signal.SIGTERM)) == 0
            server.process.join(90)
            assert server.process.exitcode == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert "stopped" in server.output.read()
