"""The folder of an unfinished set: who may write, what is checked of it, and what late commands do."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gemsdata.cli import main
from gemsdata.files import publish as publishing
from gemsdata.files.checked_json import read_checked, write_checked
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards import write
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.shard_set import verify
from gemsdata.shards.work_folder import locked
from gemsdata.shards.write import encode_part, encode_parts, finalise, open_plan, plan_only, shard
from tests.genomes import random_dna, write_fasta
from tests.test_sharding import hashes

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("unsynced")]


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ShardOptions]:
    folder = tmp_path_factory.mktemp("genome")
    fasta = str(write_fasta(folder / "g.fa", {"one": random_dna(1500, 1), "two": random_dna(400, 2)}))
    NpmiTable.from_fasta(fasta, max_k=2, min_count=2).to_parquet(folder / "table.parquet")
    npmi = str(folder / "table.parquet")
    return fasta, ShardOptions(k=2, row_tokens=50, npmi=npmi, block_rows=8, rows_per_shard=8)


@pytest.fixture
def encoded(tmp_path: Path, genome: tuple[str, ShardOptions]) -> Path:
    """A set of which every part is encoded."""
    plan = plan_only([genome[0]], tmp_path / "set", genome[1])
    encode_parts(plan, plan.parts)
    return tmp_path / "set"


def test_shard_holds_the_folder_from_the_plan_to_the_end(tmp_path: Path, genome, monkeypatch) -> None:
    fasta, options = genome
    refused = []
    encode = write.encode_parts

    def encode_while_another_plans(plan, parts, **others):
        for flags in ({"resume": True}, {"overwrite": True}):
            command = ["shard", fasta, "-o", str(plan.folder), *(f"--{name}" for name in flags)]
            refused.append(run(command))
        encode(plan, parts, **others)

    monkeypatch.setattr(write, "encode_parts", encode_while_another_plans)
    shard([fasta], tmp_path / "set", options)
    assert [status for status, _ in refused] == [2, 2]
    assert all("is being written by another gemsdata" in text for _, text in refused)
    assert not (tmp_path / "set" / "_work").exists()


def run(arguments: list[str]) -> tuple[int, str]:
    """Run the command line in another process, as another writer would; return exit status and standard error."""
    done = subprocess.run([sys.executable, "-m", "gemsdata", *arguments], capture_output=True, text=True)
    return done.returncode, done.stderr


def test_an_encoder_that_comes_late_brings_nothing_back(encoded: Path, genome) -> None:
    plan = open_plan(encoded)
    finalise(plan)
    before = hashes(encoded)
    with pytest.raises(ValueError, match="was completed or planned again while train/000000 was encoded"):
        encode_part(plan, plan.parts[0])
    with pytest.raises(ValueError, match="was completed or planned again meanwhile; nothing was changed"):
        finalise(plan)
    assert hashes(encoded) == before


def test_commands_on_a_complete_set_say_so(encoded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", str(encoded), "--slice", "0/2"]) == 0
    assert main(["finalise", str(encoded)]) == 0
    before = hashes(encoded)
    capsys.readouterr()
    assert main(["encode", str(encoded)]) == 0
    assert "every part was encoded before" in capsys.readouterr().out
    for left in (None, "lock", "ranks.npy", "plan.json.new"):  # what a run killed in the removal of _work left
        if left:
            (encoded / "_work").mkdir(exist_ok=True)
            (encoded / "_work" / left).touch()
        if left != "plan.json.new":
            assert main(["finalise", str(encoded)]) == 0
            assert f"{encoded}: complete, fingerprint" in capsys.readouterr().out
            assert hashes(encoded) == before
            assert not (encoded / "_work").exists()
    assert main(["finalise", str(encoded), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is True
    assert (encoded / "_work" / "plan.json.new").exists()  # not a file of ours


def test_the_lock_of_a_killed_writer_is_nothing(tmp_path: Path, genome) -> None:
    fasta, options = genome
    (tmp_path / "set" / "_work").mkdir(parents=True)
    (tmp_path / "set" / "_work" / "lock").touch()
    shard([fasta], tmp_path / "set", options)
    (tmp_path / "set" / "_work").mkdir()
    (tmp_path / "set" / "_work" / "lock").touch()
    with pytest.raises(ValueError, match=r"\(complete\); pass --overwrite"):
        shard([fasta], tmp_path / "set", options)
    assert "contains the files of the manifest and no other" in verify(tmp_path / "set").checks[0]
    shard([fasta], tmp_path / "set", options, resume=True)
    assert not (tmp_path / "set" / "_work").exists()


def test_a_lock_that_is_held_twice_is_freed_once(tmp_path: Path) -> None:
    with locked(tmp_path):
        with locked(tmp_path):
            pass
        assert (tmp_path / "_work" / "lock").exists()
    assert not (tmp_path / "_work").exists()


def change_entry(path: Path, **fields: object) -> None:
    write_checked(path, {**read_checked(path), **fields})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{}"),
        lambda path: path.write_text("no JSON"),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"num_tokens": ', b'"num_tokens": 1')),
        lambda path: change_entry(path, num_rows=7),
        lambda path: change_entry(path, first_row=8),
        lambda path: change_entry(path, files={}),
        lambda path: change_entry(path, more=1),
    ],
)
def test_a_damaged_entry_of_a_part_is_missing_and_encoded_again(encoded: Path, damage) -> None:
    plan = open_plan(encoded)
    entry = plan.part_file(f"{plan.parts[0].name}.json")
    whole = entry.read_bytes()
    damage(entry)
    with pytest.raises(ValueError, match=r"lacks 1 of \d+ parts: train/000000"):
        finalise(plan)
    encode_parts(plan, plan.parts)
    assert entry.read_bytes() == whole
    finalise(plan)


def test_a_damaged_plan_is_refused_by_name(encoded: Path, genome) -> None:
    work = encoded / "_work"
    names = [
        path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file() and "parts-" not in str(path)
    ]
    assert {"plan.json", "ranks.npy", "train.start.npy", "genome/packed.bin", "npmi.parquet"} <= set(names)
    for name in set(names) - {"lock"}:
        whole = (work / name).read_bytes()
        for damaged in (whole[:-1], whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:]):
            (work / name).write_bytes(damaged)
            with pytest.raises(ValueError, match=rf"{name} is damaged, or of another version.*--overwrite"):
                open_plan(encoded)
        (work / name).write_bytes(whole)
    (work / "genome" / "packed.bin").unlink()
    with pytest.raises(ValueError, match=r"packed.bin is damaged"):
        shard([genome[0]], encoded, genome[1], resume=True)
    shard([genome[0]], encoded, genome[1], overwrite=True)


def test_a_damaged_journal_is_refused(encoded: Path) -> None:
    journal = encoded / "_work" / "publish.json"
    write_checked(journal, {"manifest": "{}", "parts_folder": "x", "remove": ["../../etc/passwd"]})
    assert main(["finalise", str(encoded)]) == 2
    journal.write_text("{}")
    assert main(["finalise", str(encoded)]) == 2


def test_rows_per_shard_of_a_complete_set_is_compared(tmp_path: Path, genome) -> None:
    fasta, options = genome
    shard([fasta], tmp_path / "set", options)
    default = dataclasses.replace(options, rows_per_shard=None, block_rows=8)
    with pytest.raises(ValueError, match="rows-per-shard = 8, not"):
        shard([fasta], tmp_path / "set", dataclasses.replace(options, rows_per_shard=16), resume=True)
    shard([fasta], tmp_path / "default", default)
    shard([fasta], tmp_path / "default", default, resume=True)
    larger = write_fasta(tmp_path / "larger.fa", {"one": random_dna(9000, 1)})
    shard([str(larger)], tmp_path / "larger", options)
    with pytest.raises(ValueError, match="rows-per-shard = 8, not 24"):
        shard([str(larger)], tmp_path / "larger", default, resume=True)


def test_two_writers_of_one_name_share_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two containers do, which count processes from 1 each and may have one host name."""
    monkeypatch.setattr(publishing.os, "getpid", lambda: 7)
    monkeypatch.setattr(publishing.socket, "gethostname", lambda: "node")
    path = tmp_path / "shard"
    with publishing.publish(path) as one, publishing.publish(path) as two:
        one.write(b"same")
        two.write(b"same")
    assert path.read_bytes() == b"same"
    assert [file.name for file in tmp_path.iterdir()] == ["shard"]


