"""One stream whatever the topology: hashes of three epochs of a set whose rows divide by nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gemsdata as gd
from gemsdata.genome import vocab
from gemsdata.shards.shard_set import ShardSet
from tests.stream_support import digest, global_batches, loaders_of_ranks, make_set

NUM_ROWS = 137
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # on two cores
OPTIONS = {"masking": "genemask", "num_epochs": 3, "seed": 11, "reverse_complement": 0.5}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("stream") / "set")


@pytest.fixture(scope="module")
def expected(shards):
    """The stream as one rank computes it, batch after batch."""
    batches = global_batches(loaders_of_ranks(shards, 1, **OPTIONS))
    assert len(batches) == -(-3 * ShardSet.open(shards).num_rows("train") // 7)
    return digest(batches)


def hash_of(shards, num_ranks: int = 1, **options) -> str:
    return digest(global_batches(loaders_of_ranks(shards, num_ranks, **{**OPTIONS, **options})))


def test_the_stream_is_pinned(expected):
    """When this fails, every saved run would go on with other batches: raise MASKING_VERSION, or find the mistake."""
    assert expected == "382b040f338ca487cb497ab20627d75da70f9a4cfa5c7d66b21d106415097188"


def test_the_rows_divide_by_nothing(shards):
    assert ShardSet.open(shards).num_rows("train") == NUM_ROWS
    assert all(NUM_ROWS % n for n in (2, 3, 4, 5, 7))


@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_the_stream_is_the_same_for_every_number_of_ranks_and_workers(shards, expected, num_ranks, num_workers):
    assert hash_of(shards, num_ranks, num_workers=num_workers, start_method="fork" if num_workers else None) == expected


@pytest.mark.parametrize("prefetch_factor", [1, 2, 3, 7, 16])
def test_the_stream_is_the_same_for_every_prefetch_depth(shards, expected, prefetch_factor):
    assert hash_of(shards, num_workers=2, prefetch_factor=prefetch_factor, start_method="fork") == expected


@pytest.mark.compiled
@pytest.mark.parametrize("start_method", [pytest.param("spawn", marks=pytest.mark.slow), "forkserver"])
def test_the_stream_is_the_same_for_every_start_method(shards, expected, start_method):
    assert hash_of(shards, num_workers=2, start_method=start_method) == expected


@pytest.mark.parametrize(("num_ranks", "num_workers", "prefetch_factor"), [(1, 1, 1), (2, 2, 2), (3, 4, 16)])
def test_the_stream_is_the_same_from_threads(shards, expected, num_ranks, num_workers, prefetch_factor):
    options = {"num_workers": num_workers, "threads": True, "prefetch_factor": prefetch_factor}
    assert hash_of(shards, num_ranks, **options) == expected


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"format": "webdataset"}], ids=["zstd", "tar"])
def test_the_stream_is_the_same_for_every_format_of_the_shards(shards, expected, tmp_path, options):
    other = make_set(tmp_path / "other", **options)
    assert ShardSet.open(other).manifest.fingerprint == ShardSet.open(shards).manifest.fingerprint
    assert hash_of(other) == expected
    assert hash_of(other, 2, num_workers=2, start_method="fork") == expected


def test_a_set_in_both_formats_is_read_in_the_one_that_is_asked_for(expected, tmp_path):
    both = make_set(tmp_path / "both", format="both")
    for file_format, other in (("arrow", "*.tar"), ("webdataset", "*.arrow")):
        opened = ShardSet.open(both, file_format)
        hidden = [path.rename(path.with_suffix(".away")) for path in (both / "train").glob(other)]
        assert hash_of(opened) == expected
        for path in hidden:
            path.rename(path.with_suffix(other[1:]))


def test_few_decoded_blocks_at_a_time_give_the_same_stream(expected, tmp_path, monkeypatch):
    zstd = make_set(tmp_path / "zstd", compression="zstd")
    loader = gd.build_loader(zstd, global_batch_size=7, **OPTIONS)
    loader.stream._readers[0]._decoded_bytes = 1
    assert digest(global_batches([loader])) == expected
    assert len(loader.stream._readers[0]._decoded) == 1


@pytest.mark.parametrize("change", [{"seed": 12}, {"reverse_complement": 0.0}, {"masking": "dnabert"}, {"shuffle": 8}])
def test_what_must_change_the_stream_changes_it(shards, expected, change):
    assert hash_of(shards, **change) != expected


@pytest.mark.parametrize("remainder", ["wrap", "pad", "drop"])
def test_an_epoch_shows_each_row_once_and_every_rank_has_as_many_batches(shards, remainder):
    loaders = loaders_of_ranks(shards, 3, **{**OPTIONS, "remainder": remainder})
    batches = global_batches(loaders)  # asserts that no rank ends before another
    assert len(batches) == len(loaders[0])
    ids = np.concatenate([batch["sample_ids"] for batch in batches])
    if remainder == "wrap":
        assert sorted(ids[: 3 * NUM_ROWS].tolist()) == sorted(3 * list(range(NUM_ROWS)))
        assert sorted(ids[:NUM_ROWS].tolist()) == list(range(NUM_ROWS))
        return
    for epoch in range(3):
        ids = np.concatenate([batch["sample_ids"] for batch in batches if batch["epoch"] == epoch])
        assert len(set(ids.tolist())) == len(ids) == (NUM_ROWS if remainder == "pad" else NUM_ROWS // 7 * 7)


def test_a_batch_is_what_the_masker_makes_of_the_stored_rows(shards):
    opened = ShardSet.open(shards)
    masker = gd.Masker("genemask", ranks=opened.ranks, seed=11)
    for batch in gd.build_loader(shards, batch_size=9, masking="genemask", seed=11, num_steps=5):
        ids = batch["sample_ids"].numpy()
        rows = opened.read("train", ids)
        wanted = masker.batch(rows.input_ids, rows.num_tokens, ids)
        for name in ("input_ids", "labels", "attention_mask"):
            assert batch[name].dtype == torch.int64
            np.testing.assert_array_equal(batch[name].numpy(), wanted[name])
        original = np.where(batch["labels"] >= 0, batch["labels"], batch["input_ids"])[:, 1:-1]
        inside = np.arange(30) < rows.num_tokens[:, None]
        np.testing.assert_array_equal(original[inside], rows.input_ids[inside])


def test_a_row_is_reversed_by_a_draw_that_changes_with_the_epoch(shards):
    opened = ShardSet.open(shards)
    complement = vocab.reverse_complement_ids(3)
    loader = gd.build_loader(shards, batch_size=10, seed=3, reverse_complement=0.4, num_epochs=4, remainder="pad")
    reversed_in = {}
    for batch in loader:
        for sample_id, labels, ids in zip(
            *(batch[n].numpy() for n in ("sample_ids", "labels", "input_ids")), strict=True
        ):
            if sample_id < 0:
                continue
            row = opened.read("train", np.array([sample_id]))
            stored = row.input_ids[0, : row.num_tokens[0]]
            tokens = np.where(labels >= 0, labels, ids)[1 : 1 + stored.size]
            unmasked = labels[1 : 1 + stored.size] < 0
            same = (tokens == stored).all()
            flipped = (tokens == complement[stored[::-1]]).all()
            assert same or flipped, (sample_id, unmasked)
            reversed_in.setdefault(int(sample_id), []).append(bool(flipped and not same))
    share = np.mean([flag for flags in reversed_in.values() for flag in flags])
    assert abs(share - 0.4) < 4 * (0.24 / (4 * NUM_ROWS)) ** 0.5 + 0.02
    assert any(len(set(flags)) == 2 for flags in reversed_in.values())


def test_batches_may_stay_narrow(shards):
    for options in ({}, {"num_workers": 2, "start_method": "fork"}, {"num_workers": 2, "threads": True}):
        narrow = list(gd.build_loader(shards, batch_size=8, num_steps=9, device=None, **options))
        wide = list(gd.build_loader(shards, batch_size=8, num_steps=9))
        for a, b in zip(narrow, wide, strict=True):
            assert [a[name].dtype for name in ("input_ids", "labels", "attention_mask", "sample_ids")] == [
                torch.uint16,
                torch.int16,
                torch.uint8,
                torch.int64,
            ]
            assert all((a[name].to(torch.int64) == b[name]).all() for name in ("input_ids", "labels", "attention_mask"))


@pytest.mark.parametrize("options", [{}, {"num_workers": 2, "start_method": "fork"}])
def test_another_device_gets_one_narrow_transfer_and_widens_there(shards, options, monkeypatch):
    """The device is torch's "meta", which has shapes and dtypes but no content."""
    transfers = []
    move = torch.Tensor.to

    def spy(tensor, *arguments, **keywords):
        if arguments and isinstance(arguments[0], torch.device):
            transfers.append(tensor.dtype)
        return move(tensor, *arguments, **keywords)

    monkeypatch.setattr(torch.Tensor, "to", spy)
    (batch,) = gd.build_loader(shards, batch_size=8, num_steps=1, device="meta", **options)
    assert transfers == [torch.uint8]
    for name, shape in (("input_ids", (8, 32)), ("labels", (8, 32)), ("attention_mask", (8, 32)), ("sample_ids", (8,))):
        assert (batch[name].device.type, batch[name].dtype, batch[name].shape) == ("meta", torch.int64, shape)


