"""Views of sets of tokens: the stored rows, all or those in regions, with weights and coordinates."""

from __future__ import annotations

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.write import shard
from tests.genomes import awkward_genome, write_fasta
from tests.test_views_stream import batches, same
from tests.view_support import kmer_ids, text_of


@pytest.fixture(scope="module", params=["arrow", "webdataset"])
def stored(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    fasta = write_fasta(folder / "genome.fa", awkward_genome())
    options = ShardOptions(format=request.param, row_tokens=60, valid_contigs=("last",), min_count=1)
    shard([fasta], folder / "set", options)
    return folder / "set"


def places(shards: ShardSet, split: str) -> list[tuple[int, int, int]]:
    rows = shards.read(split, np.arange(shards.num_rows(split)))
    return list(
        zip(rows.contig.tolist(), rows.start.tolist(), (rows.start + rows.num_tokens + 5).tolist(), strict=True)
    )


def test_a_view_without_options_gives_the_batches_of_the_set(stored):
    options = {"reverse_complement": 0.5, "coordinates": True}
    assert same(batches(gd.view(stored), 12, **options), batches(stored, 12, **options))
    view = gd.view(stored)
    assert len(view) == ShardSet.open(stored).num_rows("train")
    assert "stored rows" in repr(view)


def test_rows_in_regions_are_the_stored_rows_within_them(stored, tmp_path):
    (tmp_path / "r.bed").write_text("NC_000001.11\t100\t420\nlast\t5\t900\n")
    (tmp_path / "x.bed").write_text("last\t300\t301\n")
    shards, contigs = ShardSet.open(stored), awkward_genome()
    view = gd.view(stored, regions=tmp_path / "r.bed", flank=20, exclude=tmp_path / "x.bed")
    inside = {0: (80, 440), 5: (0, 920)}
    for split in ("train", "valid"):
        wanted = [
            (contig, start, end)
            for contig, start, end in places(shards, split)
            if contig in inside
            and inside[contig][0] <= start
            and end <= inside[contig][1]
            and not (shards.contig_names[contig] == "last" and start <= 300 < end)
        ]
        rows = view.rows(np.arange(view.num_rows(split)), split=split)
        assert list(zip(rows.contig.tolist(), rows.start.tolist(), rows.end.tolist(), strict=True)) == wanted
        for i, (contig, start, end) in enumerate(wanted):
            ids = kmer_ids(text_of(contigs, contig, start, end), 6, 1)
            assert rows.tokens.input_ids[i, : rows.tokens.num_tokens[i]].tolist() == ids
    assert 0 < len(view) < shards.num_rows("train")
    assert view.fingerprint != gd.view(stored).fingerprint


def test_weights_and_eligibility_are_those_of_a_packed_view(stored, tmp_path):
    shard(
        [stored.parent / "genome.fa"],
        tmp_path / "p",
        ShardOptions(format="packed", valid_contigs=("last",), min_count=1),
    )
    options = {"loss_weight_soft_masked": 0.25, "mask_soft_masked": False}
    packed = gd.view(tmp_path / "p", row_tokens=60, jitter=False, **options)
    there = packed.rows(np.arange(len(packed)))
    of_place = {(c, s): i for i, (c, s) in enumerate(zip(there.contig.tolist(), there.start.tolist(), strict=True))}
    view = gd.view(stored, **options)
    rows = view.rows(np.arange(len(view)))
    for i, place in enumerate(zip(rows.contig.tolist(), rows.start.tolist(), strict=True)):
        count, num_bases, j = rows.tokens.num_tokens[i], rows.tokens.num_bases[i], of_place[place]
        assert rows.loss_weights[i, :count].tolist() == there.loss_weights[j, :count].tolist()
        assert np.array_equal(rows.tokens.maskable[i, :num_bases], there.tokens.maskable[j, :num_bases])
    for batch in batches(view, 4, masking="random-token"):
        assert (batch["labels"] >= 0).any()
        assert batch["loss_weights"].shape == batch["labels"].shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "base"}, "tokens 'base' cannot be read"),
        ({"row_tokens": 61}, "row_tokens = 61 cannot be read"),
        ({"row_bases": 64}, "row_bases = 64 cannot be read"),
        ({"jitter": True}, "jitter is not possible"),
        ({"unknown": "token"}, "unknown = 'token' is not possible"),
    ],
)
def test_stored_rows_can_be_read_in_no_other_way(stored, options, message):
    with pytest.raises(ValueError, match=message + r".* stores rows of 60 tokens 'kmer:6'.*--format packed"):
        gd.view(stored, **options)


def test_a_region_without_a_stored_row_is_named(stored, tmp_path):
    (tmp_path / "r.bed").write_text("last\t0\t500\nlast\t600\t640\n")
    with pytest.raises(ValueError, match=r"r\.bed:2: region last:600-640 leaves no row: no stored row lies within it"):
        gd.view(stored, regions=tmp_path / "r.bed")
