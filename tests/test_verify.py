"""The verifier finds what is wrong, and says where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gemsdata.cli import main
from gemsdata.files import publish as atomic
from gemsdata.npmi.counts import NgramCounter
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards import arrow as arrow_shards
from gemsdata.shards import encode as sharding
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.schema import Rows
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.shard_set import verify
from gemsdata.shards.write import shard
from tests.genomes import awkward_genome, write_fasta

pytestmark = pytest.mark.once

OPTIONS = ShardOptions(k=3, row_tokens=40, block_rows=8, rows_per_shard=32, min_count=2)


@pytest.fixture
def fasta(tmp_path: Path) -> str:
    return str(write_fasta(tmp_path / "g.fa", awkward_genome()))


def test_a_sound_set_passes(tmp_path: Path, fasta: str, capsys: pytest.CaptureFixture[str]) -> None:
    shard([fasta], tmp_path / "out", OPTIONS)
    assert main(["verify", str(tmp_path / "out"), "--fasta", fasta]) == 0
    said = capsys.readouterr().out
    assert said.count("ok: ") == 10
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert "without --fasta" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["train/000000.arrow", "valid/000000.arrow", "npmi.parquet"])
def test_one_flipped_byte_is_found(tmp_path: Path, fasta: str, file: str) -> None:
    shard([fasta], tmp_path / "out", OPTIONS)
    path = tmp_path / "out" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises((VerificationError, ValueError), match=file.replace("/", ".")):
        verify(tmp_path / "out")


def test_a_missing_or_shortened_shard_is_named(tmp_path: Path, fasta: str) -> None:
    shard([fasta], tmp_path / "out", OPTIONS)
    path = tmp_path / "out" / "train" / "000001.arrow"
    content = path.read_bytes()
    path.write_bytes(content[:-512])
    with pytest.raises(VerificationError, match=r"train/000001\.arrow has \d+ bytes; the manifest says"):
        verify(tmp_path / "out")
    path.unlink()
    with pytest.raises(VerificationError, match=r"train/000001\.arrow is missing"):
        verify(tmp_path / "out")


def wrong_token(rows: Rows) -> None:
    rows.input_ids[2, 7] = 5 + (rows.input_ids[2, 7] - 4) % 64


def wrong_start(rows: Rows) -> None:
    rows.start[1] += 1


def lost_token(rows: Rows) -> None:
    rows.input_ids[0, rows.num_tokens[0] - 1] = 0
    rows.num_tokens[0] -= 1


def dirty_padding(rows: Rows) -> None:
    short = int(np.flatnonzero(rows.num_tokens < 40)[0])
    rows.input_ids[short, -1] = 9


BUGS: dict[str, tuple[Callable[[Rows], None], str]] = {
    "token": (wrong_token, r"row 2 token 7: .* in the FASTA reads"),
    "start": (wrong_start, r"row 1 token \d+: .* in the FASTA reads"),
    "lost": (lost_token, r"train: window .* was found, .* was expected"),
    "padding": (dirty_padding, r"token 39: id 9 is out of place"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_writer_with_a_bug_is_caught(tmp_path: Path, fasta: str, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """The manifest of such a set is right about its files; only the FASTA can tell."""
    encode_rows, pending = sharding.encode_rows, [True]

    def with_bug(*args: object) -> Rows:
        rows = encode_rows(*args)  # type: ignore[arg-type]
        if pending and len(rows) > 3 and (bug != "padding" or (rows.num_tokens < 40).any()):
            pending.clear()
            BUGS[bug][0](rows)
        return rows

    monkeypatch.setattr(sharding, "encode_rows", with_bug)
    shard([fasta], tmp_path / "out", OPTIONS)
    assert not pending
    with pytest.raises(VerificationError, match=BUGS[bug][1]):
        verify(tmp_path / "out", [fasta])


def test_wrong_counts_are_caught(tmp_path: Path, fasta: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_one(self: NgramCounter) -> dict[int, np.ndarray]:
        tables = counts(self)
        tables[4][17] += 1
        return tables

    counts = NgramCounter.counts
    monkeypatch.setattr(NgramCounter, "counts", off_by_one)
    shard([fasta], tmp_path / "out", OPTIONS)
    with pytest.raises(VerificationError, match=r"npmi\.parquet: ATAT has count \d+, but occurs \d+ times"):
        verify(tmp_path / "out", [fasta])


def test_wrong_scores_are_caught(tmp_path: Path, fasta: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = NpmiTable.scores

    def wrong(self: NpmiTable, k: int, estimator: str | None = None) -> object:
        found = scores(self, k, estimator)
        found.npmi[found.rank.argmin()] += 1e-3
        return found

    monkeypatch.setattr(NpmiTable, "scores", wrong)
    shard([fasta], tmp_path / "out", OPTIONS)
    monkeypatch.undo()
    with pytest.raises(VerificationError, match=r"npmi\.parquet: npmi_published of [ACGT]+ is"):
        verify(tmp_path / "out", [fasta])


def test_another_genome_is_told_apart(tmp_path: Path, fasta: str, capsys: pytest.CaptureFixture[str]) -> None:
    shard([fasta], tmp_path / "out", OPTIONS)
    contigs = awkward_genome()
    contigs["last"] = contigs["last"][:800] + "A" + contigs["last"][801:]
    other = write_fasta(tmp_path / "other.fa", contigs)
    status = main(["verify", str(tmp_path / "out"), "--fasta", str(other)])
    error = capsys.readouterr().err
    if awkward_genome()["last"][800] == "A":
        pytest.fail("the test changes nothing")
    assert status == 1
    assert error.startswith("difference: ")
    assert "last:" in error
    contigs["last"] += "A"
    write_fasta(tmp_path / "other.fa", contigs)
    with pytest.raises(VerificationError, match="contig 5 is last of 1700 bases in the set, last of 1701 in the FASTA"):
        verify(tmp_path / "out", [str(other)])


def test_published_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def fail() -> None:
        with atomic.publish(path) as stream:
            stream.write(b"half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert list(tmp_path.iterdir()) == []
    atomic.write_text(path, json.dumps(1))
    assert path.read_text() == "1"
    with pytest.raises(ValueError, match="is not a complete Arrow shard"):
        arrow_shards.ArrowShard(path)
