"""Access control of a server, and its answers to invalid requests."""

from __future__ import annotations

import hmac
import json
import re
import shutil
import subprocess

import pyarrow as pa
import pyarrow.flight as fl
import pytest

import gemsdata as gd
from gemsdata.cli import main
from gemsdata.service.auth import Address, TokenCheck, read_token
from gemsdata.service.server import ACTIONS
from gemsdata.shards.shard_set import ShardSet
from tests.batch_requests import GOOD, changed
from tests.service_support import command_line, served
from tests.stream_support import digest, global_batches, loaders_of_ranks, make_set

pytestmark = pytest.mark.once

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("safety") / "set")


@pytest.fixture(scope="module")
def server(shards):
    with served(shards) as [server]:
        yield server


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """A folder with a token, a wrong one, and a certificate of 127.0.0.1 that signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "wrong").write_text("x" * 32)
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


def test_token_and_tls(shards, secrets):
    def start(*arguments):
        options = ["--token-file", secrets / "token", "--tls-cert", secrets / "cert.pem", "--tls-key"]
        return command_line(*arguments, *options, secrets / "key.pem", GRPC_VERBOSITY="DEBUG")

    with served(shards, start=start) as [server]:
        assert server.address.startswith("grpc+tls://127.0.0.1:")
        right = {"token_file": str(secrets / "token"), "tls_roots": str(secrets / "cert.pem"), "connect_s": 1}
        place = gd.Servers(addresses=(server.address,), **right)
        run = {"masking": "cm-gems", "num_steps": 20}
        remote = digest(global_batches(loaders_of_ranks(place, 2, num_workers=2, **run)))
        assert remote == digest(global_batches(loaders_of_ranks(shards, 2, **run)))
        for token_file in (str(secrets / "wrong"), None):
            with pytest.raises(ConnectionError, match="rejected the token; give that of the server") as caught:
                gd.build_loader(
                    gd.Servers(addresses=(server.address,), **{**right, "token_file": token_file}), batch_size=7
                )
            assert "xxxx" not in str(caught.value)
        with pytest.raises(ConnectionError, match="no server has answered"):
            gd.build_loader(gd.Servers(addresses=(server.address,), **{**right, "tls_roots": None}), batch_size=7)
        plain = server.address.replace("grpc+tls", "grpc")
        with pytest.raises(ConnectionError, match="no server has answered"):
            gd.build_loader(gd.Servers(addresses=(plain,), **right), batch_size=7)
        every_call = [
            lambda client: list(client.list_flights()),
            lambda client: list(client.list_actions()),
            lambda client: client.get_flight_info(fl.FlightDescriptor.for_path("a", "b")),
            lambda client: client.do_get(fl.Ticket(GOOD.to_json())),
            *[lambda client, name=name: list(client.do_action(fl.Action(name, b""))) for name in ACTIONS],
        ]
        client = fl.FlightClient(server.address, tls_root_certs=(secrets / "cert.pem").read_bytes())
        for call in every_call:
            with pytest.raises(fl.FlightUnauthenticatedError, match="missing or wrong token"):
                call(client)
        server.terminate()
        output = server.said + server.output.read()
    assert TOKEN not in output
    assert "xxxx" not in output


def test_the_environment_brings_token_and_certificates(shards, secrets, monkeypatch):
    options = ("--token-file", str(secrets / "token"))
    with served(shards, options=options) as [server]:
        with pytest.raises(ConnectionError, match="rejected the token"):
            gd.build_loader(server.address, batch_size=7)
        monkeypatch.setenv("GEMSDATA_TOKEN_FILE", str(secrets / "token"))
        assert next(iter(gd.build_loader(server.address, batch_size=7)))["step"] == 0


def test_the_token_is_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    check = TokenCheck(TOKEN.encode())
    check.start_call(None, {"authorization": [f"Bearer {TOKEN}"]})
    for shown in ({}, {"authorization": []}, {"authorization": ["Bearer " + TOKEN] * 2}, {"authorization": ["ü"]}):
        with pytest.raises(fl.FlightUnauthenticatedError):
            check.start_call(None, shown)
    assert len(compared) == 5
    assert TOKEN not in repr(check)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], r"host 0.0.0.0 can be reached from other machines; give --token-file and --tls-cert"),
        (["--host", "::"], r"host :: can be reached"),
        (["--host", "192.0.2.1", "--token-file", "token"], "give --tls-cert and --tls-key, or --host 127.0.0.1"),
        (["--host", "node7", "--tls-cert", "cert.pem", "--tls-key", "key.pem"], "give --token-file, or --host"),
        (["--tls-cert", "cert.pem"], "give --tls-cert and --tls-key together"),
        (["--tls-cert", "cert.pem", "--tls-key", "nothing"], "nothing: no such file .it should contain the key"),
        (["--token-file", "nothing"], "nothing: no such file .it should contain the token"),
        (["--token-file", "short"], "short contains no token: expected 16 or more printable characters"),
        (["--seeds", "9-3"], "--seeds 9-3 is not a range"),
        (["--workers", "0"], "'--workers': 0 is not in the range"),
    ],
)
def test_a_server_that_would_be_open_is_refused_in_one_line(shards, secrets, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(secrets)
    (secrets / "short").write_text("secret")
    assert main(["serve", str(shards), "--port", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error


def test_a_taken_port_is_refused_in_one_line(shards, server, capsys):
    assert main(["serve", str(shards), "--port", str(server.port)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot serve at {server.address}: ")
    assert error.count("\n") == 1


BAD_REQUESTS = {
    "empty": b"",
    "pickle": b"\x80\x04K\x01.",
    "deep": b"[" * 100_000,
    "huge": b" " * (32 << 20),
    "endless": changed(num_steps=10**12),
    "far": changed(first_step=10**13, stage_log=[[0, 0]]),
    "another set": GOOD.to_json(),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_gets_a_clear_error_and_changes_nothing(server, name):
    before = server.counters()
    with pytest.raises(fl.FlightServerError, match="request") as caught:
        server.client.do_get(fl.Ticket(BAD_REQUESTS[name]))
    assert json.loads(caught.value.extra_info)["error"] == "ValueError"
    assert "Traceback" not in str(caught.value)
    assert "gemsdata/" not in str(caught.value)
    after = server.counters()
    assert after["refused"] == before["refused"] + 1
    changing = ("refused", "uptime_s")
    assert [after[key] for key in after if key not in changing] == [
        before[key] for key in before if key not in changing
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch": 2**22}, "a batch of 4,194,304 rows has 7.* bytes; the limit of a server is 67,108,864"),
        ({"ranks": "AAAAAA=="}, "the request has 1 ranks; the set has 69 token ids"),
        ({"weights": [1.0]}, "weights are for mixing several shard sets; one is given"),
        ({"masking_version": 7}, "masking version 7, this server has"),
        ({"remainder": "drop", "global_batch": 500}, "remainder='drop' would drop all of it"),
    ],
)
def test_what_a_set_cannot_give_is_refused(server, shards, changes, message):
    fingerprint = ShardSet.open(shards).manifest.fingerprint
    with pytest.raises(fl.FlightServerError, match=message):
        server.client.do_get(fl.Ticket(changed(fingerprint=fingerprint, **changes)))
    assert json.loads(next(server.client.do_action(fl.Action("health", b""))).body.to_pybytes())["status"] == "serving"


def test_other_calls_are_refused(server):
    client = server.client
    with pytest.raises(fl.FlightServerError, match="action 'eval' is unknown: use health, counters"):
        list(client.do_action(fl.Action("eval", b"1")))
    with pytest.raises(fl.FlightServerError, match=r"this server has no shard set b'../../etc/passwd'"):
        list(client.do_action(fl.Action("npmi", b"../../etc/passwd")))
    with pytest.raises(fl.FlightServerError, match="this server has no split 'b' of a shard set 'a'"):
        client.get_flight_info(fl.FlightDescriptor.for_path("a", "b"))
    with pytest.raises(fl.FlightServerError, match="the path of a flight is"):
        client.get_flight_info(fl.FlightDescriptor.for_command(b"x"))
    with pytest.raises(NotImplementedError):
        client.do_put(fl.FlightDescriptor.for_path("a"), pa.schema([]))[0].close()


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["grpc://127.0.0.1:1", "folder"], "folders and servers cannot be mixed"),
        ("grpc://127.0.0.1", "'grpc://127.0.0.1' is not a server address; give grpc://HOST:PORT"),
        ("grpc://127.0.0.1:99999", "is not a server address"),
        ("grpc://127.0.0.1:1/human", "is not a server address"),
        (gd.Servers(addresses=()), "no server address is given"),
        (gd.Servers(addresses=("http://127.0.0.1:1",)), "is not a server address"),
        (gd.Servers(addresses=("grpc://127.0.0.1:1",), token_file="nothing"), "nothing: no such file"),
        (gd.Servers(addresses=("grpc://127.0.0.1:1",), tls_roots="nothing"), "nothing: no such file"),
    ],
)
def test_places_that_are_no_servers_are_refused(places, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        gd.build_loader(places, batch_size=7)


def test_a_token_is_not_sent_in_clear(tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    with pytest.raises(ValueError, match=r"grpc://192.0.2.1:8815: a token is not sent unencrypted to another machine"):
        gd.build_loader(
            gd.Servers(addresses=("grpc://192.0.2.1:8815",), token_file=str(tmp_path / "token")), batch_size=7
        )


@pytest.mark.parametrize(
    ("text", "loopback", "shown"),
    [
        ("grpc://localhost:1", True, "grpc://localhost:1"),
        ("grpc+tls://127.3.2.1:8815", True, "grpc+tls://127.3.2.1:8815"),
        ("grpc://[::1]:8815", True, "grpc://[::1]:8815"),
        ("grpc+tcp://10.0.0.1:8815", False, "grpc://10.0.0.1:8815"),
        ("grpc://localhost.example.org:8815", False, "grpc://localhost.example.org:8815"),
    ],
)
def test_addresses(text, loopback, shown):
    address = Address.parse(text)
    assert (address.is_loopback, str(address)) == (loopback, shown)


def test_a_token_file(tmp_path):
    (tmp_path / "token").write_text(f"  {TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN.encode()
