"""One name for several servers: clients find all of them, and those that come later in place of lost ones."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.service import endpoints
from gemsdata.service.auth import Address
from gemsdata.service.endpoints import Endpoints
from tests.ports import free_port
from tests.service_support import forked
from tests.stream_support import digest, global_batches, loaders_of_ranks, make_set

pytestmark = pytest.mark.once

NAME = "masks.example"
RUN = {"masking": "cm-gems", "seed": 4, "num_steps": 60}
OF_SYSTEM = socket.getaddrinfo


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("service") / "set")


@pytest.fixture
def hosts(monkeypatch) -> list[str]:
    """The IP addresses that `NAME` resolves to; none: it cannot be resolved."""
    found: list[str] = []

    def look_up(host, port, *arguments, **options):
        if host != NAME:
            return OF_SYSTEM(host, port, *arguments, **options)
        if not found:
            raise socket.gaierror(socket.EAI_AGAIN, "temporary failure")
        families = [socket.AF_INET6 if ":" in ip else socket.AF_INET for ip in found]
        return [(family, socket.SOCK_STREAM, 6, "", (ip, port)) for family, ip in zip(families, found, strict=True)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return found


@contextlib.contextmanager
def serving(shards, port, hosts, *options):
    """Servers at several loopback addresses, with one port."""
    with socket.socket() as probe:
        try:
            probe.bind((hosts[-1], port))
        except OSError:
            pytest.skip(f"this machine has no address {hosts[-1]}")
    servers = [forked(shards, "--host", host, "--port", str(port), *options) for host in hosts]
    try:
        yield [server.wait() for server in servers]
    finally:
        for server in servers:
            server.end()


def test_a_lost_server_and_one_that_takes_its_place_change_no_batch(shards, hosts, monkeypatch):
    monkeypatch.setattr(endpoints, "_AFTER_FAILURE_S", 0.0)
    hosts += ["127.0.0.3", "127.0.0.2"]
    port = free_port()
    with serving(shards, port, ["127.0.0.2", "127.0.0.3", "127.0.0.4"]) as servers:
        [loader] = loaders_of_ranks(f"grpc://{NAME}:{port}", 1, num_workers=2, **RUN)
        batches = []
        for batch in loader:
            if batch["step"] == 20:
                counted = [server.counters()["batches"] for server in servers]
                hosts[:] = ["127.0.0.3", "127.0.0.4"]
                servers[0].process.kill()
            batches.append({name: np.asarray(value) for name, value in batch.items()})
        replaced = servers[2].counters()["batches"]
    assert [count > 0 for count in counted] == [True, True, False]
    assert replaced > 0
    assert digest(batches) == digest(global_batches(loaders_of_ranks(shards, 1, **RUN)))


def test_the_certificate_is_of_the_name(shards, hosts, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=masks"
    command += f" -addext subjectAltName=DNS:{NAME} -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "token").write_text("0123456789abcdef")
    files = {"--token-file": "token", "--tls-cert": "cert.pem", "--tls-key": "key.pem"}
    words = [word for option, name in files.items() for word in (option, str(tmp_path / name))]
    secrets = {"token_file": words[1], "tls_roots": words[3], "connect_s": 1}
    hosts += ["127.0.0.2", "127.0.0.9"]  # nothing listens at the second
    port = free_port()
    with serving(shards, port, ["127.0.0.2"], *words):
        by_name = gd.Servers(addresses=(f"grpc+tls://{NAME}:{port}",), **secrets)
        assert next(iter(gd.build_loader(by_name, batch_size=7)))["step"] == 0
        by_number = gd.Servers(addresses=(f"grpc+tls://127.0.0.2:{port}",), **secrets)
        with pytest.raises(ConnectionError, match="no server has answered"):
            gd.build_loader(by_number, batch_size=7)


def shown(found: Endpoints) -> list[str]:
    return [str(endpoint.address) for endpoint in found.current()]


def test_names_are_looked_up_again(hosts, monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    hosts += ["10.0.0.2", "10.0.0.1"]
    found = Endpoints([Address.parse(text) for text in (f"grpc://{NAME}:8815", "grpc://10.0.0.9:8815")])
    two = ["grpc://10.0.0.1:8815", "grpc://10.0.0.2:8815", "grpc://10.0.0.9:8815"]
    assert shown(found) == two
    hosts[:] = ["10.0.0.2", "10.0.0.3"]
    assert shown(found) == two
    now += endpoints.LOOK_UP_S
    later = ["grpc://10.0.0.2:8815", "grpc://10.0.0.3:8815", "grpc://10.0.0.9:8815"]
    assert shown(found) == later
    hosts.clear()  # servers stay known while the name cannot be resolved
    found.failed()
    now += 1
    assert shown(found) == later
    hosts += ["10.0.0.4", "10.0.0.5", "10.0.0.4"]
    found.failed()
    assert shown(found) == later
    now += 1
    assert shown(found) == ["grpc://10.0.0.4:8815", "grpc://10.0.0.5:8815", "grpc://10.0.0.9:8815"]


@pytest.mark.parametrize("given", [["10.0.0.1"], ["fd00::1", "10.0.0.1"], []])
def test_a_host_with_one_address_of_a_family_is_one_server(hosts, given):
    hosts += given
    address = Address.parse(f"grpc+tls://{NAME}:8815")
    [endpoint] = Endpoints([address]).current()
    assert (endpoint.address, endpoint.name) == (address, None)


def test_addresses_of_one_server_are_not_looked_up(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", None)
    texts = ["grpc://127.0.0.1:1", "grpc://[::1]:1", "grpc+tls://localhost:1"]
    found = Endpoints([Address.parse(text) for text in texts])
    found.failed()
    assert shown(found) == texts
