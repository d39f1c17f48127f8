"""Streams of views keep the laws of the stream: the same batches for any workers, ranks, stops and start methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gemsdata as gd
from gemsdata.genome.vocab import reverse_complement
from gemsdata.stream.world import World
from tests.genomes import awkward_genome, random_dna
from tests.view_support import kmer_ids, packed_set, text_of

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return packed_set(tmp_path_factory.mktemp("views"), valid_fraction=0.2)


def batches(source, count: int, *, start: int = 0, **options) -> list[dict[str, torch.Tensor]]:
    loader = gd.build_loader(source, num_steps=start + count, seed=3, **{"global_batch_size": 12, **options})
    out = [dict(batch) for batch in loader]
    return out[start:]


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[name]), torch.as_tensor(b[name])) for name in a)
        for a, b in zip(first, second, strict=True)
    )


def view_of(packed, **options):
    return gd.view(packed, **{"tokens": "kmer:6", "row_tokens": 60, **options})


def test_batches_do_not_depend_on_workers_or_threads(packed):
    view = view_of(packed, loss_weight_soft_masked=0.1)
    alone = batches(view, 30, coordinates=True, reverse_complement=0.5)
    for options in (
        {"num_workers": 2},
        {"num_workers": 2, "threads": True},
        {"num_workers": 1, "start_method": "spawn"},
    ):
        assert same(alone, batches(view, 30, coordinates=True, reverse_complement=0.5, **options))


def test_ranks_share_the_global_batches(packed):
    view = view_of(packed)
    whole = batches(view, 20, coordinates=True)
    parts = [batches(view, 20, coordinates=True, world=World(rank=rank, num_ranks=3)) for rank in range(3)]
    for step, batch in enumerate(whole):
        for name in ("input_ids", "labels", "start", "sample_ids"):
            assert torch.equal(batch[name], torch.cat([part[step][name] for part in parts]))


def test_a_resumed_stream_goes_on(packed):
    view = view_of(packed)
    whole = batches(view, 40)
    loader = gd.build_loader(view, global_batch_size=12, num_steps=40, seed=3)
    iterator = iter(loader)
    for _ in range(25):
        next(iterator)
    state = loader.state_dict()
    again = gd.build_loader(view, global_batch_size=12, num_steps=40, seed=3)
    again.load_state_dict(state)
    assert same(whole[25:], [dict(batch) for batch in again])
    other = gd.build_loader(view_of(packed, seed=1), global_batch_size=12, num_steps=40, seed=3)
    with pytest.raises(ValueError, match="fingerprint"):
        other.load_state_dict(state)


def test_an_epoch_shows_each_row_once_and_coordinates_say_which(packed):
    contigs = awkward_genome()
    view = view_of(packed)
    steps = -(-len(view) // 12)
    ids, seen = [], []
    for batch in batches(view, steps, coordinates=True, reverse_complement=0.5, remainder="pad"):
        assert batch["source"].unique().tolist() in ([0], [-1, 0])
        for i in range(12):
            row = {name: int(batch[name][i]) for name in ("sample_ids", "contig", "start", "end", "strand")}
            if row["sample_ids"] < 0:
                assert (row["contig"], row["start"], row["end"], row["strand"]) == (-1, -1, -1, 0)
                continue
            ids.append(row["sample_ids"])
            seen.append((row["contig"], row["start"], row["end"]))
            text = text_of(contigs, row["contig"], row["start"], row["end"])
            if row["strand"] < 0:
                text = reverse_complement(text)
            labels = batch["labels"][i].numpy()
            shown = np.where(labels >= 0, labels, batch["input_ids"][i].numpy())
            count = int(batch["attention_mask"][i].sum()) - 2
            assert shown[1 : count + 1].tolist() == kmer_ids(text, 6, 1)
    assert sorted(ids) == list(range(len(view)))
    assert len(set(seen)) == len(view)


def test_epochs_show_other_windows(packed):
    view = view_of(packed)
    steps = -(-len(view) // 12)
    starts = [
        {(int(c), int(s)) for batch in part for c, s in zip(batch["contig"], batch["start"], strict=True)}
        for part in (batches(view, steps, coordinates=True), batches(view, steps, start=steps, coordinates=True))
    ]
    assert len(starts[0] & starts[1]) < 0.5 * len(starts[0])


def test_a_mixture_of_views_says_which(packed, tmp_path):
    other = packed_set(tmp_path, {"x": random_dna(4000, 5)}, valid_fraction=0)
    views = [view_of(packed), view_of(other)]
    found = batches(views, 50, coordinates=True, weights=[0.7, 0.3])
    sources = torch.cat([batch["source"] for batch in found])
    assert (sources == 1).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert same(found, batches(views, 50, coordinates=True, weights=[0.7, 0.3], num_workers=2, threads=True))
    with pytest.raises(ValueError, match="of different tokens or row lengths cannot be mixed: rows of 60"):
        batches([view_of(packed), view_of(packed, tokens="kmer:5")], 1)


def test_coordinates_of_stored_rows(tmp_path, packed):
    from gemsdata.shards.options import ShardOptions
    from gemsdata.shards.write import shard

    shard([packed.parent / "genome.fa"], tmp_path / "arrow", ShardOptions(row_tokens=60, min_count=1))
    contigs = awkward_genome()
    for batch in batches(tmp_path / "arrow", 5, coordinates=True):
        for i in range(12):
            text = text_of(contigs, batch["contig"][i], batch["start"][i], batch["end"][i])
            labels = batch["labels"][i].numpy()
            shown = np.where(labels >= 0, labels, batch["input_ids"][i].numpy())
            assert shown[1 : 1 + len(text) - 5].tolist() == kmer_ids(text, 6, 1)


def test_weights_of_the_loss_stand_where_tokens_are(packed):
    for batch in batches(view_of(packed, loss_weight_soft_masked=0.1), 10):
        weights, attended = batch["loss_weights"], batch["attention_mask"]
        assert weights.dtype == torch.float32
        assert not weights[attended == 0].any()
        assert not weights[:, 0].any()
        masked = batch["labels"] >= 0
        assert weights[masked].min() >= 0.09
    assert "loss_weights" not in batches(view_of(packed), 1)[0]


@pytest.mark.parametrize(
    "options",
    [
        {"tokens": "base"},
        {"tokens": "kmer:6:6"},
        {"tokens": "kmer:3:3", "mask_soft_masked": False},
        {"tokens": "kmer:6", "unknown": "token"},
    ],
)
@pytest.mark.parametrize("masking", ["genemask", "global-nms", "random-token"])
def test_any_tokens_are_masked_where_they_may_be(packed, options, masking):
    contigs = awkward_genome()
    view = view_of(packed, **options)
    k, stride = view.tokens.token_bases, view.tokens.token_stride
    masked = total = 0
    for batch in batches(view, 12, coordinates=True, masking=masking):
        for i in range(12):
            start, end = int(batch["start"][i]), int(batch["end"][i])
            text = text_of(contigs, int(batch["contig"][i]), start, end)
            ids = kmer_ids(text, k, stride)
            labels = batch["labels"][i].numpy()[1 : len(ids) + 1]
            shown = batch["input_ids"][i].numpy()[1 : len(ids) + 1]
            assert int(batch["attention_mask"][i].sum()) == len(ids) + 2
            assert np.where(labels >= 0, labels, shown).tolist() == ids
            assert not (labels == 1).any()
            masked, total = masked + (labels >= 0).sum(), total + len(ids)
    assert 0.03 < masked / total < 0.4