def test_a_new_file_never_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a kill leaves nothing, whenever it comes."""
    seen, link = [], os.link

    def watched(*arguments: Any, **options: Any) -> None:
        link(*arguments, **options)
        seen.append([path.name for path in tmp_path.iterdir()])

    monkeypatch.setattr(publishing.os, "link", watched)
    for content in (b"new", b"newer"):
        with publishing.publish(tmp_path / "table") as stream:
            stream.write(content)
        assert (tmp_path / "table").read_bytes() == content
        assert [path.name for path in tmp_path.iterdir()] == ["table"]
    assert seen[:1] in ([], [["table"]])  # there are file systems without unnamed files


def test_verify_tells_an_unfinished_set_from_foreign_files(encoded: Path, genome) -> None:
    finalise(open_plan(encoded))
    plan_only([genome[0]], encoded, dataclasses.replace(genome[1], seed=1), overwrite=True)
    assert verify(encoded).checks[0].endswith("no others except those of an unfinished set in _work")
    (encoded / "_work" / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"_work/thesis\.txt"):
        shard([genome[0]], encoded, genome[1], overwrite=True)
    with pytest.raises(VerificationError, match=r"1 files in .* are not in the manifest: _work/thesis\.txt"):
        verify(encoded)


def test_sets_are_copied_while_they_are_encoded(encoded: Path, tmp_path: Path) -> None:
    """A plan names no absolute path of its folder: it may be moved, or mounted elsewhere on another machine."""
    moved = tmp_path / "moved"
    shutil.copytree(encoded, moved)
    finalise(open_plan(moved))
    finalise(open_plan(encoded))
    assert hashes(moved) == hashes(encoded)
