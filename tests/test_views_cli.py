"""Views on the command line: the same rows as in Python, one line for every mistake, the example of docs/views.md."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.cli import main
from tests.genomes import random_dna, write_fasta
from tests.test_views_tokens import bpe_folder
from tests.view_support import packed_set

PAGE = (Path(__file__).parents[1] / "docs" / "views.md").read_text()


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "unknown.bed").write_text("chrZ\t0\t9\n")
    (folder / "inverted.bed").write_text("a\t0\t9\na\t9\t3\n")
    (folder / "all.bed").write_text("a\t0\t4000\n")
    (folder / "no.bw").write_text("no bigWig")
    (folder / "slow").mkdir()
    for name, text in {"words": "no BED file", "empty": "# nothing\n", "beyond": "a 0 4001", "short": "a 7 12"}.items():
        (folder / f"{name}.bed").write_text(text)
    bpe_folder(folder / "lacking", letters="ACG")
    bpe_folder(folder / "maskless", specials=("[UNK]", "[CLS]", "[SEP]", "[PAD]"))
    return packed_set(folder, {"a": random_dna(4000, 5)}, valid_fraction=0)


@pytest.mark.parametrize("tokens", ["kmer:6", "base", "kmer:3:3"])
def test_show_prints_the_row_of_the_view(packed, capsys, tokens):
    arguments = ["--tokens", tokens, "--row-bases", "90", "--view-seed", "4", "--masking", "genemask", "--row", "7"]
    assert main(["show", str(packed), *arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    rows = gd.view(packed, tokens=tokens, row_bases=90, seed=4).rows(np.array([7]))
    count = rows.tokens.num_tokens[0]
    assert [token["token_id"] for token in shown["tokens"]] == rows.tokens.input_ids[0, :count].tolist()
    assert shown["bases"] == "".join("ATCG"[base] for base in rows.tokens.bases[0, : rows.tokens.num_bases[0]])
    assert len(shown["hidden"]) == len(shown["bases"])
    assert main(["show", str(packed), *arguments, "--positions", "0:3"]) == 0
    assert f"{tokens.split(':')[1] if ':' in tokens else 1} base" in capsys.readouterr().out


def test_an_audit_of_single_bases_masks_what_it_hides(packed, capsys):
    arguments = ["--tokens", "base", "--row-bases", "100", "--masking", "genemask", "--rows", "30", "--json"]
    assert main(["audit", str(packed), *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["tokens"] == "base"
    assert result["masked_token_rate"] == result["hidden_nucleotide_rate"] > 0.05
    assert result["given_away_by_unmasked"] == 0
    assert {entry["kmer"] for entry in result["most_masked_kmers"]} <= set("ACGT")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--regions", "unknown.bed"], r"unknown\.bed:1: region chrZ:0-9 is on a contig that the genome does not have"),
        (["--regions", "inverted.bed"], r"inverted\.bed:2: region a:9-3 is empty or inverted"),
        (["--regions", "all.bed", "--exclude", "all.bed"], r"all\.bed leaves no training row"),
        (["--tokens", "slow", "--row-bases", "9"], r"slow holds no tokenizer\.json, so it is not a fast tokenizer"),
        (["--tokens", "words"], r"tokens 'words' are unknown: give \"kmer:K\""),
        (["--tokens", "base", "--row-bases", "5000"], r"row_bases = 5,000 is longer than any stretch"),
        (
            ["--tokens", "kmer:6:6", "--row-tokens", "3", "--row-bases", "90"],
            r"row_tokens = 3 and row_bases = 90 contra",
        ),
        (["--track", "no.bw", "--loss-weight-soft-masked", "0.1"], r"track and loss_weight_soft_masked both give"),
        (["--flank", "9"], r"flank = 9 without regions"),
        (["--regions", "all.bed", "--regions", "anywhere"], r"regions = all\.bed, anywhere: one view has one BED file"),
        (["--exclude", "all.bed", "--exclude", "no.bed"], r"--exclude is given 2 times: all\.bed, no\.bed; give one"),
        (["--exclude", "nothing.bed"], r"nothing\.bed: no such file; a BED file of regions is needed"),
        (
            ["--regions", "words.bed"],
            r"words\.bed:1: 'no BED file' is not a BED line; contig, start and end are needed",
        ),
        (["--regions", "empty.bed"], r"empty\.bed holds no interval; give a BED file with contig, start and end"),
        (["--regions", "beyond.bed"], r"beyond\.bed:1: region a:0-4001 ends beyond a, which has 4000 bases"),
        (["--regions", "short.bed"], r"short\.bed:1: region a:7-12 leaves no row: it holds no run of 6 bases"),
        (
            ["--tokens", "lacking", "--row-bases", "90"],
            r"tokens 'lacking': the vocabulary has no token for the letter T",
        ),
        (["--tokens", "maskless", "--row-bases", "90"], r"maskless has no mask_token; masked-language modelling needs"),
        (["--tokens", "kmer:6:7"], r"tokens 'kmer:6:7' would skip bases: give a stride from 1 to k = 6"),
        (["--tokens", "kmer:99"], r"k = 99 is out of range"),
        (["--track", "nothing.bw"], r"nothing\.bw: no such file; a bigWig file is needed"),
        (["--track", "no.bw"], r"no\.bw is not a bigWig file"),
        (["--row-bases", "3"], r"row_bases = 3 is shorter than one token of 'kmer:6'"),
        (["--unknown", "skip"], r"Invalid value for '--unknown'"),
    ],
)
def test_a_mistake_is_one_line(packed, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(packed.parent)
    assert main(["show", "set", "--masking", "genemask", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.match(f"error: {message}|error: .*{message}", error), error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("audit", ["--masking", "genemask", "--regions", "unknown.bed"], r"unknown\.bed:1: region chrZ:0-9"),
        ("shuffle", ["--tokens", "base", "--row-bases", "5000"], r"row_bases = 5,000 is longer than any stretch"),
        ("serve", ["--tokens", "base", "--row-bases", "5000"], r"row_bases = 5,000 is longer than any stretch"),
        ("serve", ["--regions", "all.bed", "--regions", "inverted.bed"], r"inverted\.bed:2: region a:9-3 is empty"),
        ("serve", ["set", "set", "--regions", "all.bed", "--regions", "all.bed"], r"2 BED files of regions for 3 sets"),
        ("serve", ["--tokens", "kmer:3", "--tokens", "base"], r"--tokens is given 2 times: kmer:3, base; give one"),
    ],
)
def test_a_mistake_is_one_line_in_every_command(packed, capsys, monkeypatch, command, arguments, message):
    monkeypatch.chdir(packed.parent)
    assert main([command, "set", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(("contig", "num_bases", "why"), [("a", 3999, "has with 3999 bases"), ("b", 9, "does not")])
def test_a_track_of_another_genome_is_one_line(packed, capsys, tmp_path, contig, num_bases, why):
    track = pytest.importorskip("pyBigWig").open(str(tmp_path / "other.bw"), "w")
    track.addHeader([(contig, num_bases)])
    track.addEntries([contig], [0], ends=[9], values=[1.0])
    track.close()
    assert main(["show", str(packed), "--masking", "genemask", "--track", str(tmp_path / "other.bw")]) == 2
    error = capsys.readouterr().err
    assert f"other.bw is of another genome: contig a of the set it {why}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "base", "-k", "5"], "-k does not apply to rows of a view"),
        (["--tokens", "base", "--plan-only"], "--plan-only does not apply to rows of a view"),
        (["--tokens", "base", "--format", "packed"], "--format packed stores bases: give --tokens"),
        (["--tokens", "base", "--loss-weight-soft-masked", "0.1"], "loss_weight_soft_masked is not stored in written"),
        (["--tokens", "base", "--row-bases", "9000"], "row_bases = 9,000 is longer than any stretch"),
        (["--tokens", "base", "--regions", "a.bed", "--regions", "b.bed"], "one view has one BED file"),
    ],
)
def test_what_shard_does_not_write_leaves_nothing(packed, capsys, tmp_path, arguments, message):
    fasta = str(packed.parent / "genome.fa")
    assert main(["shard", fasta, "-o", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_shard_writes_rows_of_tokens(packed, tmp_path):
    fasta = str(packed.parent / "genome.fa")
    options = ["--valid-fraction", "0", "--min-count", "1", "--tokens", "kmer:6:6", "--row-bases", "90"]
    assert main(["shard", fasta, "-o", str(tmp_path / "out"), "-q", *options]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    view = gd.view(tmp_path / "out")
    assert (view.tokens.spec, view.row_tokens, len(view)) == ("kmer:6:6", 15, 45)
    assert main(["verify", str(tmp_path / "out"), "--fasta", fasta, "-q"]) == 0


def test_the_codon_example_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example = PAGE.partition("<!-- codons -->")[2].partition("<!-- /codons -->")[0]
    commands, code = (re.search(rf"```{kind}\n(.*?)```", example, re.DOTALL)[1] for kind in ("bash", "python"))
    write_fasta(tmp_path / "transcripts.fa", {f"t{i}": "AUG" + random_dna(600, i).replace("T", "U") for i in range(20)})
    for line in commands.splitlines():
        assert main(shlex.split(line)[1:]) == 0
    shown = capsys.readouterr().out
    num_u = (tmp_path / "transcripts.fa").read_text().count("U")
    assert f"note: {num_u:,} U read as T" in shown
    names: dict = {}
    exec(code, names)
    batch = next(iter(names["loader"]))
    assert batch["input_ids"].shape == (8, 102)
    rows = names["view"].rows(np.arange(20))
    starts = set(rows.start.tolist())
    assert 0 in starts
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained("codon-tokenizer")("ATGACG")["input_ids"][1:-1] == [
        gd.view("CODONS", tokens="kmer:3:3").tokenizer().convert_tokens_to_ids(codon) for codon in ("ATG", "ACG")
    ]
