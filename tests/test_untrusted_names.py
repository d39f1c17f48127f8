"""Names in files may be anything: no command lets them control the terminal, SQL, or a path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import gemsdata as gd
from gemsdata.cli import main
from gemsdata.inspect.sql import schema_name
from gemsdata.lint import lint
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import shard
from tests.genomes import random_dna

pytestmark = pytest.mark.once

CONTIG = "';DROP--\"<b>{{7*7}}$(id)`id`"
ESCAPES = "\x1b]0;owned\x07"
FOLDER = "a'b\"; DROP SCHEMA x; --\x1b[2J"
OPTIONS = ShardOptions(k=3, row_tokens=40, min_count=1, valid_fraction=0.1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    (folder / "g.fa").write_text(f">{CONTIG} description\n{random_dna(4000, 1)}\n>plain\n{random_dna(900, 2)}\n")
    shard([folder / "g.fa"], folder / FOLDER, OPTIONS)
    return folder / FOLDER


def shown(capfd) -> str:
    """What a command has written; none of it controls a terminal."""
    said = capfd.readouterr()
    text = said.out + said.err
    assert not [letter for letter in text if not letter.isprintable() and letter not in "\n\t"], repr(text)
    return text


def commands(shards: Path, folder: Path) -> list[tuple[int, list[str]]]:
    place, genome = str(shards), str(shards.parent / "g.fa")
    return [
        (0, ["info", place]),
        (0, ["verify", place, "--fasta", genome]),
        (0, ["audit", place, "--masking", "random-token", "--rows", "10"]),
        (0, ["show", place, "--masking", "random-token", "--row", "0"]),
        (0, ["shuffle", place]),
        (0, ["query", place, "FROM contigs"]),
        (0, ["query", place, 'SELECT contig AS "\x1b[31m" FROM contigs']),
        (0, ["query", place, "SELECT [contig], {'a': contig} FROM contigs"]),
        (2, ["query", place, 'SELECT "\x1b[31m" FROM contigs']),
        (2, ["query", f"\x1b[31m={place}", "SELECT 1 AS one"]),
        (0, ["shard", genome, "-o", str(folder / "\x1b[31mset"), "-k", "3", "--row-tokens", "40", "--min-count", "1"]),
        (2, ["shard", genome, "-o", str(folder / "x"), "--valid-contigs", "\x1b[31m"]),
        (2, ["shard", "\x1b[31m.fa", "-o", str(folder / "x")]),
        (0, ["npmi", genome, "-o", str(folder / "\x1b[31m.parquet"), "-k", "2"]),
        (2, ["shard", str(folder / "escapes.fa"), "-o", str(folder / "x")]),
        (2, ["info", "\x1b[31m"]),
        (2, ["\x1b[31m"]),
        (2, ["info", place, "--\x1b[31m"]),
        (2, ["audit", place, "--masking", "\x1b[31m"]),
        (2, ["audit", place, "--masking", "random-token", "--split", "\x1b[31m"]),
        (2, ["plot", place, "-o", str(folder / "figures"), "--region", f"{CONTIG}:5"]),
        (2, ["plot", place, "-o", str(folder / "figures"), "--region", "none:5-9"]),
    ]


def test_no_command_sends_control_characters_to_the_terminal(shards: Path, tmp_path: Path, capfd) -> None:
    (tmp_path / "escapes.fa").write_text(f">{ESCAPES}\nACGT\n")
    for status, arguments in commands(shards, tmp_path):
        assert main(arguments) == status, arguments
        shown(capfd)


def test_names_are_kept_as_they_are_in_machine_readable_output(shards: Path, capfd) -> None:
    assert main(["query", str(shards), "SELECT contig FROM contigs ORDER BY contig_index", "--json"]) == 0
    first = json.loads(capfd.readouterr().out.splitlines()[0])
    assert first == {"contig": CONTIG}


def test_lint_shows_labels_and_paths_as_text(tmp_path: Path, capfd) -> None:
    rows = "".join(f"{random_dna(30, i)},\x1b[31m{i % 2}\n" for i in range(8)) + "ACGT\x1b[5mACGT,0\n"
    (tmp_path / "\x1b[7mtrain.csv").write_text("sequence,label\n" + rows)
    assert main(["lint", str(tmp_path / "\x1b[7mtrain.csv")]) == 0
    assert "\\x1b[7mtrain.csv" in shown(capfd)


@given(name=st.text(min_size=1).filter(lambda text: "\0" not in text and "/" not in text))
@example(name='x"; DROP SCHEMA main; --')
@example(name="'; SELECT 1; --")
@example(name="\u0661\u0662")
def test_a_schema_name_is_an_identifier(name: str) -> None:
    assert schema_name(f"/data/{name}").replace("_", "a").isidentifier()
    assert schema_name(f"/data/{name}").isascii()


@pytest.mark.parametrize("name", ["", 'a"b', "a b", "1a", "a;b", "ä"])
def test_a_name_that_is_no_identifier_is_refused(shards: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not a valid schema name"):
        gd.catalog(**{name: shards})


def test_paths_and_contigs_with_quotes_are_data_in_sql(shards: Path) -> None:
    with gd.catalog(shards, other=shards) as connection:
        found = connection.execute("SELECT contig, num_bases FROM contigs WHERE contig = ?", [CONTIG]).fetchall()
        assert found == [(CONTIG, 4000)]
        assert connection.execute("SELECT count(*) FROM other.npmi WHERE k = 3").fetchone() == (64,)
        schemas = {name for (name,) in connection.execute("SELECT schema_name FROM duckdb_schemas()").fetchall()}
        assert {"other", schema_name(shards)} <= schemas
    table = shards.parent / "it's a % table*.parquet"
    os.link(shards / "npmi.parquet", table)
    with gd.catalog(table) as connection:
        assert connection.execute("SELECT count(*) FROM npmi WHERE k = 1").fetchone() == (4,)
        with pytest.raises(Exception, match="it's a % table"):
            connection.execute("FROM rows").fetchall()


def mutated(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """The bytes with some stretches replaced."""
    for at, length, new in edits:
        place = at % (len(data) + 1)
        data = data[:place] + new + data[place + length :]
    return data


EDITS = st.lists(
    st.tuples(
        st.integers(0, 5000),
        st.integers(0, 40),
        st.binary(max_size=4)
        | st.sampled_from([b'"', b"\t", b",", b"\n", b"\r\n", b"\0", b"\xef\xbb\xbf", b"\xff", b'""']),
    ),
    max_size=6,
)
FILES = {
    "train.csv": "sequence,label\n" + "".join(f'"{random_dna(30, i)}",{i % 2}\n' for i in range(12)),
    "dev.tsv": "label\tsequence\n" + "".join(f"{i % 3}\t{random_dna(30, i)}\n" for i in range(12)),
}


@given(name=st.sampled_from(sorted(FILES)), edits=EDITS)
def test_any_labelled_file_is_checked_or_refused_in_one_line(tmp_path_factory, name: str, edits) -> None:
    folder = tmp_path_factory.mktemp("mutated")
    (folder / name).write_bytes(mutated(FILES[name].encode(), edits))
    failure = ""
    try:
        assert set(lint([folder / name]).sets[0].num_rows) == {str(folder / name)}
    except ValueError as error:
        failure = str(error)
    assert not failure or name in failure
    assert "\n" not in failure


def test_a_mutated_file_on_the_command_line_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"sequence,label\nACGT\xff\x1b[31m,1\n")
    command = [sys.executable, "-m", "gemsdata", "lint", str(tmp_path / "x.csv")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