def test_batches_that_were_handed_out_are_not_written_again(shards):
    loader = gd.build_loader(shards, batch_size=8, num_steps=30, num_workers=2, start_method="fork", device=None)
    kept = list(loader)
    again = list(gd.build_loader(shards, batch_size=8, num_steps=30))
    assert all((a["labels"] == b["labels"]).all() for a, b in zip(kept, again, strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"num_workers": 2, "start_method": "fork"}, {"num_workers": 2, "threads": True}]
)
def test_iterating_again_goes_on_where_it_stopped_and_a_finished_run_begins_anew(shards, options):
    loader = gd.build_loader(shards, batch_size=8, num_steps=6, **options)
    steps = []
    for batch in loader:
        steps.append(batch["step"])
        if batch["step"] == 2:
            break
    steps += [batch["step"] for batch in loader]
    assert steps == [0, 1, 2, 3, 4, 5]
    assert [batch["step"] for batch in loader] == [0, 1, 2, 3, 4, 5]
    assert len(loader) == 6


def test_an_endless_stream_has_no_length(shards):
    with pytest.raises(TypeError, match="endless"):
        len(gd.build_loader(shards, batch_size=8))


def test_two_iterators_of_one_loader_do_not_mix(shards):
    loader = gd.build_loader(shards, batch_size=8, num_workers=2, threads=True)
    first = iter(loader)
    next(first)
    second = iter(loader)
    assert next(second)["step"] == 1
    with pytest.raises(StopIteration):
        next(first)
    loader.close()


