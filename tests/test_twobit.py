"""The .2bit reader against an independent writer, in both byte orders, and on damaged files."""

from __future__ import annotations

import gzip
import random
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemsdata.genome import fasta
from gemsdata.genome.packed import GenomeReport, GenomeWriter, read_contigs
from tests.genomes import random_dna, write_fasta, write_twobit

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
CONTIGS = {"a": random_dna(70, 1), "none": "", "b": "nnNNacgtNnACGTnn" + random_dna(19, 2, "ACGTacgtNn"), "n": "nN"}


def read(path: Path) -> dict[str, str]:
    return {record.name: record.sequence for record in fasta.records(str(path))}


def fingerprint(path: Path, folder: Path) -> str:
    with GenomeWriter(folder) as writer:
        for contig in read_contigs([str(path)], GenomeReport()):
            writer.add(contig)
        return writer.finish().sha256


@SAME_FOLDER
@given(
    st.dictionaries(st.text("abcXYZ.é_1", min_size=1, max_size=6), st.text("ACGTacgtNn", max_size=70), max_size=4),
    st.sampled_from("<>"),
    st.sampled_from([0, 1]),
)
def test_what_was_written_is_read(tmp_path: Path, contigs: dict[str, str], order: str, version: int) -> None:
    assert read(write_twobit(tmp_path / "g.2bit", contigs, order, version)) == contigs


def test_fasta_and_both_byte_orders_have_one_fingerprint(tmp_path: Path) -> None:
    digests = {fingerprint(write_fasta(tmp_path / "g.fa", CONTIGS), tmp_path / "fasta")}
    for order in "<>":
        path = write_twobit(tmp_path / f"{ord(order)}.2bit", CONTIGS, order)
        digests.add(fingerprint(path, tmp_path / f"genome{ord(order)}"))
    assert len(digests) == 1


def test_another_version_is_named(tmp_path: Path) -> None:
    path = write_twobit(tmp_path / "g.2bit", CONTIGS)
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", 2)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is \.2bit of version 2; versions 0 and 1 can be read"):
        read(path)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("version", [0, 1])
def test_a_file_that_was_cut_anywhere_is_refused(tmp_path: Path, order: str, version: int) -> None:
    path = write_twobit(tmp_path / "g.2bit", CONTIGS, order, version)
    content = path.read_bytes()
    for size in range(4, len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="damaged or truncated"):
            read(path)


def test_a_changed_byte_gives_letters_or_one_line(tmp_path: Path) -> None:
    """Whatever is refused is refused by a ValueError of one line; whatever is read has the size that the file says."""
    path = write_twobit(tmp_path / "g.2bit", CONTIGS)
    content = path.read_bytes()
    random.seed(0)
    num_refused = 0
    for position in range(len(content)):
        for value in {0, 255, content[position] ^ 1 << random.randrange(8)}:
            path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
            message = ""
            try:
                assert sum(map(len, read(path).values())) <= 4 * len(content)
            except ValueError as error:
                message = str(error)
                num_refused += 1
            assert "\n" not in message
    assert num_refused > 100


def test_overlapping_blocks_are_refused(tmp_path: Path) -> None:
    path = write_twobit(tmp_path / "g.2bit", {"x": "NN" + random_dna(60, 3) + "NN"})
    content = bytearray(path.read_bytes())
    first_block = 16 + 6 + 8  # header, index of one name, number of bases and of blocks
    content[first_block : first_block + 16] = struct.pack("<4I", 0, 1, 2, 5)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="overlap or reach beyond"):
        read(path)


def test_two_names_of_one_record_are_refused(tmp_path: Path) -> None:
    """Thousands of names of one long sequence would take hours to read, from a small file."""
    path = write_twobit(tmp_path / "g.2bit", {"x": random_dna(60, 3), "y": random_dna(60, 3)})
    content = bytearray(path.read_bytes())
    content[24:28] = content[18:22]
    path.write_bytes(content)
    with pytest.raises(ValueError, match="two sequences begin"):
        read(path)


def test_a_compressed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g.2bit.gz"
    path.write_bytes(gzip.compress(write_twobit(tmp_path / "g.2bit", CONTIGS).read_bytes()))
    with pytest.raises(ValueError, match=r"is \.2bit, which needs random access"):
        read(path)
