"""Shuffle quality: distances between consecutive rows against those of a perfect shuffle."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.cli import main
from gemsdata.inspect.shuffle import ideal_mean_distance, ideal_near_share, row_positions, shuffle_quality
from gemsdata.shards.shard_set import ShardSet
from gemsdata.views.view import open_view
from tests.genomes import random_dna
from tests.stream_support import make_set
from tests.view_support import packed_set

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("shuffling") / "set", num_bases=60_000, rows_per_shard=200)


def test_the_ideal_is_that_of_all_pairs():
    along = np.sort(np.random.default_rng(0).integers(0, 1000, 40))
    distances = [abs(int(a) - int(b)) for a, b in itertools.combinations(along, 2)]
    assert ideal_mean_distance(along) == pytest.approx(np.mean(distances))
    assert ideal_near_share(along, 100) == pytest.approx(np.mean([distance < 100 for distance in distances]))


def test_the_stream_is_near_a_perfect_shuffle_and_the_genome_is_not(shards):
    for epoch in range(3):
        stream, stored, along = shuffle_quality(ShardSet.open(shards), epoch=epoch)
        pairs = ShardSet.open(shards).num_rows("train")
        assert abs(stream.ratio - 1) < 4 * 0.75 / pairs**0.5  # 4 standard errors of a mean of distances
        assert abs(stored.ratio - 1) < 4 * 0.75 / pairs**0.5
        assert along.ratio < 0.01


def test_small_windows_of_stored_rows_still_mix(shards):
    windowed = shuffle_quality(ShardSet.open(shards), shuffle=50)[0]
    assert windowed.order == "stream, windows of 50"
    assert windowed.ratio > 0.9


def test_positions_are_those_of_the_rows(shards):
    opened = ShardSet.open(shards)
    ids = np.array([0, 7, 300, opened.num_rows("train") - 1])
    rows = opened.read("train", ids)
    lengths = [contig.num_bases for contig in opened.manifest.contigs]
    wanted = [sum(lengths[:contig]) + start for contig, start in zip(rows.contig, rows.start, strict=True)]
    assert row_positions(open_view(opened), "train")[ids].tolist() == wanted


def test_the_command_prints_the_table(shards, capsys):
    assert main(["shuffle", str(shards)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "order",
        "stream",
        "as stored",
        "along the genome",
        "uniform shuffle",
    ]
    assert main(["shuffle", str(shards), "--window", "60", "--json"]) == 0
    (first, *_) = json.loads(capsys.readouterr().out)
    assert first["order"] == "stream, windows of 60"
    assert 0.8 < first["ratio"] < 1.2


def test_the_rows_of_a_packed_set(tmp_path, capsys):
    folder = packed_set(tmp_path, {"a": random_dna(60_000, 1)}, valid_fraction=0)
    assert main(["shuffle", str(folder), "--tokens", "base", "--row-bases", "50", "--epoch", "3", "--json"]) == 0
    stream, numbered, along = json.loads(capsys.readouterr().out)
    assert [quality["order"] for quality in (stream, numbered)] == ["stream", "by row number"]
    assert abs(stream["ratio"] - 1) < 4 * 0.75 / 1200**0.5
    assert numbered["ratio"] == along["ratio"] < 0.01
    view = gd.view(folder, tokens="base", row_bases=50)
    assert row_positions(view, "train", epoch=3).tolist() == view.rows(np.arange(len(view)), epoch=3).start.tolist()


def test_mistakes_are_one_line(shards, capsys):
    assert main(["shuffle", str(shards), "--split", "test"]) == 2
    assert capsys.readouterr().err.startswith("error: split 'test' is unknown")
    assert main(["shuffle", str(shards), "--window", "0"]) == 2
    assert "shuffle = 0" in capsys.readouterr().err
