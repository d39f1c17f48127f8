"""Every command that reads, given a URL: of a plain HTTP server, and of an S3 server."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import re
import shutil
import threading
from pathlib import Path

import pytest

import gemsdata as gd
from gemsdata.cli import main
from tests.service_support import command_line, served
from tests.stream_support import digest, global_batches, loaders_of_ranks, make_set
from tools.fault_server import serving

pytestmark = pytest.mark.once

pytest.importorskip("obstore")
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("commands") / "genome")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """What ``python -m http.server`` runs, without its lines."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def http_folder(shards):
    """URL of the folder that holds the set and its FASTA file."""
    handler = functools.partial(Quiet, directory=str(shards.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def packed(shards):
    """A packed set of the same genome, beside the set."""
    folder = shards.parent / "packed"
    assert main(["shard", f"{shards}.fa", "-o", str(folder), "--format", "packed", "--min-count", "1", "-q"]) == 0
    return folder


@pytest.fixture
def packed_url(packed, http_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("GEMSDATA_CACHE", str(tmp_path / "cache"))
    return f"{http_folder}/packed"


BASES = ("--tokens", "base", "--row-bases", "60")


@pytest.fixture(scope="module")
def bucket(shards):
    """Endpoint of an S3 server whose bucket ``data`` holds the set."""
    boto3 = pytest.importorskip("boto3")
    moto_server = pytest.importorskip("moto.server")
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket="data")
    for path in shards.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "data", f"sets/genome/{path.relative_to(shards)}")
    client.close()
    yield endpoint
    server.stop()


@pytest.fixture(params=["http", "s3"])
def url(request, monkeypatch, tmp_path):
    """URL of the set; the settings that it needs come from the environment."""
    monkeypatch.setenv("GEMSDATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GEMSDATA_RETRY_S", "1")
    if request.param == "http":
        return f"{request.getfixturevalue('http_folder')}/genome"
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": request.getfixturevalue("bucket")}.items():
        monkeypatch.setenv(name, value)
    return "s3://data/sets/genome"


ONE_SCHEME = pytest.mark.parametrize("url", [pytest.param("http", marks=pytest.mark.slow), "s3"], indirect=True)
"""For tests that start processes or draw figures"""


def output_of(*arguments: object) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([str(word) for word in arguments]) == 0
    return printed.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "SET"),
        ("info", "SET", "--json"),
        ("audit", "SET", "--masking", "genemask", "--rows", "20", "--json"),
        ("show", "SET", "--row", "3", "--masking", "genemask"),
        ("shuffle", "SET"),
        ("query", "SET", "SELECT count(*), sum(n.count) FROM rows, (FROM npmi WHERE k = 1) n"),
        ("query", "SET", "FROM intervals ORDER BY ALL LIMIT 3"),
        ("query", "SET", "SELECT rank, base_pos FROM tokens ORDER BY ALL LIMIT 3"),
    ],
    ids=" ".join,
)
def test_a_command_prints_the_same_of_a_url_and_of_a_folder(shards, url, arguments):
    local, remote = (
        output_of(*(str(place) if word == "SET" else word for word in arguments)) for place in (shards, url)
    )
    assert remote.replace(url, "SET") == local.replace(str(shards), "SET")


def test_verify_fetches_and_compares_all_but_the_names_of_files(shards, url, http_folder):
    fasta = f"{shards}.fa"
    local, remote = (
        re.sub(r"in [\d.]+ s", "", output_of("verify", place, "--fasta", fasta)).splitlines() for place in (shards, url)
    )
    assert local[0] == "ok: the folder contains the files of the manifest and no others"
    assert remote[:-1] == local[1:-1]
    assert remote[-1].replace(url, "SET") == local[-1].replace(str(shards), "SET")


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "SET"),
        ("audit", "SET", "--masking", "genemask", "--rows", "20", "--json", *BASES),
        ("show", "SET", "--row", "3", "--masking", "genemask", *BASES),
        ("shuffle", "SET", *BASES),
        ("query", "SET", "SELECT contig, start, num_bases FROM rows ORDER BY ALL"),
    ],
    ids=" ".join,
)
def test_a_command_prints_the_same_of_a_packed_set_at_a_url(packed, packed_url, arguments):
    local, remote = (
        output_of(*(str(place) if word == "SET" else word for word in arguments)) for place in (packed, packed_url)
    )
    assert remote.replace(packed_url, "SET") == local.replace(str(packed), "SET")


def test_a_packed_set_at_a_url_is_verified_drawn_loaded_and_served(packed, packed_url, tmp_path, shards, capsys):
    assert main(["verify", packed_url, "--fasta", f"{shards}.fa"]) == 0
    assert "every base matches the FASTA" in capsys.readouterr().out
    assert main(["plot", packed_url, "-o", str(tmp_path / "figures")]) == 0
    assert (tmp_path / "figures" / "rank_profile.svg").exists()
    assert main(["report", packed_url, "-o", str(tmp_path / "page.html"), "--rows", "20"]) == 0
    assert "<title>" in (tmp_path / "page.html").read_text()
    views = [gd.view(place, tokens="base", row_bases=60) for place in (packed, packed_url)]
    wanted = digest(global_batches(loaders_of_ranks(views[0], 1, num_steps=5)))
    assert digest(global_batches(loaders_of_ranks(views[1], 1, num_steps=5))) == wanted
    with served(packed_url, options=BASES) as [server]:
        assert digest(global_batches(loaders_of_ranks(server.address, 1, num_steps=5))) == wanted
    shard = gd.ShardSet.open(packed).manifest.shards("train")[0].files["packed"]
    assert shard.sha256 in {path.name for path in (tmp_path / "cache").rglob("*")}


