"""webdataset pipelines over our tars: decoded, masked as a stage, compressed or not."""

from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest
import webdataset as wds

import gemsdata as gd
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.verify.shard_set import verify
from gemsdata.shards.write import shard
from tests.genomes import random_dna, write_fasta

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
"""webdataset leaves a tar open when its consumer stops or raises"""
SMALL = {"block_rows": 64, "row_tokens": 40, "min_count": 1}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tars")
    fasta = write_fasta(folder / "g.fa", {"a": random_dna(9000, 1), "b": random_dna(3000, 2)})
    for name in ("none", "zstd"):
        shard([fasta], folder / name, ShardOptions(format="webdataset", compression=name, **SMALL))
    return folder


@pytest.fixture(autouse=True)
def _collect_open_tars():
    yield
    gc.collect()


def pipeline(folder, split="train", **options):
    urls = sorted(str(path) for path in (folder / split).glob("*.tar"))
    return wds.WebDataset(urls, shardshuffle=False).decode(gd.wds_decoder).compose(gd.masked(**options))


def test_compressed_tars_hold_the_same_rows(sets):
    plain, packed = ShardSet.open(sets / "none"), ShardSet.open(sets / "zstd")
    assert plain.manifest.fingerprint == packed.manifest.fingerprint
    ids = np.arange(plain.num_rows("train"))
    for name in ("input_ids", "num_tokens", "contig", "start"):
        assert np.array_equal(getattr(plain.read("train", ids), name), getattr(packed.read("train", ids), name))
    size = {name: sum(path.stat().st_size for path in (sets / name / "train").glob("*")) for name in ("none", "zstd")}
    assert size["zstd"] < size["none"]
    verify(sets / "zstd", [str(sets / "g.fa")])
    batches = [list(gd.build_loader(sets / name, batch_size=8, num_steps=6)) for name in ("none", "zstd")]
    for first, second in zip(*batches, strict=True):
        assert first["input_ids"].equal(second["input_ids"])


@pytest.mark.parametrize("name", ["none", "zstd"])
def test_a_stage_masks_what_build_loader_would(sets, name):
    shards = ShardSet.open(sets / name)
    stage = pipeline(sets / name, masking="genemask", seed=5)
    masker = gd.Masker("genemask", ranks=shards.ranks, seed=5)
    for epoch in range(2):
        first = 0
        for sample in stage:
            rows = shards.read("train", np.arange(first, first + len(sample["start"])))
            row_ids = np.arange(first, first + len(rows))
            wanted = masker.batch(rows.input_ids, rows.num_tokens, row_ids, epoch=epoch)
            for column, values in wanted.items():
                assert np.array_equal(sample[column], values)
            assert np.array_equal(sample["start"], rows.start)
            first += len(rows)
        assert first == shards.num_rows("train")


def test_ranks_may_be_given_and_a_stage_can_be_pickled(sets, tmp_path):
    import shutil

    shutil.copytree(sets / "none" / "train", tmp_path / "tars")
    urls = sorted(str(path) for path in (tmp_path / "tars").glob("*.tar"))
    decoded = wds.WebDataset(urls, shardshuffle=False).decode(gd.wds_decoder)
    ranks = ShardSet.open(sets / "none").ranks
    stage = pickle.loads(pickle.dumps(gd.masked("genemask", ranks=ranks)))
    assert len(list(decoded.compose(stage))) > 1
    with pytest.raises(ValueError, match=r"does not lie in a shard set's folder, .* give masked\(ranks="):
        list(wds.WebDataset(urls, shardshuffle=False).decode(gd.wds_decoder).compose(gd.masked()))
    with pytest.raises(ValueError, match=r"has no decoded input_ids: put \.decode\(gemsdata\.wds_decoder\)"):
        list(wds.WebDataset(urls, shardshuffle=False).compose(gd.masked(ranks=ranks)))


def test_damaged_members_are_named(sets, tmp_path):
    import shutil

    folder = tmp_path / "set"
    shutil.copytree(sets / "zstd", folder)
    path = folder / "train" / "000000.tar"
    content = bytearray(path.read_bytes())
    content[520:700] = bytes(180)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="block 0 is damaged"):
        ShardSet.open(folder).read("train", np.array([0]))
