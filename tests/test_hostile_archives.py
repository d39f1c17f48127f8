"""Small files that expand to huge ones, and tar archives with names and members that are no data."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gemsdata as gd
from gemsdata.genome import decompress, fasta
from gemsdata.lint import lint
from gemsdata.npmi.parquet import table_schema
from gemsdata.shards.arrow import ArrowShard, ArrowWriter
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.packed import PackedShard
from gemsdata.shards.schema import Rows, row_schema
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.reference import _sequence_pieces
from gemsdata.shards.verify.rows import read_blocks
from gemsdata.shards.webdataset import TarShard
from gemsdata.views.regions import Contigs, read_bed
from tests.stream_support import make_set

pytestmark = pytest.mark.once
MIB = 1 << 20
BLOCK_BYTES = 128 << 10


def zstd_of_one_byte(byte: bytes, num_blocks: int, before: bytes = b"") -> bytes:
    """A zstd frame (RFC 8878) of ``before``, then ``num_blocks`` blocks of 128 KiB of one byte, four bytes each."""
    raw = (len(before) << 3).to_bytes(3, "little") + before
    run = (BLOCK_BYTES << 3 | 1 << 1).to_bytes(3, "little") + byte
    last = (1 << 3 | 1 << 1 | 1).to_bytes(3, "little") + byte
    return b"\x28\xb5\x2f\xfd" + b"\x00\x58" + raw + run * num_blocks + last


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
    return content.getvalue()


BOMB = zstd_of_one_byte(b"\0", 1 << 20, npy(np.zeros(1, np.uint8))[:-1])  # 4 MB of file, 128 GiB of content


def plain(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return path


def peak_bytes(call: Callable[[], None]) -> int:
    """The most memory that Python objects and arrays had while ``call`` ran."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


