"""Servers that are stopped, full or waited for: what their clients see."""

from __future__ import annotations

import json
import os
import socket
import time

import pyarrow as pa
import pyarrow.flight as fl
import pytest

import gemsdata as gd
from gemsdata.service import server as server_module
from gemsdata.service.auth import Address
from gemsdata.service.remote_stream import RemoteSets
from gemsdata.service.run_server import usable_processors
from gemsdata.service.server import Server
from gemsdata.service.stream_cache import StreamCache
from gemsdata.shards.shard_set import ShardSet
from tests.service_support import command_line, served
from tests.stream_support import make_set

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("service") / "set")


def flight_ticket(loader, **changes) -> fl.Ticket:
    return fl.Ticket(json.dumps({**json.loads(loader.stream.request(range(1))), **changes}).encode())


def steps_of(chunk) -> list[int]:
    return [info["step"] for info in json.loads(chunk.app_metadata.to_pybytes())]


@pytest.mark.compiled
def test_the_server_does_not_run_ahead_of_slow_clients(tmp_path):
    """Eight clients ask for 1000 batches of 5.2 MB each and do not read them.

    Bound: four batches a client (made, being sent, and gRPC's own copies), where the answers have 650 each a second.
    """
    folder = make_set(tmp_path / "set", num_bases=300_000, row_tokens=510, block_rows=64, rows_per_shard=1024)
    with served(folder) as [server]:
        loader = gd.build_loader(server.address, batch_size=2048, num_steps=40, num_workers=2)
        size = loader.stream.layout.num_bytes
        for _ in loader:
            pass
        before = server.anonymous_bytes()
        readers = [server.client.do_get(flight_ticket(loader, num_steps=1000)) for _ in range(8)]
        for reader in readers:
            reader.read_chunk()
        time.sleep(1.5)
        grown = server.anonymous_bytes() - before
        made = server.counters()
        assert made["active_streams"] == 8
        assert grown < 8 * 4 * size, f"{grown / size:.1f} batches of {size:,} bytes are held for 8 clients"
        assert made["batches"] < 40 + 8 * 8 * 2, "messages, of two batches each, were made that nobody took"
        for reader in readers:
            reader.cancel()
        assert next(iter(loader))["step"] == 0


@pytest.mark.compiled
def test_no_more_streams_than_there_is_memory_for(shards, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_ANSWERS", 1)
    here = Address(host="127.0.0.1", port=0, tls=False)
    with Server(StreamCache([ShardSet.open(shards)]), here, workers=1) as server:
        place = gd.Servers(addresses=(f"grpc://127.0.0.1:{server.port}",), patience_s=0.2)
        loader = gd.build_loader(place, global_batch_size=50_000)
        client = fl.FlightClient(place.addresses[0])
        reader = client.do_get(flight_ticket(loader, num_steps=1000))
        reader.read_chunk()
        with pytest.raises(ConnectionError, match="1 responses are being sent; retry later"):
            next(iter(loader))
        reader.cancel()
        del reader
        loader.stream.connections = RemoteSets(gd.Servers(addresses=place.addresses), 0).connections
        assert next(iter(loader))["step"] == 0


@pytest.mark.compiled
def test_sigterm_finishes_what_is_being_sent(shards):
    with served(shards, start=command_line) as [server]:
        loader = gd.build_loader(server.address, batch_size=2000)
        reader = server.client.do_get(flight_ticket(loader, num_steps=60))
        steps = steps_of(reader.read_chunk())
        server.terminate()
        time.sleep(0.3)
        with pytest.raises((fl.FlightUnavailableError, pa.ArrowException)):
            list(server.client.do_action(fl.Action("health", b"")))
        steps += [step for chunk in reader for step in steps_of(chunk)]
        assert steps == list(range(60))
        assert server.output.read() == "stopped\n"
        assert server.process.wait(30) == 0


@pytest.mark.compiled
def test_a_stop_does_not_wait_for_ever(shards):
    here = Address(host="127.0.0.1", port=0, tls=False)
    server = Server(StreamCache([ShardSet.open(shards)]), here, workers=1)
    loader = gd.build_loader(f"grpc://127.0.0.1:{server.port}", global_batch_size=50_000)
    reader = fl.FlightClient(f"grpc://127.0.0.1:{server.port}").do_get(flight_ticket(loader, num_steps=1000))
    reader.read_chunk()
    assert not server.stop(0.2), "a client that does not read was waited for"
    assert server.health()["status"] == "stopping"
    reader.cancel()
    assert server.stop(30)


def test_a_loader_waiting_for_a_server_closes_at_once(shards):
    with served(shards) as [server]:
        loader = gd.build_loader(server.address, batch_size=7, num_workers=2)
        iterator = iter(loader)
        next(iterator)
    time.sleep(0.2)
    began = time.monotonic()
    loader.close()
    assert time.monotonic() - began < loader.stream.connections.servers.patience_s / 10


def test_no_server_answers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"grpc://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=rf"no server has answered for 0 s \({gone}: .*gemsdata serve"):
        gd.build_loader(gd.Servers(addresses=(gone,), connect_s=0.1), batch_size=7)


def test_a_damaged_set_on_a_server_is_reported(tmp_path):
    folder = make_set(tmp_path / "set")
    with served(folder) as [server]:
        loader = gd.build_loader(server.address, batch_size=7)
        for shard in (folder / "train").glob("*.arrow"):
            shard.write_bytes(shard.read_bytes()[:-100])
        with pytest.raises(ValueError, match=rf"{server.address}: shard .* bytes, its manifest says"):
            for _ in loader:
                pass
        counted = gd.build_loader(server.address, batch_size=7, faults="skip-and-count", num_steps=3)
        with pytest.warns(UserWarning, match="rows of damaged shards are skipped"):
            assert len(list(counted)) == 3
        assert counted.num_skipped == 21


def test_without_an_affinity_mask_all_processors_count(monkeypatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_processors() == 7
