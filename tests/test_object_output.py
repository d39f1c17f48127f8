"""Shard sets written to an object store: the bytes of a folder, whatever fails on the way."""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import gemsdata as gd
from gemsdata.cli import main
from gemsdata.files.output_folder import OutputFolder
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.plan_at_url import open_plan_at
from gemsdata.shards.write_at_url import encode_at
from tests.genomes import random_dna, write_fasta
from tests.s3_support import s3_server
from tests.test_engines import contents, table_beside

pytest.importorskip("obstore")
pytestmark = pytest.mark.once
COUNTED = ShardOptions(row_tokens=8, min_count=2, rows_per_shard=1024)


@pytest.fixture(scope="module")
def server():
    with s3_server() as server:
        yield server


@pytest.fixture(autouse=True)
def no_faults(server):
    server.requests.clear()
    server.fault = None
    yield
    server.fault = None


@pytest.fixture
def in_environment(server, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GEMSDATA_RETRY_S", "2")


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("genome")
    table_beside(folder)
    return [str(write_fasta(folder / f"{name}.fa", {name: random_dna(15_000, i)})) for i, name in enumerate("ab")]


def options_of(inputs) -> ShardOptions:
    """Options with a given table, which saves most of the time of a small set."""
    return ShardOptions(row_tokens=8, rows_per_shard=1024, npmi=table_beside(Path(inputs[0]).parent))


def words_of(inputs) -> list[str]:
    """The same as words of a command."""
    table = table_beside(Path(inputs[0]).parent)
    return ["--row-tokens", "8", "--rows-per-shard", "1024", "--npmi", table, "--workers", "1", "-q"]


@pytest.fixture(scope="module")
def on_one_machine(genome, tmp_path_factory) -> dict[int, dict[str, bytes]]:
    """Files of the set of the first file, and of both."""
    folder = tmp_path_factory.mktemp("sets")
    for count in (1, 2):
        gd.shard(genome[:count], folder / str(count), options_of(genome))
    return {count: contents(folder / str(count)) for count in (1, 2)}


def shard_to(server, name, inputs, options=None, **others):
    storage_options = server.storage_options
    return gd.shard(
        inputs, f"s3://data/{name}", options or options_of(inputs), storage_options=storage_options, **others
    )


def test_the_objects_are_the_files_of_a_folder_also_with_an_executor_and_after_another_set(
    server, genome, on_one_machine, tmp_path
):
    with ThreadPoolExecutor(2) as pool:
        shard_to(server, "counted", genome, COUNTED, workers=2, executor=pool)
    gd.shard(genome, tmp_path / "counted", COUNTED)
    assert server.objects("counted") == contents(tmp_path / "counted")
    shard_to(server, "set", genome)
    assert server.objects("set") == on_one_machine[2]
    with pytest.raises(ValueError, match=r"s3://data/set already holds a shard set \(complete\); pass --overwrite"):
        shard_to(server, "set", genome)
    shard_to(server, "set", genome[:1], overwrite=True)
    assert server.objects("set") == on_one_machine[1]
    assert "the set was complete before" in shard_to(server, "set", genome[:1], resume=True)[1]["notes"][0]
    with pytest.raises(ValueError, match="s3://data/set is complete and was made from another genome"):
        shard_to(server, "set", genome, resume=True)
    OutputFolder("s3://data/set", server.storage_options).put("notes.txt", b"mine")
    with pytest.raises(ValueError, match=r"contains notes\.txt, which does not belong"):
        shard_to(server, "set", genome, overwrite=True)


def test_several_machines_encode_what_one_planned_and_the_manifest_comes_last(
    server, genome, on_one_machine, in_environment, capsys
):
    url = "s3://data/slices"
    assert main(["shard", *genome, "-o", url, "--plan-only", *words_of(genome)]) == 0
    assert main(["encode", url, "--slice", "0/2", "-q"]) == 0
    server.requests.clear()
    assert main(["finalise", url]) == 2
    assert re.search(r"s3://data/slices lacks 2 of 5 parts: train/000001, train/000003;", capsys.readouterr().err)
    assert main(["info", url]) == 2
    assert "is not a shard set (no _index.json there)" in capsys.readouterr().err
    assert main(["encode", url, "--slice", "1/2", "-q"]) == 0
    assert main(["encode", url, "-q"]) == 0  # finds every part there
    put = [name for method, name in server.requests if method == "PUT"]
    assert sorted(name for name in put if name.endswith(".arrow")) == [
        "slices/train/000001.arrow", "slices/train/000003.arrow",
    ]  # fmt: skip
    assert main(["finalise", url]) == 0
    assert server.objects("slices") == on_one_machine[2]
    assert [name for method, name in server.requests if method == "PUT"][-1] == "slices/_index.json"
    assert main(["finalise", url]) == 0
    assert main(["encode", url]) == 0
    assert "every part was encoded before" in capsys.readouterr().out


FAULTS = {
    "status 500": lambda method, name, before: (
        "500" if before == 0 and name.endswith((".arrow", "_index.json")) else None
    ),
    "lost answers of puts": lambda method, name, before: (
        "lost" if method == "PUT" and before == 0 and name.endswith(("plan.json", "0.arrow", "_index.json")) else None
    ),
    "answers cut": lambda method, name, before: (
        "cut" if method == "GET" and before == 0 and name.endswith((".bin", "train.start.npy", "0.json")) else None
    ),
    "slow answers": lambda method, name, before: 0.2 if before == 0 and name.endswith("0.arrow") else None,
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_now_and_then_gets_the_same_bytes(
    server, genome, on_one_machine, fault, tmp_path, monkeypatch
):
    monkeypatch.setenv("GEMSDATA_CACHE", str(tmp_path))
    server.fault = FAULTS[fault]
    with ThreadPoolExecutor(2) as pool:
        shard_to(server, f"faults/{fault}", genome, workers=2, executor=pool)
    server.fault = None
    assert server.objects(f"faults/{fault}") == on_one_machine[2]


def test_a_run_that_ended_in_the_middle_is_resumed(server, genome, on_one_machine, in_environment, monkeypatch, capsys):
    monkeypatch.setenv("GEMSDATA_RETRY_S", "0.1")
    words = ["shard", *genome, "-o", "s3://data/stopped", *words_of(genome)]
    server.fault = lambda method, name, before: (
        "500" if method == "PUT" and name.endswith("train/000001.arrow") else None
    )
    assert main(words) == 2
    error = capsys.readouterr().err
    assert re.match(r"error: s3://data/stopped/train/000001.arrow cannot be written: .*retried for up to 0.1 s", error)
    assert error.count("\n") == 1
    assert "_index.json" not in server.objects("stopped")
    server.fault = None
    server.requests.clear()
    assert main(words) == 2
    assert "(unfinished); pass --resume to finish it or --overwrite" in capsys.readouterr().err
    other = ["9" if word == "8" else word for word in words]
    assert main([*other, "--resume"]) == 2
    assert "s3://data/stopped was begun with row-tokens = 8, not 9" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert server.objects("stopped") == on_one_machine[2]
    assert ("PUT", "stopped/train/000000.arrow") not in server.requests


def test_a_set_that_is_replaced_stays_until_the_new_one_is_whole(server, genome, on_one_machine, monkeypatch):
    monkeypatch.setenv("GEMSDATA_RETRY_S", "0.1")
    shard_to(server, "old", genome)
    output = OutputFolder("s3://data/old", server.storage_options)
    server.fault = lambda method, name, before: (
        "500" if method == "PUT" and "parts-" in name and ".arrow" in name else None
    )
    with pytest.raises(ConnectionError, match="cannot be written"):
        shard_to(server, "old", genome[:1], overwrite=True)
    server.fault = None
    there = server.objects("old")
    assert {name: there[name] for name in on_one_machine[2]} == on_one_machine[2]
    server.fault = lambda method, name, before: "500" if method == "PUT" and name == "old/train/000000.arrow" else None
    with pytest.raises(ConnectionError, match=r"train/000000\.arrow cannot be written"):
        shard_to(server, "old", genome[:1], resume=True)
    server.fault = None
    assert output.get_or_none("_index.json") is None  # some shards may be new: no manifest says otherwise
    shard_to(server, "old", genome[:1], resume=True)
    assert server.objects("old") == on_one_machine[1]


def test_a_machine_that_comes_late_writes_nothing(server, genome, on_one_machine, in_environment):
    url = "s3://data/late"
    assert main(["shard", *genome, "-o", url, "--plan-only", *words_of(genome)]) == 0
    late = open_plan_at(OutputFolder(url))
    assert main(["shard", *genome[:1], "-o", url, "--overwrite", *words_of(genome)]) == 0
    with pytest.raises(ValueError, match="s3://data/late was completed or planned again meanwhile"):
        encode_at(late, late.plan.parts)
    assert server.objects("late") == on_one_machine[1]


def test_a_card_and_a_genome_in_the_store(server, genome, in_environment, capsys):
    OutputFolder("s3://data/genomes").put("a.fa", Path(genome[0]).read_bytes())
    assert main(["shard", "s3://data/genomes/a.fa", "-o", "s3://data/card", "--card", *words_of(genome)]) == 0
    assert b"written by gemsdata" in server.objects("card")["README.md"]
    OutputFolder("s3://data/card").put("README.md", b"mine")
    assert main(["shard", genome[0], "-o", "s3://data/card", "--card", "--overwrite", *words_of(genome)]) == 2
    assert "s3://data/card/README.md was not written by --card" in capsys.readouterr().err


@pytest.mark.slow
def test_rows_of_a_view(server, genome, in_environment, tmp_path, capsys):
    words = ["--tokens", "base", "--row-bases", "64", "--min-count", "2", "-q"]
    for place in ("s3://data/view", str(tmp_path / "view")):
        assert main(["shard", genome[0], "-o", place, *words]) == 0
    assert server.objects("view") == contents(tmp_path / "view")
    assert main(["verify", "s3://data/view"]) == 0
    assert main(["shard", genome[0], "-o", "s3://data/view", *words, "--resume"]) == 2
    assert "rows of a view are not resumed at a URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "changed", "said"),
    [
        ("http://127.0.0.1:1/set", {}, "error: http://127.0.0.1:1/set cannot be written; give a folder, or a URL that"),
        ("s3://absent/set", {}, "error: s3://absent/set: there is no such bucket; create it, or check its name"),
        (
            "s3://data/set",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            r"error: s3://data/set.* cannot be .*check address",
        ),
        ("s3://data/none", {"AWS_ACCESS_KEY_ID": None}, "error: s3://data/none.*: no credentials were found; check"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(genome, in_environment, monkeypatch, capsys, url, changed, said):
    monkeypatch.setenv("GEMSDATA_RETRY_S", "0.2")
    for name, value in changed.items():
        if value is None:
            for key in [key for key in os.environ if key.startswith("AWS_") and key != "AWS_REGION"]:
                monkeypatch.delenv(key)
            monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
        else:
            monkeypatch.setenv(name, value)
    assert main(["shard", *genome, "-o", url, *words_of(genome)]) == 2
    error = capsys.readouterr().err
    assert re.match(said, error), error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", [["shard", "GENOME", "-o", "URL"], ["info", "URL"], ["encode", "URL"]])
def test_a_missing_package_is_one_line(genome, monkeypatch, capsys, command):
    for name in [name for name in sys.modules if name.partition(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    names = {"GENOME": genome[0], "URL": "s3://data/set"}
    assert main([names.get(word, word) for word in command]) == 2
    assert capsys.readouterr().err == (
        "error: the URL s3://data/set needs obstore; install it with: pip install 'gemsdata[s3]'\n"
    )
