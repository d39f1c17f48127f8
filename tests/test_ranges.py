"""Rows of packed sets at URLs fetch only the ranges of shards that they need."""

from __future__ import annotations

import os
import shutil
import threading

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.files.partial_file import PIECE_BYTES, PartialFile, partial_bytes
from gemsdata.shards import packed as packed_shards
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.write import shard
from tests.genomes import random_dna, write_fasta
from tools.fault_server import serving

pytestmark = pytest.mark.once
pytest.importorskip("obstore")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A packed set of 1 MiB in two shards, of three and two batches."""
    folder = tmp_path_factory.mktemp("packed")
    fasta = write_fasta(folder / "g.fa", {name: random_dna(1024, seed) * 2048 for seed, name in enumerate("ab")})
    options = ShardOptions(format="packed", k=3, min_count=1, valid_fraction=0, block_rows=1, rows_per_shard=80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_shards, "_BATCH_BYTES", 1 << 18)
        shard([fasta], folder / "set", options)
    regions = folder / "regions.bed"
    regions.write_text("".join(f"{name}\t{start}\t{start + 3000}\n" for name in "ab" for start in (700_000, 1_500_000)))
    return folder


def view_of(place, packed, cache=None):
    opened = ShardSet.open(place, cache_dir=cache)
    return gd.view(opened, tokens="base", row_bases=500, regions=packed / "regions.bed", jitter=False)


def rows_of(view, **options):
    loader = gd.build_loader(view, batch_size=5, masking="random-token", num_epochs=1, seed=1, **options)
    return [(batch["sample_ids"].tolist(), batch["input_ids"].tolist()) for batch in loader]


def shard_bytes(server):
    return sum(count for name, count in server.num_bytes_sent.items() if name.startswith("train/"))


def size_of(packed):
    return sum(path.stat().st_size for path in (packed / "set" / "train").iterdir())


@pytest.mark.parametrize("options", [{}, {"num_workers": 2, "threads": True}])
def test_rows_in_regions_fetch_their_ranges_once(packed, tmp_path, options):
    right = rows_of(view_of(packed / "set", packed))
    with serving(packed / "set") as server:
        assert rows_of(view_of(server.url, packed, tmp_path / "cache"), check="size", **options) == right
        sent = shard_bytes(server)
        # 2 shards of 4 pieces for schema, footer, first and last batch; 4 regions in one or two each
        assert 4 * PIECE_BYTES < sent <= 16 * PIECE_BYTES < size_of(packed) / 2
        assert rows_of(view_of(server.url, packed, tmp_path / "cache"), check="size") == right
        assert shard_bytes(server) == sent


def test_hashes_need_whole_shards(packed, tmp_path):
    right = rows_of(view_of(packed / "set", packed))
    with serving(packed / "set") as server:
        assert rows_of(view_of(server.url, packed, tmp_path / "cache")) == right
        assert shard_bytes(server) == size_of(packed)
        assert rows_of(view_of(server.url, packed, tmp_path / "cache"), check="size") == right  # those that are there
        assert shard_bytes(server) == size_of(packed)


@pytest.mark.parametrize("url", ["file", "whole files only"])
def test_other_file_systems_and_servers_without_ranges(packed, tmp_path, url):
    pytest.importorskip("fsspec")
    right = rows_of(view_of(packed / "set", packed))
    if url == "file":
        assert rows_of(view_of(f"file://{packed / 'set'}", packed, tmp_path / "cache"), check="size") == right
        assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {"", ".ranges"}
        return
    with serving(packed / "set") as server:
        server.ranges_allowed = False
        assert rows_of(view_of(server.url, packed, tmp_path / "cache"), check="size") == right


def test_a_shard_that_is_replaced_while_it_is_read_is_an_error(packed, tmp_path):
    with serving(packed / "set") as server:
        view = view_of(server.url, packed, tmp_path / "cache")
        reader = view.reader("train", check="size")
        reader.rows(0, np.array([0]))
        first = next(name for name in server.requests if name.startswith("train/"))
        size = (packed / "set" / first).stat().st_size
        server.fault = lambda name, before: bytes(size) if name == first else None
        with pytest.raises(ValueError, match=rf"{first} was replaced while it was read; open the set again"):
            reader.rows(0, np.arange(len(view)))


def test_a_truncated_shard_is_an_error(packed, tmp_path):
    short = shutil.copytree(packed / "set", tmp_path / "set")
    os.truncate(short / "train" / "000000.arrow", 5)
    with serving(short) as server:
        reader = view_of(server.url, packed, tmp_path / "cache").reader("train", check="size")
        with pytest.raises(ValueError, match=r"000000\.arrow has 5 bytes, its manifest says"):
            reader.rows(0, np.array([0]))


class Remote:
    """A file of random bytes, and what was asked of it."""

    def __init__(self, path, num_bytes):
        self.content = np.random.default_rng(1).bytes(num_bytes)
        self.path, self.asked, self.gate = path, [], None
        path.touch()
        os.truncate(path, partial_bytes(num_bytes))

    def open(self):
        return PartialFile(self.path, len(self.content), self.read)

    def read(self, begin, end):
        self.asked.append((begin, end))
        if self.gate is not None:
            self.gate.wait(60)
        return self.content[begin:end]


def fetch(file, *spans):
    file.fetch(*(np.array(edges) for edges in zip(*spans, strict=True)))
    return [bytes(file.map[begin:end]) for begin, end in spans]


def test_pieces_are_fetched_once_and_neighbours_together(tmp_path):
    remote, size = Remote(tmp_path / "file", 5 * PIECE_BYTES + 7), PIECE_BYTES
    file = remote.open()
    spans = [(10, 20), (size - 1, size + 1), (5 * size + 1, 5 * size + 7)]
    assert fetch(file, *spans) == [remote.content[begin:end] for begin, end in spans]
    assert remote.asked == [(0, 2 * size), (5 * size, 5 * size + 7)]
    fetch(file, (0, 2 * size))
    other = remote.open()  # of another process
    assert fetch(other, (0, 3 * size)) == [remote.content[: 3 * size]]
    assert remote.asked[2:] == [(2 * size, 3 * size)]


def test_a_piece_without_its_hash_is_fetched_again(tmp_path):
    remote = Remote(tmp_path / "file", 3 * PIECE_BYTES)
    fetch(remote.open(), (0, 3 * PIECE_BYTES))
    with open(remote.path, "r+b") as stream:  # lost in a crash
        stream.seek(PIECE_BYTES + 5)
        stream.write(bytes(100))
    assert fetch(remote.open(), (0, 3 * PIECE_BYTES)) == [remote.content]
    assert remote.asked[1:] == [(PIECE_BYTES, 2 * PIECE_BYTES)]


def test_threads_fetch_a_piece_once_and_an_error_leaves_it_to_the_next(tmp_path):
    remote = Remote(tmp_path / "file", 2 * PIECE_BYTES)
    remote.gate = threading.Event()
    file = remote.open()
    threads = [threading.Thread(target=fetch, args=(file, (0, 9))) for _ in range(3)]
    for thread in threads:
        thread.start()
    remote.gate.set()
    for thread in threads:
        thread.join()
    assert len(remote.asked) == 1
    remote.content = remote.content[:PIECE_BYTES]
    with pytest.raises(OSError, match=f"{PIECE_BYTES} bytes were asked for and 0 sent"):
        fetch(file, (PIECE_BYTES, PIECE_BYTES + 1))
