"""What others read of our files, unaided."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from gemsdata.shards.options import ShardOptions
from gemsdata.shards.schema import Rows
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.write import shard
from tests.genomes import awkward_genome, write_fasta


@pytest.fixture(scope="module", params=["none", "zstd"])
def out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers")
    fasta = write_fasta(folder / "g.fa", awkward_genome())
    options = ShardOptions(
        format="both", row_tokens=40, block_rows=8, rows_per_shard=32, rank_column=True, compression=request.param
    )
    shard([str(fasta)], folder / "out", options)
    return folder / "out"


@pytest.fixture(scope="module")
def rows(out: Path) -> Rows:
    shards = ShardSet.open(out)
    return shards.read("train", np.arange(shards.num_rows("train")))


def test_pyarrow_opens_a_shard(out: Path, rows: Rows) -> None:
    with pa.OSFile(str(out / "train" / "000001.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table.schema.field("input_ids").type == pa.list_(pa.field("item", pa.uint16(), nullable=False), 40)
    assert table["start"].to_pylist() == rows.start[32:64].tolist()
    assert table["input_ids"].to_pylist() == rows.input_ids[32:64].tolist()
    ranks = np.frombuffer(table.schema.metadata[b"gemsdata.npmi_rank"], "<u2")
    assert np.array_equal(ranks, ShardSet.open(out).ranks)
    assert table["npmi_rank"].to_pylist() == ranks[rows.input_ids[32:64]].tolist()


def test_pyarrow_dataset_takes_the_folder(out: Path, rows: Rows) -> None:
    dataset = pa.dataset.dataset(out / "train", format="ipc", exclude_invalid_files=True)
    assert dataset.count_rows() == len(rows)
    arrow_only = pa.dataset.dataset(sorted((out / "train").glob("*.arrow")), format="ipc")
    assert arrow_only.to_table()["start"].to_pylist() == rows.start.tolist()


def test_pyarrow_dataset_takes_the_folder_of_an_arrow_set(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "g.fa", awkward_genome())
    manifest, _ = shard([str(fasta)], tmp_path / "out", ShardOptions(row_tokens=40))
    assert pa.dataset.dataset(tmp_path / "out" / "train", format="ipc").count_rows() == manifest.num_rows("train")


def test_duckdb_queries_a_pyarrow_dataset(out: Path, rows: Rows) -> None:
    dataset = pa.dataset.dataset(sorted((out / "train").glob("*.arrow")), format="ipc")
    connection = duckdb.connect()
    connection.register("shards", dataset)
    columns = "contig, count(*), sum(num_tokens), min(input_ids[1])"
    query = f"SELECT {columns} FROM shards WHERE start > 100 GROUP BY 1 ORDER BY 1"
    answer = connection.execute(query).fetchall()
    expected = []
    for contig in np.unique(rows.contig).tolist():
        here = (rows.contig == contig) & (rows.start > 100)
        expected.append((contig, here.sum(), rows.num_tokens[here].sum(), rows.input_ids[here, 0].min()))
    assert answer == expected


def test_duckdb_reads_the_npmi_table(out: Path) -> None:
    query = f"SELECT kmer, count FROM '{out / 'npmi.parquet'}' WHERE k = 2 ORDER BY token_id"
    answer = duckdb.connect().execute(query).fetchall()
    counts = ShardSet.open(out).npmi.counts[2]
    assert [kmer for kmer, _ in answer][:5] == ["AA", "AT", "AC", "AG", "TA"]
    assert [count for _, count in answer] == counts.tolist()


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_datasets_loads_the_arrow_shards(out: Path, rows: Rows, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    files = [str(path) for path in sorted((out / "train").glob("*.arrow"))]
    for streaming in (False, True):
        loaded = datasets.load_dataset(
            "arrow", data_files=files, split="train", cache_dir=str(tmp_path), streaming=streaming
        )
        samples = list(loaded)
        assert [sample["start"] for sample in samples] == rows.start.tolist()
        assert np.array_equal([sample["input_ids"] for sample in samples], rows.input_ids)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it leaves closing its files to the collector
def test_webdataset_decodes_the_tars(out: Path, rows: Rows) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    shards = len(list((out / "train").glob("*.tar")))
    url = str(out / "train" / f"{{000000..{shards - 1:06d}}}.tar")
    samples = list(webdataset.WebDataset(url, shardshuffle=False).decode())
    assert len(samples) == -(-len(rows) // 8)
    assert len({sample["__key__"] for sample in samples}) == len(samples)
    for name in ("input_ids", "num_tokens", "contig", "start"):
        joined = np.concatenate([sample[f"{name}.npy"] for sample in samples])
        assert np.array_equal(joined, getattr(rows, name))
        assert joined.dtype == getattr(rows, name).dtype