def test_sets_are_mixed_by_weight_and_resumed(shards, tmp_path):
    other = make_set(tmp_path / "other", num_bases=1900, genome_seed=9)
    sizes = [ShardSet.open(path).num_rows("train") for path in (shards, other)]
    options = {"masking": "genemask", "seed": 2, "weights": (2, 1), "num_steps": 40}
    whole = global_batches(loaders_of_ranks([shards, other], 1, global_batch_size=9, **options))
    for batch in whole:
        assert np.count_nonzero(batch["sample_ids"] >= sizes[0]) == 3
    by_set = np.concatenate([batch["sample_ids"] for batch in whole])
    second = by_set[by_set >= sizes[0]][: sizes[1]]
    assert sorted(second.tolist()) == list(range(sizes[0], sum(sizes)))
    several = global_batches(
        loaders_of_ranks([shards, other], 3, global_batch_size=9, num_workers=2, start_method="fork", **options)
    )
    assert digest(several) == digest(whole)
    loader = gd.build_loader([shards, other], global_batch_size=9, **options)
    list(zip(range(17), loader, strict=False))
    resumed = gd.build_loader([shards, other], global_batch_size=9, **options)
    resumed.load_state_dict(loader.state_dict())
    assert digest(global_batches([resumed])) == digest(whole[loader.step :])


def test_a_mixture_of_unlike_rows_is_refused(shards, tmp_path):
    other = make_set(tmp_path / "other", row_tokens=20)
    with pytest.raises(ValueError, match=r"different tokens or row lengths.*rows of 20 tokens.*rows of 30 tokens"):
        gd.build_loader([shards, other], batch_size=4)


def test_ids_beyond_16_bits_travel_in_32(tmp_path):
    wide = make_set(tmp_path / "k8", k=8, row_tokens=20)
    batch = next(iter(gd.build_loader(wide, batch_size=40, device=None)))
    assert (batch["input_ids"].dtype, batch["labels"].dtype) == (torch.uint32, torch.int32)
    rows = ShardSet.open(wide).read("train", batch["sample_ids"].numpy())
    labels = batch["labels"][:, 1:-1].numpy()
    assert (labels[labels >= 0] == rows.input_ids[labels >= 0]).all()
    assert labels.max() > 32767


def test_validation_is_one_padded_pass_that_repeats_itself(shards):
    loader = gd.build_loader(shards, split="valid", batch_size=7, num_epochs=1, remainder="pad")
    first, second = list(loader), list(loader)
    ids = torch.cat([batch["sample_ids"] for batch in first])
    assert sorted(ids[ids >= 0].tolist()) == list(range(ShardSet.open(shards).num_rows("valid")))
    assert (ids < 0).any()
    padding = {name: torch.cat([batch[name] for batch in first])[ids < 0] for name in ("labels", "attention_mask")}
    assert (padding["labels"] == -100).all()
    assert (padding["attention_mask"].sum(dim=1) == 2).all()
    assert all((a["labels"] == b["labels"]).all() for a, b in zip(first, second, strict=True))
