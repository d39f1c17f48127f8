"""One door for every sequence file, and one clear line for what is none."""

from __future__ import annotations

import gzip
import io
import os
import sys
import threading
from pathlib import Path

import pysam
import pytest
import xopen

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
