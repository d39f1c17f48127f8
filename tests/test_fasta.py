"""One door for every sequence file, and one clear line for what is none."""

from __future__ import annotations

import gzip
import io
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pysam
import pytest
import xopen
from hypothesis import given
from hypothesis import strategies as st

from gemsdata.genome.packed import GenomeReport, fasta, read_contigs
from tests.genomes import awkward_genome, random_dna, write_fasta, write_twobit

CONTIGS = awkward_genome()


def read(path: Path | str) -> dict[str, str]:
    return {record.name: record.sequence for record in fasta.records(str(path))}


def packed_alike(paths: list[str]) -> list[tuple[str, int, bytes]]:
    return [(c.name, c.num_bases, c.packed.tobytes()) for c in read_contigs(paths, GenomeReport())]


@pytest.mark.parametrize("line_bases", [7, 60, 100_000])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_line_length_and_line_ends_do_not_matter(tmp_path: Path, line_bases: int, newline: str) -> None:
    path = write_fasta(tmp_path / "g.fa", CONTIGS, line_bases, newline)
    assert read(path) == CONTIGS
    report = fasta.FileReport(str(path))
    list(fasta.records(str(path), report))
    assert report.crlf == (newline == "\r\n")


@pytest.mark.parametrize("suffix", ["gz", "zst", "bgz"])
def test_compressed_files_hold_the_same_records(tmp_path: Path, suffix: str) -> None:
    plain = write_fasta(tmp_path / "g.fa", CONTIGS)
    packed = tmp_path / f"g.fa.{suffix}"
    if suffix == "bgz":
        pysam.tabix_compress(str(plain), str(packed))
    else:
        with xopen.xopen(packed, "wb", threads=0) as stream:
            stream.write(plain.read_bytes())
    assert read(packed) == CONTIGS


def test_two_gzip_members_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "g.fa.gz"
    path.write_bytes(gzip.compress(b">a\nACGT\n") + gzip.compress(b"ACG\n>b\nTT\n"))
    assert read(path) == {"a": "ACGTACG", "b": "TT"}


def test_twobit_holds_the_same_genome(tmp_path: Path) -> None:
    contigs = {name: sequence for name, sequence in CONTIGS.items() if name != "iupac"}  # .2bit knows no IUPAC
    plain = write_fasta(tmp_path / "g.fa", contigs)
    twobit = write_twobit(tmp_path / "g.2bit", contigs)
    assert read(twobit) == contigs
    assert packed_alike([str(twobit)]) == packed_alike([str(plain)])


@pytest.mark.parametrize("compress", [False, True])
def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: bool) -> None:
    content = write_fasta(tmp_path / "g.fa", CONTIGS).read_bytes()
    stream = io.BufferedReader(io.BytesIO(gzip.compress(content) if compress else content))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
    assert read("-") == CONTIGS


def test_a_named_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = write_fasta(tmp_path / "g.fa", CONTIGS).read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    assert read(pipe) == CONTIGS
    writer.join()


def test_a_reader_that_stops_early_leaves_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "g.fa.gz"
    path.write_bytes(gzip.compress(b">a\nACGT\n>b\n" + random_dna(3_000_000, 1).encode() + b"\n"))
    records = fasta.records(str(path))
    assert next(records).name == "a"
    records.close()


BAD = {
    "empty": (b"", "is empty"),
    "blank": (b"\n\n  \n", "is empty"),
    "no_header": (b"ACGTACGT\n", "does not begin with a FASTA header"),
    "fastq": (b"@r\nACGT\n+\nIIII\n", "looks like FASTQ"),
    "hidden_fastq": (b">a\nACGT\n@r\nACGT\n+\nIIII\n", "it is FASTQ, not FASTA"),
    "protein": (b">p\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n", "which is no IUPAC nucleotide"),
    "text": (b">t\nto be, or not to be\n", "which is no IUPAC nucleotide"),
    "binary": (b">b\n\xff\xfe\x00\x01\n", "DNA"),
    "only_n": (b">n\nNNNNNNNNNN\n", "no A, C, G or T"),
    "nameless": (b">\nACGT\n", "header line without a name"),
    "twice": (b">a\nACGT\n>a\nACGT\n", "'a' occurs twice"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("compress", [False, True])
def test_what_is_no_genome_is_refused(tmp_path: Path, name: str, compress: bool) -> None:
    content, message = BAD[name]
    path = tmp_path / "bad.fa"
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(ValueError, match=message):
        list(read_contigs([str(path)], GenomeReport()))


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.999])
def test_a_truncated_archive_is_an_error(tmp_path: Path, suffix: str, kept: float) -> None:
    whole = tmp_path / f"whole.fa.{suffix}"
    with xopen.xopen(whole, "wb", threads=0) as stream:
        stream.write(b">a\n" + random_dna(50_000, 3).encode() + b"\n")
    content = whole.read_bytes()
    path = tmp_path / f"cut.fa.{suffix}"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="is truncated or damaged"):
        list(fasta.records(str(path)))


@pytest.mark.parametrize("kept", [0.02, 0.03, 0.5, 1.0])
def test_a_truncated_twobit_is_an_error(tmp_path: Path, kept: float) -> None:
    path = write_twobit(tmp_path / "g.2bit", {"a": random_dna(5000, 1)})
    path.write_bytes(path.read_bytes()[: int(kept * 1000)])
    with pytest.raises(ValueError, match=r"damaged or truncated \.2bit"):
        list(fasta.records(str(path)))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        list(fasta.records(str(tmp_path / "absent.fa")))
    with pytest.raises(ValueError, match="is a directory"):
        list(fasta.records(str(tmp_path)))


