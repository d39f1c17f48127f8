"""A server under garbage, many connections, clients that do not read, and a signal that another thread receives."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import sys
import threading

import pyarrow.flight as fl
import pytest

import gemsdata as gd
from gemsdata.service.server import MAX_ANSWERS
from tests.service_support import Served, command_line, served
from tests.stream_support import make_set
from tests.test_service_stops import flight_ticket

NUM_CONNECTIONS = 200


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("attacks") / "set")


@pytest.fixture(scope="module")
def server(shards):
    with served(shards) as [server]:
        yield server


@contextlib.contextmanager
def connections(server: Served, number: int):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 30)) for _ in range(number)]


def assert_it_answers(server: Served, shards) -> None:
    loader = gd.build_loader(server.address, batch_size=7, num_steps=3)
    assert [batch["step"] for batch in loader] == [0, 1, 2]
    assert server.counters()["active_streams"] == 0


def test_garbage(server, shards):
    rng = random.Random(0)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    frames = [b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", b"\x00\x00\x00\x04\x01\x00\x00\x00\x00", rng.randbytes(4096)]
    sent = [rng.randbytes(1 << size) for size in range(0, 17, 4)] + [preface + frame for frame in frames]
    sent += [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", preface * 1000, b"A" * (1 << 20)]
    with connections(server, len(sent)) as open_connections:
        for connection, content in zip(open_connections, sent, strict=True):
            with contextlib.suppress(ConnectionError):
                connection.sendall(content)
    assert_it_answers(server, shards)


def test_connections_that_say_nothing(server, shards):
    with connections(server, NUM_CONNECTIONS):
        assert_it_answers(server, shards)


def test_slow_clients_take_no_more_than_their_places(server, shards):
    loader = gd.build_loader(server.address, global_batch_size=5000)
    with contextlib.ExitStack() as stack:
        readers = []
        for _ in range(MAX_ANSWERS + 6):
            reader = stack.enter_context(contextlib.closing(server.client)).do_get(flight_ticket(loader, num_steps=50))
            stack.callback(reader.cancel)
            readers.append(reader)
            if server.counters()["active_streams"] >= MAX_ANSWERS:
                break
        refused = 0
        for reader in readers:
            try:
                reader.read_chunk()
            except fl.FlightUnavailableError:
                refused += 1
        assert server.counters()["active_streams"] <= MAX_ANSWERS
        assert len(readers) - refused <= MAX_ANSWERS
    assert server.counters()["requests"] >= len(readers)


def test_requests_that_are_huge(server, shards):
    for size in (1 << 20, 8 << 20, 64 << 20):
        with pytest.raises((fl.FlightServerError, fl.FlightError, OSError)):
            server.client.do_get(fl.Ticket(b"[" * size)).read_all()
    assert server.counters()["uptime_s"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs tgkill")
def test_one_sigterm_that_another_thread_receives_ends_a_busy_server(shards):
    with served(shards, start=command_line) as [server]:
        stop = threading.Event()

        def keep_busy():
            loader = gd.build_loader(server.address, batch_size=2000)
            while not stop.is_set():
                with contextlib.suppress(fl.FlightError, OSError, StopIteration):
                    server.client.do_get(flight_ticket(loader, num_steps=4)).read_all()

        threads = [threading.Thread(target=keep_busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        while server.counters()["batches"] < 8:
            stop.wait(0.05)
        others = [int(name) for name in os.listdir(f"/proc/{server.process.pid}/task")]
        others.remove(server.process.pid)
        assert ctypes.CDLL(None).tgkill(server.process.pid, others[0], int(signal.SIGTERM)) == 0
        try:
            assert server.process.wait(90) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert "stopped" in server.output.read()