REFUSED = (ValueError, VerificationError)
READERS: dict[str, Callable[[Path], object]] = {
    "TarShard": lambda path: TarShard(path, most_bytes=MIB).block(0),
    "verify": lambda path: list(read_blocks(path, "shard", "webdataset", MIB)),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_bomb_in_a_tar_is_one_error_and_little_memory(tmp_path, reader):
    path = tar(tmp_path / "000000.tar", plain("00000000.input_ids.npy.zst", BOMB))

    def read() -> None:
        with pytest.raises(REFUSED, match=r"^[^\n]* expands to more than the [\d,]+ bytes that a column may have$"):
            READERS[reader](path)

    assert peak_bytes(read) < 24 * MIB


def test_a_bomb_in_a_webdataset_pipeline_is_one_error(monkeypatch):
    monkeypatch.setattr("gemsdata.views.webdataset.MOST_COLUMN_BYTES", MIB)
    with pytest.raises(ValueError, match=r"member \.input_ids\.npy\.zst is damaged: its zstd data expands to more"):
        gd.wds_decoder(".input_ids.npy.zst", BOMB)


@pytest.mark.parametrize("shape", ["(99999999999999,)", "(-1,)", "(2, 4294967296, 4294967296)"])
@pytest.mark.parametrize("reader", READERS)
def test_a_header_that_announces_more_than_there_is_is_an_error(tmp_path, reader, shape):
    header = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(64)
    path = tar(tmp_path / "000000.tar", plain("00000000.input_ids.npy", content))
    with pytest.raises(REFUSED, match=r"(block 0 is damaged|is not a complete webdataset shard): [^\n]+$"):
        READERS[reader](path)


@pytest.fixture(scope="module")
def compressed_arrow(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("arrow") / "000000.arrow"
    rows = Rows(
        input_ids=np.full((1000, 512), 7, np.uint16),
        num_tokens=np.full(1000, 512, np.uint16),
        contig=np.zeros(1000, np.uint16),
        start=np.arange(1000),
    )
    with open(path, "wb") as stream:
        writer = ArrowWriter(stream, row_schema(6, 512, 1, False), "zstd")
        writer.write(0, rows, None)
        writer.close()
    return path


def test_what_the_buffers_of_an_arrow_shard_say_is_bounded(tmp_path, compressed_arrow):
    assert len(ArrowShard(compressed_arrow, most_bytes=1000 * 512 * 2).block(0)) == 1000
    with pytest.raises(ValueError, match=r"expands to 1,024,000 bytes; a column has at most 999,000$"):
        ArrowShard(compressed_arrow, most_bytes=999_000)
    content = compressed_arrow.read_bytes()
    lie = content.replace(struct.pack("<q", 1_024_000), struct.pack("<q", 1 << 50))
    assert lie != content
    (tmp_path / "lie.arrow").write_bytes(lie)
    for read in (ArrowShard, PackedShard, lambda path: list(read_blocks(path, "shard", "arrow"))):
        with pytest.raises(REFUSED, match=r"expands to 1,125,899,906,842,624 bytes; a column has at most"):
            read(tmp_path / "lie.arrow")


def test_a_damaged_footer_is_an_error(tmp_path, compressed_arrow):
    content = compressed_arrow.read_bytes()
    for at in range(len(content) - 300, len(content), 3):
        damaged = bytearray(content)
        damaged[at] ^= 0x40
        (tmp_path / "x.arrow").write_bytes(damaged)
        said = ""
        try:
            ArrowShard(tmp_path / "x.arrow").block(0)
        except ValueError as error:
            said = str(error)
        assert "\n" not in said


def test_dictionaries_are_refused(tmp_path):
    table = pa.table({"input_ids": pa.array(["a"] * 9).dictionary_encode()})
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match="it has dictionaries, which no shard has"):
        ArrowShard(tmp_path / "x.arrow")


def test_a_manifest_says_how_large_a_block_is(tmp_path, monkeypatch):
    folder = make_set(tmp_path / "set", compression="zstd")
    asked = []
    monkeypatch.setattr("gemsdata.shards.arrow.check_sizes", lambda file, most_bytes: asked.append(most_bytes))
    ShardSet.open(folder).open_shard("train", 0)
    manifest = Manifest.load(folder)
    assert asked == [manifest.block_rows * manifest.row_tokens * 2]


COMPRESS = {"gz": gzip.compress, "xz": lzma.compress}


FASTA_READERS: dict[str, Callable[[Path], list[str]]] = {
    "records": lambda path: [record.sequence for record in fasta.records(str(path))],
    "verify": lambda path: [piece.decode() for name, piece in _sequence_pieces(str(path)) if name is None and piece],
}


@pytest.mark.parametrize("reader", FASTA_READERS)
@pytest.mark.parametrize("codec", ["gz", "xz", "zst"])
def test_a_fasta_that_expands_a_thousandfold_is_streamed(tmp_path, codec, reader):
    path = tmp_path / f"g.fa.{codec}"
    text = b">a\nACGT"
    blank = zstd_of_one_byte(b" ", 128, text) if codec == "zst" else COMPRESS[codec](text + b" " * (16 * MIB))
    path.write_bytes(blank)
    assert path.stat().st_size < MIB // 8

    def read() -> None:
        assert FASTA_READERS[reader](path) == ["ACGT"]

    assert peak_bytes(read) < 24 * MIB


@pytest.mark.parametrize("reader", FASTA_READERS)
def test_a_header_without_end_is_refused_early(tmp_path, reader):
    (tmp_path / "g.fa.zst").write_bytes(zstd_of_one_byte(b"A", 1 << 18, b">"))  # 32 GiB

    def read() -> None:
        with pytest.raises(ValueError, match=r"has a header line of (more than 1,048,576|4,194,304) bytes"):
            FASTA_READERS[reader](tmp_path / "g.fa.zst")

    assert peak_bytes(read) < 24 * MIB


def test_verify_reads_lines_that_are_longer_than_its_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("gemsdata.shards.verify.reference._PIECE_BYTES", 16)
    (tmp_path / "g.fa").write_bytes(
        b"  \n" + b" " * 40 + b">a bc\n" + b"ACGTACGTACGTACGT>CGT\nA CG\n" * 3 + b">b\nACGT"
    )
    last = ""
    letters: dict[str, bytes] = {}
    for name, piece in _sequence_pieces(str(tmp_path / "g.fa")):
        last = name or last
        letters[last] = letters.get(last, b"") + piece
    assert letters == {"": b"", "a": b"ACGTACGTACGTACGT>CGTACG" * 3, "b": b"ACGT"}


def test_a_record_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fasta, "MOST_BASES", MIB)
    (tmp_path / "g.fa.zst").write_bytes(zstd_of_one_byte(b"A", 1 << 18, b">a\n"))
    with pytest.raises(ValueError, match="contig a has more than the 1,048,576 bases that are supported"):
        list(fasta.records(str(tmp_path / "g.fa.zst")))


