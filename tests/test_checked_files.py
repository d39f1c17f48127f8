"""What a loader compares with the manifest by default, and the record that saves reading a file twice."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.files import checked_files
from gemsdata.files.checked_files import has_hash
from gemsdata.files.hashing import xxh3_of
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.write import shard
from tests.genomes import random_dna, write_fasta
from tests.stream_support import make_set

pytestmark = pytest.mark.once


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The files that are read through; those that were just written are recorded too."""
    names: list[str] = []
    real = checked_files.xxh3_of_stream
    monkeypatch.setattr(checked_files, "xxh3_of_stream", lambda stream: (names.append(stream.name), real(stream))[1])
    monkeypatch.setattr(checked_files, "_SETTLED_NS", 0)
    return names


def in_another_process() -> None:
    checked_files._record.cache_clear()


def test_a_file_is_read_once_until_it_changes(file, tmp_path, reads):
    record, wanted = tmp_path / "cache" / "record", xxh3_of(file)
    for _ in range(3):
        assert has_hash(file, wanted, record)
        in_another_process()
    assert len(reads) == 1
    assert record.stat().st_mode & 0o777 == 0o600
    times = file.stat()
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not has_hash(file, wanted, record)
    assert not has_hash(file, "0" * 16, record)
    file.write_bytes(b"content")
    assert has_hash(file, wanted, record)
    assert len(reads) == 4


def test_another_file_in_its_place_is_read(file, tmp_path, reads):
    wanted = xxh3_of(file)
    assert has_hash(file, wanted, tmp_path / "record")
    other = tmp_path / "other"
    other.write_bytes(b"CONTENT")
    shutil.copystat(file, other)
    other.rename(file)
    assert not has_hash(file, wanted, tmp_path / "record")


def test_a_file_that_was_just_written_is_not_recorded(file, tmp_path):
    """A second write within one tick of the clock would leave all times as they are."""
    assert has_hash(file, xxh3_of(file), tmp_path / "record")
    assert not (tmp_path / "record").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\n" * 50, b"0" * 32 + b"\n", bytes(range(256))])
def test_a_damaged_record_is_as_good_as_none(file, tmp_path, reads, content):
    (tmp_path / "record").write_bytes(content)
    assert not has_hash(file, "0" * 16, tmp_path / "record")
    assert has_hash(file, xxh3_of(file), tmp_path / "record")
    in_another_process()
    (tmp_path / "record").write_bytes(content)
    assert has_hash(file, xxh3_of(file), tmp_path / "record")
    assert len(reads) == 3


def test_a_record_that_cannot_be_written_is_done_without(file, reads):
    for record in (None, Path("/proc/nothing/record"), file / "record"):
        assert has_hash(file, xxh3_of(file), record)
        in_another_process()
    assert len(reads) == 3


def test_a_record_does_not_grow_without_end(file, tmp_path, reads, monkeypatch):
    monkeypatch.setattr(checked_files, "_MOST_RECORD_BYTES", 99)
    for n in range(20):
        file.write_bytes(b"%d" % n)
        assert has_hash(file, xxh3_of(file), tmp_path / "record")
    assert (tmp_path / "record").stat().st_size <= 99 + 33


def first_files(folder: Path, number: int) -> list[Path]:
    opened = ShardSet.open(folder)
    return [folder / shard.files[opened.file_format].path for shard in opened.manifest.shards("train")[:number]]


def batches(folder: Path, **options) -> list[np.ndarray]:
    return [batch["input_ids"].numpy() for batch in gd.build_loader(folder, batch_size=7, num_steps=20, **options)]


def test_all_readers_of_a_set_read_it_once(tmp_path, reads, monkeypatch):
    monkeypatch.setenv("GEMSDATA_CACHE", str(tmp_path / "cache"))
    folder = make_set(tmp_path / "set")
    for options in ({}, {"num_workers": 2, "threads": True}, {"seed": 4}):
        batches(folder, **options)
        in_another_process()
    assert len(reads) == len(ShardSet.open(folder).manifest.shards("train"))


@pytest.mark.parametrize("made_with", [{}, {"format": "webdataset"}], ids=["arrow", "webdataset"])
def test_exchanged_shards_of_one_size_are_an_error_at_first_touch(tmp_path, made_with):
    folder = make_set(tmp_path / "set", **made_with)
    one, two = first_files(folder, 2)
    assert one.stat().st_size == two.stat().st_size
    one.rename(tmp_path / "one")
    two.rename(one)
    (tmp_path / "one").rename(two)
    assert batches(folder, check="size"), "by size and structure nothing is found"
    with pytest.raises(ValueError, match=r"shard .*/train/00000[01]\.\w+ is damaged or replaced"):
        batches(folder)


def packed(folder: Path, seed: int) -> Path:
    fasta = write_fasta(folder.parent / f"{folder.name}.fa", {"one": random_dna(3000, seed)})
    shard([fasta], folder, ShardOptions(format="packed", k=3, min_count=1))
    return folder


@pytest.mark.parametrize("name", ["arrow", "webdataset", "packed", "written"])
def test_a_shard_of_another_set_is_an_error_at_first_touch(tmp_path, name):
    if name in ("packed", "written"):
        own, other = (packed(tmp_path / f"set{seed}", seed) for seed in (1, 2))
    else:
        own, other = (make_set(tmp_path / f"set{seed}", genome_seed=seed, format=name) for seed in (1, 2))
    source = own
    if name == "written":
        views = [gd.view(place, tokens="kmer:3:3", row_bases=60) for place in (own, other)]
        own, other = tmp_path / "own", tmp_path / "other"
        for view, place in zip(views, (own, other), strict=True):
            view.write(place)
    [right], [wrong] = first_files(own, 1), first_files(other, 1)
    assert right.stat().st_size == wrong.stat().st_size
    shutil.copyfile(wrong, right)
    source = gd.view(own, tokens="kmer:3:3", row_bases=60) if name == "packed" else own
    with pytest.raises(ValueError, match=rf"shard {right} is damaged or replaced"):
        batches(source)


def test_tables_of_another_set_are_refused(tmp_path):
    own, other = (packed(tmp_path / f"set{seed}", seed) for seed in (1, 2))
    shutil.copyfile(other / "npmi.parquet", own / "npmi.parquet")
    with pytest.raises(ValueError, match=rf"{own}/npmi.parquet is of another set"):
        gd.build_loader(gd.view(own, tokens="kmer:3:1", row_bases=60), batch_size=7)
    (own / "intervals.parquet").write_bytes((other / "npmi.parquet").read_bytes())
    with pytest.raises(ValueError, match=rf"{own}/intervals.parquet is damaged or of another set"):
        batches(gd.view(own, tokens="kmer:3:1", row_bases=60))
