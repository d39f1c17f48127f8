"""Curricula: the CM-GEMS controller, schedules, and stages that switch at an exact step."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.masking.curriculum import resolve_curriculum
from gemsdata.masking.registry import curriculum_names
from gemsdata.stream.stage_log import CAPACITY, StageLog
from tests.stream_support import digest, global_batches, joined, loaders_of_ranks, make_set

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
LAG = 70
SWITCH = 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("curriculum") / "set")


@pytest.mark.parametrize(
    ("perplexities", "paper", "released"),
    [
        ([], 0, 0),
        ([50.0], 0, 0),
        ([50.0, 40.0], 0, 0),
        ([50.0, 49.0], 0, 0),
        ([50.0, 49.001], 1, 1),
        ([50.0, 40.0, 39.5], 1, 1),
        ([50.0, 40.0, 39.5, 20.0], 1, 1),
        ([50.0, 40.0, 60.0], 1, 0),
        ([50.0, 40.0, 40.5], 1, 1),
        ([float("inf"), 40.0, 30.0], 0, 0),
    ],
)
def test_cm_gems_switches_for_good_once_the_perplexity_hardly_falls(perplexities, paper, released):
    assert gd.CMGems().decide(perplexities) == paper
    assert gd.CMGemsReleased().decide(perplexities) == released


def test_cm_gems_names_its_maskings_and_how_it_wants_to_be_evaluated():
    assert [masking.name for masking in gd.CMGems().maskings()] == ["genemask", "global"]
    assert gd.CMGems().frozen_evaluation
    assert not gd.CMGemsReleased().frozen_evaluation
    assert gd.CMGems(threshold=3.0).decide([50.0, 48.0]) == 1
    with pytest.raises(ValueError, match="NaN"):
        gd.CMGems().decide([1.0, float("nan")])
    with pytest.raises(ValueError, match="does not depend on perplexities"):
        gd.Constant().decide([1.0])


def test_cm_step_mixes_more_and_more_of_the_hard_arm():
    curriculum = gd.CMStep(num_steps=10_000)
    stages = np.array([curriculum.stage(step, 0, 7) for step in range(10_500)])
    for part in range(10):
        share, expected = stages[1000 * part : 1000 * part + 1000].mean(), part / 9
        assert abs(share - expected) <= 4 * (expected * (1 - expected) / 1000) ** 0.5
    assert stages[10_000:].all()
    assert (stages != [curriculum.stage(step, 0, 8) for step in range(10_500)]).any()


def test_cm_step_released_has_a_hundred_blocks_and_dnaberts_easy_arm():
    curriculum = gd.CMStepReleased(num_steps=1000)
    assert [curriculum.hard_probability(step) for step in (0, 9, 10, 505, 999, 1000)] == [0, 0, 0.01, 0.5, 0.99, 1]
    assert [masking.name for masking in curriculum.maskings()] == ["dnabert", "global"]


def test_steps_switch_at_their_boundaries():
    curriculum = gd.Steps(stages=("dnabert", gd.Dnabert(budget=0.2), "global"), boundaries=(10, 15))
    assert [curriculum.stage(step, 0, 0) for step in (0, 9, 10, 14, 15, 99)] == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="one fewer than stages"):
        gd.Steps(stages=("dnabert",), boundaries=(10,))


def test_names_resolve_to_curricula():
    assert resolve_curriculum("genemask") == gd.Constant(masking="genemask")
    assert resolve_curriculum("cm-gems") == gd.CMGems()
    assert resolve_curriculum("genemask", "cm-gems-released") == gd.CMGemsReleased()
    assert resolve_curriculum("cm-step", num_steps=30) == gd.CMStep(num_steps=30)
    assert resolve_curriculum("cm-step-released", num_steps=30) == gd.CMStepReleased(num_steps=30)
    assert resolve_curriculum("global", "constant") == gd.Constant(masking="global")
    assert set(curriculum_names()) >= {"constant", "steps", "cm-gems", "cm-step"}


def switched(shards, num_ranks: int = 1, **options) -> list[dict]:
    """The stream of ranks that all switch to stage 1 after batch SWITCH."""
    loaders = loaders_of_ranks(
        shards, num_ranks, **{"masking": "cm-gems", "seed": 6, "stage_lag": LAG, "num_steps": LAG + 10, **options}
    )
    iterators = [iter(loader) for loader in loaders]
    before = []
    for _ in range(SWITCH + 1):
        before.append([next(iterator) for iterator in iterators])
    assert [loader.set_stage(1) for loader in loaders] == [SWITCH + LAG] * num_ranks
    batches = [joined(parts) for parts in before] + [joined(parts) for parts in zip(*iterators, strict=True)]
    for loader in loaders:
        loader.close()
    return batches


@pytest.fixture(scope="module")
def switched_inline(shards):
    batches = switched(shards)
    assert [batch["stage"] for batch in batches] == [0] * (SWITCH + LAG) + [1] * (10 - SWITCH)
    plain = global_batches(loaders_of_ranks(shards, 1, masking="cm-gems", seed=6, num_steps=LAG + 10))
    assert digest(plain[: SWITCH + LAG]) == digest(batches[: SWITCH + LAG])
    assert any(
        (a["labels"] != b["labels"]).any() for a, b in zip(plain[SWITCH + LAG :], batches[SWITCH + LAG :], strict=True)
    )
    return digest(batches)


@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_a_stage_switches_at_the_same_step_for_every_number_of_ranks_and_workers(
    shards, switched_inline, num_ranks, num_workers
):
    start = "fork" if num_workers else None
    assert digest(switched(shards, num_ranks, num_workers=num_workers, start_method=start)) == switched_inline


@pytest.mark.parametrize("prefetch_factor", [1, 2, 5, 16])
def test_a_stage_switches_at_the_same_step_for_every_prefetch_depth(shards, switched_inline, prefetch_factor):
    options = {"num_workers": 4, "prefetch_factor": prefetch_factor, "start_method": "fork"}
    assert digest(switched(shards, **options)) == switched_inline
    options = {"num_workers": 4, "prefetch_factor": prefetch_factor, "threads": True}
    assert digest(switched(shards, **options)) == switched_inline


@pytest.mark.compiled
@pytest.mark.parametrize("start_method", [pytest.param("spawn", marks=pytest.mark.slow), "forkserver"])
def test_a_stage_switches_at_the_same_step_for_every_start_method(shards, switched_inline, start_method):
    assert digest(switched(shards, num_workers=2, start_method=start_method)) == switched_inline


def test_the_lag_must_exceed_the_batches_that_are_on_their_way(shards):
    options = {"batch_size": 4, "num_workers": 4, "threads": True, "stage_lag": 8}
    with pytest.raises(ValueError, match="stage_lag = 8 does not exceed the 8 batches"):
        gd.build_loader(shards, masking="cm-gems", prefetch_factor=2, **options)
    loader = gd.build_loader(shards, prefetch_factor=2, **options)
    with pytest.raises(ValueError, match="stage_lag = 8"):
        loader.set_stage(1)


@pytest.mark.parametrize(
    ("num_workers", "stage_lag", "depth"), [(2, 128, 8), (40, 128, 120), (100, 128, 100), (0, 1, 0)]
)
def test_as_many_batches_are_ahead_as_the_lag_allows(shards, num_workers, stage_lag, depth):
    loader = gd.build_loader(shards, batch_size=4, num_workers=num_workers, threads=True, stage_lag=stage_lag)
    assert loader.depth == depth


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_tightest_lag_is_still_exact(shards, num_workers):
    """Switch after every batch, the lag one more than the depth: each batch has the stage set 5 batches before."""
    options = {"num_workers": num_workers, "start_method": "fork" if num_workers else None, "stage_lag": 5}
    loader = gd.build_loader(shards, batch_size=4, masking="randommask", num_steps=300, **options)
    rng = random.Random(0)
    wanted = {}
    for batch in loader:
        assert batch["stage"] == wanted.get(batch["step"], 0)
        stage = rng.randrange(4)
        assert loader.set_stage(stage) == batch["step"] + 5
        wanted[batch["step"] + 5] = stage


def test_a_schedule_known_in_advance_needs_no_flag(shards):
    options = {"masking": "cm-step", "num_steps": 40, "seed": 5}
    whole = global_batches(loaders_of_ranks(shards, 1, **options))
    stages = [batch["stage"] for batch in whole]
    assert stages == [gd.CMStep(num_steps=40).stage(step, 0, 5) for step in range(40)]
    assert set(stages) == {0, 1}
    assert digest(global_batches(loaders_of_ranks(shards, 2, num_workers=2, start_method="fork", **options))) == digest(
        whole
    )
    with pytest.raises(ValueError, match="has a fixed schedule"):
        loaders_of_ranks(shards, 1, **options)[0].set_stage(1)


def test_observing_drives_cm_gems(shards):
    loader = gd.build_loader(shards, batch_size=4, masking="cm-gems", stage_lag=5, num_steps=30)
    stages = []
    for batch in loader:
        stages.append(batch["stage"])
        if batch["step"] % 5 == 4:
            loader.observe({4: 90.0, 9: 70.0, 14: 69.5}.get(batch["step"], 10.0))
    assert stages == [0] * 19 + [1] * 11
    assert loader.stage == 1


def test_a_stage_log_only_grows_and_says_when_it_is_full():
    log = StageLog()
    assert log.at(10) == 0
    log.append(5, 1)
    log.append(5, 2)
    log.append(9, 0)
    assert [log.at(step) for step in (4, 5, 8, 9, 10**12)] == [0, 2, 2, 0, 0]
    with pytest.raises(ValueError, match="only grows"):
        log.append(8, 1)
    log.restore([(step, 1) for step in range(CAPACITY)])
    with pytest.raises(ValueError, match="full"):
        log.append(CAPACITY, 0)


RANK_SCRIPT = """
import sys, torch.distributed as dist
import gemsdata as gd
dist.init_process_group("gloo")
loader = gd.build_loader(sys.argv[1], batch_size=4, masking="cm-gems", stage_lag=6, num_steps=30)
assert (loader.stream.config.world.rank, loader.stream.config.world.num_ranks) == (dist.get_rank(), 2)
stages = []
for batch in loader:
    stages.append(batch["stage"])
    if batch["step"] == 9:
        loader.set_stage(1 - dist.get_rank())  # rank 0 decides
    if batch["step"] == 20:
        loader.observe([40.0, 90.0][dist.get_rank()])
        loader.observe([39.9, 10.0][dist.get_rank()])
assert stages == [0] * 15 + [1] * 15, stages
states = [None, None]
dist.all_gather_object(states, loader.state_dict())
assert states[0] == states[1] and states[0]["perplexities"][0][1] == 40.0, states
sys.stdout.write(f"world size {dist.get_world_size()}\\n")  # one write: two processes share the pipe
dist.destroy_process_group()
"""


@pytest.mark.compiled
def test_two_ranks_under_gloo_agree(shards, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANK_SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, shards]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("world size 2") == 2
