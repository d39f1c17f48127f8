"""Shards of packed bases: what goes in comes out, for our reader, for pyarrow and for DuckDB."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gemsdata as gd
from gemsdata.genome.packed import GenomeReport, GenomeWriter, read_contigs
from gemsdata.genome.vocab import base_codes
from gemsdata.kernels.bases import copy_packed, unpack_rows
from gemsdata.kernels.kmer import pack
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.packed import PackedShard, PackedWriter, choose_block_bases, cut_blocks, encode_blocks
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.shard_set import verify
from tests.genomes import awkward_genome, random_dna, write_fasta
from tests.view_support import packed_set


def unpacked(packed: np.ndarray) -> np.ndarray:
    return ((packed[..., None] >> np.array([6, 4, 2, 0], np.uint8)) & 3).reshape(*packed.shape[:-1], -1)


@given(st.integers(0, 90), st.data())
def test_copied_bases_are_the_same_bases(size, data):
    letters = np.frombuffer(random_dna(size, 3).encode(), np.uint8)
    packed = np.empty((size + 3) // 4, np.uint8)
    pack(letters, packed)
    start = data.draw(st.integers(0, size))
    count = data.draw(st.integers(0, size - start))
    out = np.full((1, 30), 255, np.uint8)
    copy_packed(packed, np.array([start]), np.array([count]), out)
    wanted = base_codes(letters[start : start + count].tobytes())
    assert unpacked(out)[0].tolist() == [*wanted, *[0] * (120 - count)]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 700)), max_size=5), st.sampled_from([256, 512]))
def test_blocks_cover_their_stretches(pieces, block_bases):
    starts = np.cumsum([gap + 1 + length for gap, length in pieces]) - [length for _, length in pieces]
    stretches = np.array([(0, s, s + n) for s, (_, n) in zip(starts, pieces, strict=True)], np.int64).reshape(-1, 3)
    blocks, first = cut_blocks(stretches, block_bases)
    for m, (_, start, end) in enumerate(stretches.tolist()):
        mine = blocks[first[m] : first[m + 1]]
        assert mine[:, 1].tolist() == list(range(start, end, block_bases))
        assert mine[:-1, 2].tolist() == [block_bases] * (len(mine) - 1)
        assert mine[:, 2].sum() == end - start
    assert first[-1] == len(blocks)


def test_the_size_of_blocks_wastes_little():
    assert choose_block_bases(np.array([3_000_000_000])) == 32768
    assert choose_block_bases(np.full(100_000, 250)) == 256
    lengths = np.random.default_rng(0).integers(200, 20_000, 5000)
    size = choose_block_bases(lengths)
    assert int((-(-lengths // size)).sum()) * (size // 4 + 16) < 0.33 * lengths.sum()


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """A packed shard of the awkward genome, and its contigs in upper case."""
    folder = tmp_path_factory.mktemp("packed")
    contigs = awkward_genome()
    fasta = write_fasta(folder / "g.fa", contigs)
    with GenomeWriter(folder / "genome") as writer:
        for contig in read_contigs([str(fasta)], GenomeReport()):
            writer.add(contig)
        genome = writer.finish()
    lengths = genome.num_bases
    stretches = np.array([(0, 0, 2501), (0, 2501, lengths[0]), (1, 0, 4), (3, 0, lengths[3]), (5, 0, lengths[5])])
    blocks, first = cut_blocks(stretches, 256)
    path = folder / "000000.arrow"
    with open(path, "wb") as stream:
        packed = PackedWriter(stream, 256, len(genome.names), {b"gemsdata.k": b"6"})
        for begin in range(0, len(blocks), 7):
            packed.write(encode_blocks(genome, blocks[begin : begin + 7], 256))
        packed.close()
    return path, [sequence.upper() for sequence in contigs.values()], stretches, first


def test_rows_are_read_from_any_place(shard):
    path, sequences, stretches, first = shard
    opened = PackedShard(path)
    addresses = opened.addresses(int(first[-1]))
    random = np.random.default_rng(0)
    stretch = random.integers(0, len(stretches), 200)
    length = stretches[stretch, 2] - stretches[stretch, 1]
    offset = (random.random(200) * length).astype(np.int64)
    num_bases = ((length - offset) * random.random(200)).astype(np.int64)
    out = np.full((200, 5000), 9, np.uint8)
    unpack_rows(addresses, first[stretch], offset, num_bases, opened.block_bases, out)
    for i in range(200):
        contig, start, _ = stretches[stretch[i]].tolist()
        text = sequences[contig][start + offset[i] : start + offset[i] + num_bases[i]]
        codes = base_codes(text)
        codes = np.where(codes > 3, 0, codes)
        assert out[i, : num_bases[i]].tolist() == codes.tolist()
        assert (out[i, num_bases[i] :] == 9).all()


def test_pyarrow_and_duckdb_read_a_packed_shard(shard):
    path, sequences, stretches, first = shard
    rows = pyarrow.dataset.dataset(str(path), format="ipc")
    table = rows.to_table().to_pylist()
    assert len(table) == first[-1]
    for row in table:
        bases = unpacked(np.frombuffer(row["packed"], np.uint8))[: row["num_bases"]]
        text = sequences[row["contig"]][row["start"] : row["start"] + row["num_bases"]]
        codes = base_codes(text)
        assert bases.tolist() == np.where(codes > 3, 0, codes).tolist()
    total = int((stretches[:, 2] - stretches[:, 1]).sum())
    assert duckdb.connect().execute("SELECT sum(num_bases) FROM rows").fetchall() == [(total,)]


def written_genome(folder: Path) -> dict[str, str]:
    """The genome in a packed set, letter for letter, by docs/format.md, pyarrow and the standard library alone."""
    manifest = json.loads((folder / "_index.json").read_text())
    sequences = [["?"] * contig["num_bases"] for contig in manifest["contigs"]]
    for split in ("train", "valid"):
        for block in pyarrow.dataset.dataset(str(folder / split), format="ipc").to_table().to_pylist():
            for i in range(block["num_bases"]):
                digit = block["packed"][i // 4] >> (6 - 2 * (i % 4)) & 3
                sequences[block["contig"]][block["start"] + i] = "ATCG"[digit]
    intervals = pyarrow.parquet.read_table(folder / "intervals.parquet").to_pylist()
    for interval in sorted(intervals, key=lambda interval: interval["kind"]):
        own, here = sequences[interval["contig"]], slice(interval["start"], interval["end"])
        if interval["kind"] == "gap":
            own[here] = interval["letter"] * (interval["end"] - interval["start"])
        else:
            own[here] = "".join(own[here]).lower()
    return {contig["name"]: "".join(own) for contig, own in zip(manifest["contigs"], sequences, strict=True)}


def test_a_set_is_decoded_by_the_description_of_its_format(tmp_path):
    folder = packed_set(tmp_path, valid_fraction=0.2)
    assert json.loads((folder / "_index.json").read_text())["splits"]["valid"], "blocks of both splits"
    assert written_genome(folder) == awkward_genome()


def test_duckdb_decodes_a_set_in_sql(tmp_path):
    folder = packed_set(tmp_path, valid_fraction=0)
    blocks = pyarrow.dataset.dataset(str(folder / "train"), format="ipc")
    con = duckdb.connect()
    con.register("blocks", blocks)
    decoded = con.execute(
        """SELECT contig, string_agg(bases, '' ORDER BY start) FROM (
               SELECT contig, start, array_to_string(list_transform(range(num_bases), lambda i: substr('ATCG', 1
                   + 2 * get_bit(packed::BIT, (2 * i)::INT) + get_bit(packed::BIT, (2 * i + 1)::INT), 1)), '') AS bases
               FROM blocks) GROUP BY contig"""
    ).fetchall()
    gaps = con.execute(
        f"SELECT contig, start, letter, \"end\" - start FROM '{folder}/intervals.parquet' WHERE kind = 'gap'"
    ).fetchall()
    sequences = list(awkward_genome().values())
    for contig, start, letter, count in gaps:
        assert sequences[contig][start : start + count].upper() == letter * count
    plain = {contig: "".join(x if x in "ACGT" else "A" for x in sequences[contig].upper()) for contig, _ in decoded}
    assert dict(decoded) == plain
    assert len(decoded) == 5


def test_files_that_are_no_packed_shard(shard, tmp_path):
    path = shard[0]
    cut = tmp_path / "cut.arrow"
    cut.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is not a complete Arrow shard"):
        PackedShard(cut)
    other = tmp_path / "other.arrow"
    table = pa.table({"a": [1]})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    other.write_bytes(sink.getvalue())
    with pytest.raises(ValueError, match="is not a shard of packed bases"):
        PackedShard(other)
    with pytest.raises(ValueError, match="its manifest says 3; it is damaged or of another set"):
        PackedShard(path).addresses(3)


def test_a_packed_set_is_verified_against_its_fasta(tmp_path):
    folder = packed_set(tmp_path, valid_fraction=0.2)
    fasta = str(tmp_path / "genome.fa")
    verdict = verify(folder, [fasta])
    assert verdict.num_tokens == sum(len(sequence) for sequence in awkward_genome().values())
    assert verdict.packed
    assert any("every base matches the FASTA" in check for check in verdict.checks)
    contigs = awkward_genome()
    contigs["last"] = "".join("G" if base == "A" else base for base in contigs["last"])
    other = write_fasta(tmp_path / "other.fa", contigs)
    con = gd.catalog(folder)
    total = sum(len(sequence) for sequence in contigs.values())
    assert con.execute("SELECT sum(num_bases) FROM rows").fetchall() == [(total,)]
    assert con.execute("SELECT sum(num_bases) FROM contigs").fetchall() == [(total,)]
    with pytest.raises(duckdb.Error, match="holds packed bases, which are tokens in a view only"):
        con.execute("SELECT count(*) FROM tokens").fetchall()
    with pytest.raises(VerificationError, match=r"row \d+: base \d+ of last is A, which the FASTA does not have"):
        verify(folder, [str(other)])
    path = folder / "train" / "000000.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(VerificationError, match="its content was changed"):
        verify(folder)
    index = folder / "_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "version": 2}))
    with pytest.raises(ValueError, match="version = 2 is not a valid value"):
        Manifest.load(folder)


@pytest.mark.once
def test_a_writer_that_cannot_open_a_file_closes_the_others(tmp_path):
    (tmp_path / "ambiguous.npy").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(IsADirectoryError):
        GenomeWriter(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