def test_files_that_are_read_at_once_expand_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(decompress, "MOST_WHOLE_BYTES", MIB)
    bomb = zstd_of_one_byte(b"A", 1 << 18, b"sequence,label\n")
    for name in ("train.csv.gz", "regions.bed"):
        (tmp_path / name).write_bytes(bomb)
    with pytest.raises(ValueError, match=r"train.csv.gz expands to more than 1,048,576 bytes.*decompress it first"):
        lint([tmp_path / "train.csv.gz"])
    with pytest.raises(ValueError, match=r"regions.bed expands to more than 1,048,576 bytes"):
        read_bed(tmp_path / "regions.bed", Contigs(names=["a"], num_bases=np.array([9])))
    plain_text = b"sequence,label\n" + b"ACGTACGTACGTACGT,1\n" * (MIB // 16)
    (tmp_path / "plain.csv").write_bytes(plain_text)
    with open(tmp_path / "plain.csv", "rb") as stream:
        assert decompress.whole(stream, "plain.csv") == plain_text


def test_a_table_of_too_many_rows_is_refused_before_it_is_read(tmp_path, monkeypatch):
    schema = table_schema().with_metadata({b"gemsdata.npmi": (
        b'{"version": 1, "estimator": "published", "min_count": 1, "canonical": false, "exclude_soft_masked": false}'
    )})  # fmt: skip
    one = pa.table({field.name: pa.array([1 if field.name != "kmer" else "A"], field.type) for field in schema}, schema)
    with pq.ParquetWriter(tmp_path / "t.parquet", schema, compression="zstd") as writer:
        writer.write_table(pa.concat_tables([one] * 5000).combine_chunks())
    monkeypatch.setattr("gemsdata.npmi.parquet._MOST_ROWS", 4999)
    monkeypatch.setattr(pq.ParquetFile, "read", None)
    with pytest.raises(ValueError, match=r"has a header for 5,000 rows; a table has at most 4,999"):
        gd.NpmiTable.from_parquet(tmp_path / "t.parquet")


def of_type(kind: bytes, name: str = "00000000.input_ids.npy") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "00000000.input_ids.npy"
    return member, b""


ARRAY = npy(np.zeros((2, 3), np.uint16))
NAMES = [
    "../../etc/00000000.input_ids.npy",
    "/etc/00000000.input_ids.npy",
    "a/00000000.input_ids.npy",
    "./00000000.input_ids.npy",
    "..\\00000000.input_ids.npy",
    "00000000.input_ids.npy/",
    "00000000.input_ids.npy.exe",
    "00000000.../input_ids.npy",
    "\x1b[2J.input_ids.npy",
    "٠.input_ids.npy",
    ".input_ids.npy",
    "00000000.INPUT_IDS.npy",
]
KINDS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_paths_are_refused(tmp_path, reader, name):
    path = tar(
        tmp_path / "000000.tar", plain("00000000.input_ids.npy", ARRAY), plain(name, ARRAY), form=tarfile.PAX_FORMAT
    )
    with pytest.raises(REFUSED, match=r"member .* is not BLOCK\.COLUMN\.npy or BLOCK\.COLUMN\.npy\.zst") as caught:
        READERS[reader](path)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_links_and_devices_are_refused(tmp_path, reader, kind):
    first = plain("00000000.input_ids.npy", ARRAY)
    path = tar(tmp_path / "000000.tar", first, of_type(kind, "00000000.num_tokens.npy"))
    with pytest.raises(REFUSED, match=r"is a link, a device or a sparse file; plain files are expected|is not BLOCK"):
        READERS[reader](path)


def test_a_tar_that_begins_with_another_column_is_damage_and_no_crash(tmp_path):
    path = tar(tmp_path / "000000.tar", plain("00000000.num_tokens.npy", ARRAY))
    with pytest.raises(ValueError, match="block 0 is damaged"):
        TarShard(path).block(0)


LIMITED = """
import resource, sys
from gemsdata.cli import main
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_a_bomb_on_the_command_line_is_one_line_within_a_limit_of_memory(tmp_path):
    (tmp_path / "g.fa.zst").write_bytes(zstd_of_one_byte(b"A", 1 << 18, b">"))
    command = [
        sys.executable,
        "-c",
        LIMITED,
        str(6 << 30),
        "npmi",
        "g.fa.zst",
        "-o",
        "t.parquet",
        "-k",
        "2",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: g.fa.zst has a header line of more than")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.fa.zst"]