@ONE_SCHEME
def test_plot_and_report(url, tmp_path, capsys):
    assert main(["plot", url, "-o", str(tmp_path / "figures")]) == 0
    assert (tmp_path / "figures" / "rank_profile.svg").exists()
    assert main(["report", url, "-o", str(tmp_path / "page.html"), "--rows", "20"]) == 0
    assert "<title>" in (tmp_path / "page.html").read_text()
    capsys.readouterr()


@ONE_SCHEME
def test_serve(shards, url):
    with served(url, start=command_line) as [server]:
        batches = digest(global_batches(loaders_of_ranks(server.address, 1, num_steps=5)))
    assert batches == digest(global_batches(loaders_of_ranks(shards, 1, num_steps=5)))


@ONE_SCHEME
@pytest.mark.parametrize(
    "options", [{"num_workers": 2, "threads": True}, pytest.param({"num_workers": 2}, marks=pytest.mark.slow)]
)
def test_a_loader_in_threads_and_in_processes(shards, url, options):
    batches = digest(global_batches(loaders_of_ranks(url, 1, num_steps=30, **options)))
    assert batches == digest(global_batches(loaders_of_ranks(shards, 1, num_steps=30)))


def test_a_fork_is_refused(url):
    with pytest.raises(ValueError, match=r'start_method = "fork" is not for sets at URLs; give "spawn"'):
        gd.build_loader(url, batch_size=7, num_workers=1, start_method="fork")


def test_genomes_at_urls(shards, http_folder, tmp_path, capsys):
    genome = f"{http_folder}/genome.fa"
    for place, name in ((genome, "remote"), (f"{shards}.fa", "local")):
        assert main(["npmi", place, "-k", "3", "-o", str(tmp_path / f"{name}.parquet")]) == 0
        assert main(["shard", place, "-k", "3", "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "remote.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
    assert (tmp_path / "remote" / "npmi.parquet").read_bytes() == (tmp_path / "local" / "npmi.parquet").read_bytes()
    capsys.readouterr()
    assert main(["npmi", f"{http_folder}/absent.fa", "-o", str(tmp_path / "x.parquet")]) == 2
    assert capsys.readouterr().err == f"error: {http_folder}/absent.fa: no such file\n"


def test_an_input_at_a_url_that_has_changed_is_not_resumed(shards, tmp_path, capsys):
    served = tmp_path / "served"
    served.mkdir()
    genome = shutil.copy(f"{shards}.fa", served / "genome.fa")
    with serving(served) as server:
        words = ["shard", f"{server.url}/genome.fa", "-k", "3", "-o", str(tmp_path / "set")]
        assert main([*words, "--plan-only"]) == 0
        Path(genome).write_text(Path(genome).read_text().replace("A", "C"))  # of the same size
        assert main([*words, "--resume"]) == 2
        assert "was begun with other input files, or these have changed" in capsys.readouterr().err
        shutil.copy(f"{shards}.fa", genome)
        assert main([*words, "--resume"]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["npmi", "GENOME", "-o", "s3://bucket/table.parquet"],
        ["plot", "SHARDS", "-o", "s3://bucket/figures"],
        ["query", "SHARDS", "FROM shards", "-o", "s3://bucket/rows.csv"],
        ["report", "SHARDS", "-o", "s3://bucket/page.html"],
    ],
)
def test_results_are_written_to_this_machine(shards, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert main([{"GENOME": f"{shards}.fa", "SHARDS": str(shards)}.get(word, word) for word in words]) == 2
    assert f"{words[-1]} is a URL; give a path on this machine" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


COMMANDS = {
    "info": ("info", "URL"),
    "verify": ("verify", "URL"),
    "query": ("query", "URL", "FROM shards"),
    "audit": ("audit", "URL", "--masking", "genemask"),
    "show": ("show", "URL", "--masking", "genemask"),
    "shuffle": ("shuffle", "URL"),
    "plot": ("plot", "URL", "-o", "figures"),
    "report": ("report", "URL", "-o", "page.html"),
    "serve": ("serve", "URL"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("HTTP/nothing", r"error: HTTP/nothing is not a shard set \(no _index.json there\)"),
        (
            "http://127.0.0.1:1/set",
            r"error: http://127.0.0.1:1/set/_index.json cannot be read: .*retried for up to 0.2 s: check address",
        ),
        ("nonsense://bucket/set", r"error: .*nonsense"),
    ],
)
def test_a_place_without_a_set_is_an_error_of_one_line(
    http_folder, tmp_path, monkeypatch, capsys, command, place, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEMSDATA_RETRY_S", "0.2")
    url = place.replace("HTTP", http_folder)
    assert main([url if word == "URL" else word for word in COMMANDS[command]]) == 2
    error = capsys.readouterr().err
    assert re.match(message.replace("HTTP", http_folder), error), error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
