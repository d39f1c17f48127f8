"""Stop anywhere, go on in another topology: the union is the uninterrupted stream."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.write import shard
from tests.genomes import random_dna, write_fasta
from tests.stream_support import digest, global_batches, loaders_of_ranks, make_set

OPTIONS = {"masking": "cm-gems", "seed": 4, "reverse_complement": 0.5, "num_steps": 60, "stage_lag": 9}
TOPOLOGIES = [
    {"num_ranks": 1},
    {"num_ranks": 2, "num_workers": 1, "start_method": "fork"},
    {"num_ranks": 3, "num_workers": 2, "threads": True},
    {"num_ranks": 1, "num_workers": 2, "start_method": "fork", "prefetch_factor": 3},
    {"num_ranks": 5},
    {"num_ranks": 1, "num_workers": 3, "threads": True, "prefetch_factor": 2},
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("resume") / "set")


@pytest.mark.parametrize("remainder", ["wrap", "pad", "drop"])
def test_stops_at_random_steps_and_resumes_in_other_topologies(shards, remainder):
    options = {**OPTIONS, "remainder": remainder}
    whole = global_batches(loaders_of_ranks(shards, 1, **options))
    rng = random.Random(remainder)
    stops = sorted(rng.sample(range(1, 60), 5))
    batches, state = [], None
    for stop, topology in zip([*stops, 60], TOPOLOGIES, strict=True):
        loaders = loaders_of_ranks(shards, **{**options, **topology})
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)))
        batches += global_batches(loaders, stop - len(batches))
        states = [loader.state_dict() for loader in loaders]
        assert all(other == states[0] for other in states)
        state = states[0]
    assert digest(batches) == digest(whole)


def test_a_state_is_small_and_restores_stage_log_and_perplexities(shards):
    loader = gd.build_loader(shards, batch_size=7, **OPTIONS)
    iterator = iter(loader)
    for step, perplexity in ((5, 30.0), (9, 20.0), (12, 19.5)):
        while loader.step < step:
            next(iterator)
        loader.observe(perplexity)
    state = loader.state_dict()
    assert state["stage_log"] == [[11 + 9, 1]]
    assert state["perplexities"] == [[5, 30.0], [9, 20.0], [12, 19.5]]
    assert len(json.dumps(state)) < 500
    rest = list(iterator)
    resumed = gd.build_loader(shards, batch_size=7, **OPTIONS)
    resumed.load_state_dict(json.loads(json.dumps(state)))
    again = list(resumed)
    assert [batch["stage"] for batch in again] == [batch["stage"] for batch in rest] == [0] * 8 + [1] * 40
    assert all((a["labels"] == b["labels"]).all() for a, b in zip(again, rest, strict=True))
    assert resumed.state_dict()["perplexities"] == state["perplexities"]


def test_loading_a_state_closes_the_iterator_that_ran_before(shards):
    loader = gd.build_loader(shards, batch_size=7, num_workers=1, start_method="fork", **OPTIONS)
    iterator = iter(loader)
    state = loader.state_dict()
    next(iterator)
    loader.load_state_dict(state)
    with pytest.raises(StopIteration):
        next(iterator)
    assert next(iter(loader))["step"] == 0
    loader.close()


def test_a_finished_run_stays_finished_after_a_restart(shards):
    loader = gd.build_loader(shards, batch_size=7, **OPTIONS)
    assert len(list(loader)) == 60
    resumed = gd.build_loader(shards, batch_size=7, **OPTIONS)
    resumed.load_state_dict(loader.state_dict())
    assert list(resumed) == []
    assert list(resumed) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "seed 4, this loader has 5; pass that seed"),
        ({"batch_size": 8}, "global_batch 7, this loader has 8; pass global_batch_size"),
        ({"masking": "genemask"}, "config_hash .* pass the masking"),
        ({"remainder": "pad"}, "config_hash .* pass the masking"),
        ({"reverse_complement": 0.0}, "config_hash .* pass the masking"),
        ({"stage_lag": 10}, "stage_lag 9, this loader has 10"),
    ],
)
def test_a_state_of_another_stream_is_refused(shards, change, message):
    state = gd.build_loader(shards, **{"batch_size": 7, **OPTIONS}).state_dict()
    other = gd.build_loader(shards, **{"batch_size": 7, **OPTIONS, **change})
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(state)


def test_a_state_of_another_data_set_or_of_a_newer_version_is_refused(shards, tmp_path):
    other = make_set(tmp_path / "other", genome_seed=2)
    state = gd.build_loader(shards, batch_size=7, **OPTIONS).state_dict()
    prints = [ShardSet.open(folder).manifest.fingerprint for folder in (shards, other)]
    loader = gd.build_loader(other, batch_size=7, **OPTIONS)
    with pytest.raises(ValueError, match=f"fingerprint {prints[0]}, this loader has {prints[1]}"):
        loader.load_state_dict(state)
    with pytest.raises(ValueError, match=r"lacks stage_lag, stage_log, step"):
        loader.load_state_dict({k: v for k, v in state.items() if not k.startswith("st")})
    with pytest.raises(ValueError, match=r"version 3; this gemsdata reads up to 2"):
        loader.load_state_dict({**state, "version": 3})


def anonymous_bytes() -> int:
    """Memory of this process without the pages of mapped files, which the system takes back when it likes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


@pytest.mark.compiled
@pytest.mark.slow
def test_a_billion_rows_are_entered_anywhere_with_flat_memory(tmp_path):
    """An index of 10**9 rows: one real shard, named in the manifest again and again."""
    fasta = write_fasta(tmp_path / "g.fa", {"one": random_dna(515 * 8192, 3)})
    options = ShardOptions(rows_per_shard=8192, valid_fraction=0, min_count=1)
    manifest, _ = shard([fasta], tmp_path / "set", options)
    only = manifest.shards("train")[0]
    copies = -(-(10**9) // only.num_rows)
    huge = Manifest(
        **{
            **{name: getattr(manifest, name) for name in manifest.__dataclass_fields__},
            "splits": {"train": [only] * copies},
        }
    )
    num_rows = huge.num_rows("train")
    assert num_rows >= 10**9
    next(iter(gd.build_loader(tmp_path / "set", batch_size=256, masking="dnabert")))  # imports, compiled kernels
    before = anonymous_bytes()
    loader = gd.build_loader(ShardSet(tmp_path / "set", huge), batch_size=256, masking="dnabert")
    loader.load_state_dict({**loader.state_dict(), "step": 10_000_000})
    iterator = iter(loader)
    batch = next(iterator)
    assert (batch["step"], batch["epoch"]) == (10_000_000, 10_000_000 * 256 // num_rows)
    touched = [np.count_nonzero(loader.stream._readers[0]._table[:, 0])]
    assert touched[0] <= 256 * 8, "more blocks were touched than the batch has rows"
    for _ in range(20):
        next(iterator)
    assert np.count_nonzero(loader.stream._readers[0]._table[:, 0]) <= 21 * 256 * 8
    grown = anonymous_bytes() - before
    assert grown < 64 << 20, f"{grown:,} bytes more for an index of a billion rows"
