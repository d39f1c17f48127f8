"""Whatever is changed in a set is found, also by somebody who computes every hash again."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from gemsdata.cli import main
from gemsdata.files.hashing import sha256_of, xxh3_of
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.manifest import INTERVALS_FILE, NPMI_FILE, Manifest
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.shard_set import verify
from gemsdata.shards.write import shard
from tests.genomes import awkward_genome, write_fasta
from tests.test_decompress import zstd

OPTIONS = ShardOptions(
    k=3, row_tokens=40, block_rows=8, rows_per_shard=32, min_count=2, format="both", rank_column=True
)
COLUMNS = ("input_ids", "num_tokens", "contig", "start", "npmi_rank")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with g.fa, the set made from it, and a table of its n-grams of up to 4 bases."""
    folder = tmp_path_factory.mktemp("original")
    fasta = write_fasta(folder / "g.fa", awkward_genome())
    NpmiTable.from_fasta(fasta, max_k=4, min_count=2).to_parquet(folder / "table.parquet")
    shard([fasta], folder / "set", dataclasses.replace(OPTIONS, min_count=101, npmi=str(folder / "table.parquet")))
    manifest = Manifest.load(folder / "set")
    own = dataclasses.replace(
        manifest.npmi, from_this_genome=True
    )  # it is: only its n-grams are shorter, which is quick
    dataclasses.replace(manifest, npmi=own).with_hashes().save(folder / "set")
    verify(folder / "set", [str(fasta)])
    return folder


@pytest.fixture
def fasta(original: Path) -> str:
    return str(original / "g.fa")


@pytest.fixture
def shards(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original / "set", tmp_path / "set")


def rehash(shards: Path, **changes: Any) -> None:
    """Write the manifest again with ``changes`` and with the sizes and hashes of the files as they are."""
    manifest = dataclasses.replace(Manifest.load(shards), **changes)
    splits = {}
    for split, entries in manifest.splits.items():
        splits[split] = []
        for entry in entries:
            files = {
                name: dataclasses.replace(
                    file,
                    num_bytes=(shards / file.path).stat().st_size,
                    xxh3_64=xxh3_of(shards / file.path),
                    sha256=sha256_of(shards / file.path),
                )
                for name, file in entry.files.items()
            }
            content = xxhash.xxh3_64()
            for block in arrow_columns(shards / files["arrow"].path):
                for name in COLUMNS[:4]:
                    content.update(np.ascontiguousarray(block[name]))
            splits[split].append(dataclasses.replace(entry, files=files, content_xxh3_64=content.hexdigest()))
    npmi = dataclasses.replace(manifest.npmi, sha256=sha256_of(shards / NPMI_FILE))
    intervals = sha256_of(shards / INTERVALS_FILE)
    changed = dataclasses.replace(manifest, splits=splits, npmi=npmi, intervals_sha256=intervals)
    changed.with_hashes().save(shards)


