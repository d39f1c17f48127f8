"""The command line: what it prints, one line for a mistake, and exit codes."""

from __future__ import annotations

import gzip
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gemsdata.cli import COMMANDS, main
from gemsdata.shards.manifest import Manifest
from tests.genomes import awkward_genome, random_dna, write_fasta

GEMSDATA = [sys.executable, "-m", "gemsdata.cli"]
TINY = ["--row-tokens", "40", "--workers", "1", "--min-count", "2"]


@pytest.fixture
def fasta(tmp_path: Path) -> str:
    return str(write_fasta(tmp_path / "g.fa", awkward_genome()))


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail as a user's mistake; return its one line."""
    assert main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


def test_shard_sums_up_what_it_did(tmp_path: Path, fasta: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shard", fasta, "-o", str(tmp_path / "out"), "-k", "3", *TINY]) == 0
    said = capsys.readouterr()
    manifest = Manifest.load(tmp_path / "out")
    assert "9,589 bases in 6 contigs" in said.out
    assert "skipped 65 bases: not ACGT (N 59, K 1, M 1, R 1, S 1, W 1, Y 1)" in said.out
    assert f"train: {manifest.num_rows('train'):,} rows" in said.out
    assert "1 records without bases" in said.out
    assert "rows/s" in said.out
    assert manifest.fingerprint[:16] in said.out
    assert said.err == ""  # no progress bar where no one looks


def test_several_files_are_one_genome(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_fasta(tmp_path / "one.fa", {"a": random_dna(900, 1)})
    two = write_fasta(tmp_path / "two.fa", {"b": random_dna(800, 2)}, newline="\r\n")
    assert main(["shard", str(one), str(two), "-o", str(tmp_path / "out"), *TINY]) == 0
    assert f"Windows line ends in {two}" in capsys.readouterr().out
    assert [contig.name for contig in Manifest.load(tmp_path / "out").contigs] == ["a", "b"]
    assert main(["verify", str(tmp_path / "out"), "--fasta", str(one), "--fasta", str(two)]) == 0


def test_standard_input_in_a_real_process(tmp_path: Path, fasta: str) -> None:
    command = [*GEMSDATA, "shard", "-", "-o", str(tmp_path / "out"), *TINY]
    subprocess.run(command, input=gzip.compress(Path(fasta).read_bytes()), check=True, capture_output=True)
    assert main(["verify", str(tmp_path / "out"), "--fasta", fasta]) == 0


def test_parts_may_be_encoded_by_several_machines(
    tmp_path: Path, fasta: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--row-tokens", "10", "--min-count", "2", "--rows-per-shard", "1024", "-k", "3"]
    big = str(write_fasta(tmp_path / "big.fa", {"a": random_dna(50_000, 1)}))
    out = str(tmp_path / "out")
    assert main(["shard", big, "-o", out, "--plan-only", *options]) == 0
    assert main(["encode", out, "--slice", "1/2", "--workers", "1"]) == 0
    capsys.readouterr()
    assert "lacks 3 of 6 parts: train/000000, train/000002, train/000004" in error_of(capsys, "finalise", out)
    assert "give I/N with 0 <= I < N" in error_of(capsys, "encode", out, "--slice", "2/2")
    assert main(["encode", out, "--slice", "0/2", "--workers", "1"]) == 0
    assert main(["finalise", out]) == 0
    assert main(["verify", out, "--fasta", big]) == 0
    capsys.readouterr()
    assert main(["encode", out]) == 0
    assert "every part was encoded before" in capsys.readouterr().out
    assert "holds no plan" in error_of(capsys, "encode", str(tmp_path))


def test_rare_kmers_are_reported_with_the_ways_out(
    tmp_path: Path, fasta: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["shard", fasta, "-o", str(tmp_path / "out"), "--row-tokens", "40"])
    said = capsys.readouterr().out
    assert "of the 6-mers occur fewer than 101 times" in said
    assert "--min-count" in said
    assert "--npmi" in said


def test_npmi_and_info_say_what_is_there(tmp_path: Path, fasta: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = str(tmp_path / "t.parquet")
    assert main(["npmi", fasta, "-o", table, "--max-k", "3", "--min-count", "5", "--canonical"]) == 0
    assert "9,528 bases" not in capsys.readouterr().out  # both strands
    assert main(["shard", fasta, "-o", str(tmp_path / "out"), "-k", "3", "--npmi", table, *TINY[:4]]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "3-mers, 40 a row, uint16" in said
    assert "both strands, from another table" in said
    assert main(["info", str(tmp_path / "out"), "--json"]) == 0
    assert '"fingerprint"' in capsys.readouterr().out


def test_mistakes_get_one_line(tmp_path: Path, fasta: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    files = {
        "empty": b"",
        "headerless": b"ACGTACGTAGCTACGATC\n",
        "protein": b">p\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n",
        "only_n": b">n\nNNNNNNNNNN\n",
        "short": b">a\nACGT\n>b\nAC\n",
        "twice": b">a\nACGTACGT\n>a\nACGTACGT\n",
        "cut.gz": gzip.compress(b">a\n" + random_dna(9000, 1).encode())[:900],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name, message in (
        ("absent", "no such file"),
        ("empty", "is empty; a FASTA file with at least one sequence is needed"),
        ("headerless", "does not begin with a FASTA header line"),
        ("protein", "no IUPAC nucleotide; DNA is needed, not protein or text"),
        ("only_n", "no A, C, G or T in 1 records"),
        ("short", "no training row: the longest run of ACGT has 4 bases and a row needs 6 at least"),
        ("twice", "contig name 'a' occurs twice"),
        ("cut.gz", "is truncated or damaged"),
    ):
        assert message in error_of(capsys, "shard", str(tmp_path / name), "-o", out)
        assert not Path(out).exists()
    for arguments, message in (
        (["-k", "13"], "k = 13 is out of range: k-mers of 1 to 12 bases"),
        (["-k", "0"], "k = 0 is out of range"),
        (["--workers", "-1"], "workers = -1"),
        (["--valid-contigs", "chrZ"], "validation contig 'chrZ' is not in the genome"),
        (["--npmi", fasta], "is not an NPMI table"),
        (["--npmi", str(tmp_path / "absent")], "no such file"),
        (["--resume", "--overwrite"], "give one of the two"),
        (["--windows", "random"], "'random' is not one of 'fixed', 'dnabert'"),
    ):
        assert message in error_of(capsys, "shard", fasta, "-o", out, *arguments)
        assert not Path(out).exists()
    assert "no such folder" in error_of(capsys, "info", out)
    assert "is a folder" in error_of(capsys, "npmi", fasta, "-o", str(tmp_path))
    assert "No such command" in error_of(capsys, "shart")
    assert "Missing argument" in error_of(capsys, "shard", "-o", out)


def test_an_output_that_cannot_be_written(tmp_path: Path, fasta: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = error_of(capsys, "shard", fasta, "-o", "/proc/gemsdata")
    assert "cannot be written" in message


def limited(num_bytes: int) -> None:
    """Let no file of this process grow beyond ``num_bytes``, as a full disk would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


@pytest.mark.compiled
def test_a_full_disk_is_one_line_and_resume_goes_on(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "g.fa", {"a": random_dna(400_000, 1)})
    out = tmp_path / "out"
    command = [*GEMSDATA, "shard", str(fasta), "-o", str(out), "--workers", "2", "--row-tokens", "100"]
    failed = subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda: limited(150_000), check=False)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: the disk is full")
    assert failed.stderr.count("\n") == 1
    assert not (out / "_index.json").exists()
    assert [path for path in out.rglob("*.arrow") if path.name.startswith("_")] == []
    subprocess.run([*command, "--overwrite" if not out.exists() else "--resume"], check=True, capture_output=True)
    assert main(["verify", str(out), "--fasta", str(fasta)]) == 0


def test_every_command_has_help() -> None:
    for name in COMMANDS:
        assert main([name, "--help"]) == 0


def test_help_of_the_group_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS)
    assert os.linesep in said