def test_the_report_counts_what_is_not_acgt(tmp_path: Path) -> None:
    report = GenomeReport()
    list(read_contigs([str(write_fasta(tmp_path / "g.fa", CONTIGS))], report))
    everything = "".join(CONTIGS.values())
    assert report.num_bases == len(everything)
    assert report.num_empty == 1
    assert report.num_soft_masked == sum(letter.islower() for letter in everything)
    assert report.letters == {"N": 59, "R": 1, "Y": 1, "S": 1, "W": 1, "K": 1, "M": 1}


def test_rna_is_dna_with_t_and_the_report_counts_it(tmp_path: Path) -> None:
    dna = {"a": "ACGTTacgttNNTT" + random_dna(300, 1), "b": random_dna(200, 2, "ACGTacgt")}
    rna = {name: sequence.replace("T", "U").replace("t", "u") for name, sequence in dna.items()}
    report = GenomeReport()
    contigs = list(read_contigs([str(write_fasta(tmp_path / "r.fa", rna))], report))
    expected = list(read_contigs([str(write_fasta(tmp_path / "d.fa", dna))], GenomeReport()))
    for contig, wanted in zip(contigs, expected, strict=True):
        for name in ("packed", "gaps", "soft"):
            np.testing.assert_array_equal(getattr(contig, name), getattr(wanted, name))
        assert contig.letters == wanted.letters
    assert report.num_rna == sum(sequence.upper().count("U") for sequence in rna.values())
    assert report.letters == {"N": 2}


LOST_BEFORE = {
    "nul": (b">a\n" + b"ACGT" * 20 + b"\0" + b"ACGT" * 2000 + b"\n", r"1 x byte 0x00"),
    "at": (b">a\nACGT\n@ACGTACGT\nACGT\n>b\nTT\n", r"1 x @, .* it is FASTQ"),
    "plus": (b">a\nACGT\n+\nACGT\n", r"1 x \+, .* it is FASTQ"),
    "header inside a line": (b">a\nACGT>b\nACGT\n", "record a has a '>' inside a line"),
    "carriage return in a header": (b">a\rACGTACGT\n>b\nACGT\n", "carriage return inside a header line"),
    "nul in a name": (b">a\0b\nACGT\n", "not printable text"),
    "latin-1 name": (b">\xe4\nACGT\n", "not printable text"),
    "letter beyond ASCII": (b">a\nAC\xe4GT\n", "1 x byte 0xe4"),
    "an endless header": (b">a " + b"x" * (1 << 20) + b"\nACGT\n", "header line of more than 1,048,576 bytes"),
}


@pytest.mark.parametrize("name", LOST_BEFORE)
def test_no_base_is_lost_without_an_error(tmp_path: Path, name: str) -> None:
    content, message = LOST_BEFORE[name]
    path = tmp_path / "g.fa"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_contigs([str(path)], GenomeReport()))


@pytest.mark.parametrize("num_bases", [65_535, 65_536, 200_000, (1 << 20) - 4, 1 << 20, 2_500_000])
def test_long_lines_and_long_headers_are_whole(tmp_path: Path, num_bases: int) -> None:
    sequence = random_dna(num_bases, 5)
    path = tmp_path / "g.fa"
    path.write_bytes(f">a {'x' * min(num_bases, 200_000)}\n{sequence}\n>b\nACG".encode())
    assert read(path) == {"a": sequence, "b": "ACG"}


WHITE = st.sampled_from(["", " ", "\t", "\r", " \t"])
LINE = st.tuples(st.text("ACGTacgtNn", max_size=12), WHITE)


@given(
    st.lists(st.tuples(st.text("ab.é|1", min_size=1, max_size=4), st.lists(LINE, max_size=5)), min_size=1, max_size=5),
    st.sampled_from(["", "\n", " \n", "  "]),
    st.integers(1, 40),
    st.booleans(),
)
def test_records_are_those_of_a_naive_parser(records, before, block_bytes, ends_with_newline) -> None:
    """Whatever the blocks: the same records, in order, also with one name twice, empty lines and white space."""
    lines = []
    for name, content in records:
        lines.append(f">{name} text")
        lines += [letters + white for letters, white in content]
    text = (before + "\n".join(lines) + "\n" * ends_with_newline).encode()
    blocks = iter([text[i : i + block_bytes] for i in range(0, len(text), block_bytes)])
    found = [(record.name, record.sequence) for record in fasta._parse(blocks, "test")]
    assert found == [(name, "".join(letters for letters, _ in content)) for name, content in records]


@pytest.mark.parametrize("change", [b">one\nAC", b">one\nACGT\n>two\nAC\n>three\nGG\n", b">one\nTTTT\n>two\nAC\n"])
def test_a_file_that_is_changed_while_it_is_read_is_an_error(tmp_path, change):
    path = tmp_path / "genome.fa"
    path.write_bytes(b">one\nACGT\n>two\nAC\n")
    os.utime(path, ns=(0, 0))  # the time of change of the file system may be coarse
    found = fasta.records(str(path))
    next(found)
    path.write_bytes(change)
    with pytest.raises(ValueError, match=r"genome\.fa was changed while it was read: wait .*[^\n]$"):
        list(found)