def arrow_columns(path: Path) -> list[dict[str, np.ndarray]]:
    reader = pa.ipc.open_file(pa.py_buffer(path.read_bytes()))
    blocks = []
    for index in range(reader.num_record_batches):
        batch = reader.get_batch(index)
        blocks.append(
            {
                name: (column.flatten() if name in ("input_ids", "npmi_rank") else column)
                .to_numpy()
                .reshape(len(column), -1)
                .copy()
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
        )
    return blocks


def change_arrow(path: Path, name: str) -> None:
    """Change one value of a column of an Arrow shard."""
    content = path.read_bytes()
    reader = pa.ipc.open_file(pa.py_buffer(content))
    column = reader.get_batch(0).column(name)
    values = (column.flatten() if name in ("input_ids", "npmi_rank") else column).to_numpy()
    at = content.index(values.tobytes())
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def change_tar(path: Path, name: str) -> None:
    """Change one value of a column of a tar shard."""
    content = bytearray(path.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(bytes(content))) as tar:
        member = next(member for member in tar if member.name.split(".")[1] == name)
    content[member.offset_data + 128] ^= 1  # after the header of the array
    path.write_bytes(content)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("file_format", ["arrow", "webdataset"])
def test_one_value_of_every_column_of_a_shard(shards: Path, fasta: str, file_format: str, name: str) -> None:
    if file_format == "arrow":
        change_arrow(shards / "train/000001.arrow", name)
    else:
        change_tar(shards / "train/000001.tar", name)
    rehash(shards)
    with pytest.raises(VerificationError, match=r"train/000001\.|train: "):
        verify(shards, [fasta])
    if name == "npmi_rank":
        with pytest.raises(VerificationError, match="npmi_rank is not the rank of input_ids"):
            verify(shards)


def changed(column: pa.ChunkedArray, row: int) -> list[Any]:
    values = column.to_pylist()
    value = values[row]
    if isinstance(value, str):
        values[row] = {"gap": "soft", "soft": "gap"}.get(value, "A" * len(value))
    else:
        values[row] = 7 if value is None else value + 1
    return values


@pytest.mark.parametrize("index", range(13))
@pytest.mark.parametrize("null", [False, True])
def test_one_value_of_every_column_of_the_npmi_table(shards: Path, fasta: str, index: int, null: bool) -> None:
    table = pq.read_table(shards / NPMI_FILE)
    name = table.schema.names[index]
    values = changed(table[name], 40)
    if null:
        if index < 4:
            return  # these columns have no nulls by their type
        values[40] = None
    column = pa.array(values, table.schema.field(index).type)
    pq.write_table(table.set_column(index, table.schema.field(index), column), shards / NPMI_FILE)
    rehash(shards)
    with pytest.raises((VerificationError, ValueError), match=r"npmi\.parquet"):
        verify(shards, [fasta])


@pytest.mark.parametrize("name", ["contig", "start", "end", "kind", "all", "last", "twice", "renamed"])
def test_intervals(shards: Path, fasta: str, name: str) -> None:
    path = shards / INTERVALS_FILE
    table = pq.read_table(path)
    if name in table.schema.names:
        at = table.schema.get_field_index(name)
        table = table.set_column(
            at, table.schema.field(at), pa.array(changed(table[name], 1), table.schema.field(at).type)
        )
    elif name == "renamed":
        table = table.rename_columns(["contig", "end", "start", "kind"])
    else:
        table = {"all": table[:0], "last": table[:-1], "twice": pa.concat_tables([table, table[-1:]])}[name]
    pq.write_table(table, path)
    with pytest.raises(VerificationError, match=r"intervals\.parquet"):
        verify(shards)  # by its hash
    rehash(shards)
    with pytest.raises(VerificationError, match=r"intervals\.parquet"):
        verify(shards, [fasta])


def test_a_lost_file_and_every_file_too_many_are_named(shards: Path, fasta: str) -> None:
    for name in ("notes.txt", "train/000009.arrow", "_work/thesis.txt", "train/.hidden"):
        (shards / name).parent.mkdir(exist_ok=True)
        (shards / name).write_bytes(b"x")
        with pytest.raises(VerificationError, match=f"are not in the manifest: {name.replace('.', '[.]')}; remove"):
            verify(shards)
        (shards / name).unlink()
    (shards / INTERVALS_FILE).unlink()
    with pytest.raises(VerificationError, match=r"intervals\.parquet is missing"):
        verify(shards, [fasta])


def of(**genome: Any) -> Callable[[Manifest], dict[str, Any]]:
    return lambda manifest: {"genome": dataclasses.replace(manifest.genome, **genome)}


def npmi(**changes: Any) -> Callable[[Manifest], dict[str, Any]]:
    return lambda manifest: {"npmi": dataclasses.replace(manifest.npmi, **changes)}


def renamed_contig(manifest: Manifest) -> dict[str, Any]:
    first, *rest = manifest.contigs
    return {"contigs": [dataclasses.replace(first, name="other"), *rest]}


def moved_region(manifest: Manifest) -> dict[str, Any]:
    (contig, start, end), *rest = manifest.validation.regions
    regions = [(contig, start, end - 1), *rest]
    return {"validation": dataclasses.replace(manifest.validation, regions=regions)}


EDITS: dict[str, Callable[[Manifest], dict[str, Any]]] = {
    "genome.num_not_acgt": of(num_not_acgt=1),
    "genome.num_soft_masked": of(num_soft_masked=1),
    "genome.sha256": of(sha256=hashlib.sha256(b"").hexdigest()),
    "contig": renamed_contig,
    "regions": moved_region,
    "fraction": lambda m: {"validation": dataclasses.replace(m.validation, fraction=0.5)},
    "seed": lambda m: {"seed": 1},
    "k": lambda m: {"k": 4},
    "row_tokens": lambda m: {"row_tokens": 41},
    "token_dtype": lambda m: {"token_dtype": "uint32"},
    "scheme": lambda m: {
        "windows": dataclasses.replace(m.windows, scheme="dnabert", shortest_bases=5, longest_bases=42)
    },
    "full_bases": lambda m: {"windows": dataclasses.replace(m.windows, full_bases=43)},
    "block_rows": lambda m: {"block_rows": 16},
    "rank_column": lambda m: {"rank_column": False},
    "compression": lambda m: {"compression": "zstd"},
    "estimator": npmi(estimator="levine"),
    "min_count": npmi(min_count=3),
    "canonical": npmi(canonical=True),
    "exclude_soft_masked": npmi(exclude_soft_masked=True),
    "rank_sha256": npmi(rank_sha256="0" * 64),
    "formats": lambda m: {"formats": ["arrow"]},
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_manifest(shards: Path, fasta: str, edit: str) -> None:
    rehash(shards, **EDITS[edit](Manifest.load(shards)))
    with pytest.raises((VerificationError, ValueError)):
        verify(shards, [fasta])


@pytest.mark.parametrize("name", ["leading blanks", "plain text named .gz", "gzip named .fa", "blanks", "skippable"])
def test_what_shard_reads_verify_reads(tmp_path: Path, original: Path, name: str) -> None:
    text = (original / "g.fa").read_bytes()
    content, file = {
        "leading blanks": (b"\n  \r\n\t " + text, "g.fa"),
        "plain text named .gz": (text, "g.fa.gz"),
        "gzip named .fa": (gzip.compress(text), "g.fa"),
        "blanks": (text.replace(b"\n", b" \t\n").replace(b"ACG", b"AC G"), "g.fa"),
        "skippable": (b"\x50\x2a\x4d\x18\0\0\0\0" + zstd_of(text), "g.fa.zst"),
    }[name]
    path = tmp_path / file
    path.write_bytes(content)
    options = ["-k", "3", "--row-tokens", "40", "--npmi", str(original / "table.parquet")]
    assert main(["shard", str(path), "-o", str(tmp_path / "out"), *options]) == 0
    assert main(["verify", str(tmp_path / "out"), "--fasta", str(path)]) == 0


def zstd_of(text: bytes) -> bytes:
    return zstd.compress(text)
