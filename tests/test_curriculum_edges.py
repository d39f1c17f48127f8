"""Curricula, the stage log and the names of both at their limits, against what the definitions say."""

from __future__ import annotations

import copy
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gemsdata as gd
from gemsdata.masking import curriculum as module
from gemsdata.masking import registry
from gemsdata.masking.curriculum import Curriculum, resolve_curriculum, strategy_in_stage
from gemsdata.masking.strategies import Dnabert
from gemsdata.stream.stage_log import CAPACITY, StageLog


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each time that the classes of packages are loaded; loading adds two names."""
    registry.curriculum_names()
    monkeypatch.setattr(registry, "_STRATEGIES", dict(registry._STRATEGIES))
    monkeypatch.setattr(registry, "_CURRICULA", dict(registry._CURRICULA))
    noted: list[str] = []

    def load() -> None:
        noted.append("load")
        registry._STRATEGIES["late-strategy"] = Dnabert
        registry._CURRICULA["late-curriculum"] = gd.CMGems

    monkeypatch.setattr(registry, "_load_all", load)
    return noted


@pytest.mark.once
def test_packages_are_loaded_only_for_a_name_that_is_not_known(loads: list[str]) -> None:
    assert registry.is_curriculum("cm-gems")
    assert not registry.is_curriculum("genemask")
    assert registry.find_strategy("dnabert") is Dnabert
    assert registry.find_curriculum("cm-step") is gd.CMStep
    assert "late-strategy" not in registry.names(plugins=False)
    assert not loads
    assert registry.is_curriculum("late-curriculum")
    assert len(loads) == 1
    assert not registry.is_curriculum("late-strategy")
    assert not registry.is_curriculum("nothing")
    assert len(loads) == 2


@pytest.mark.once
def test_a_name_that_a_package_brings_is_found(loads: list[str]) -> None:
    assert registry.find_strategy("late-strategy") is Dnabert
    assert registry.find_curriculum("late-curriculum") is gd.CMGems
    assert len(loads) == 1


@pytest.mark.once
def test_all_names_are_those_of_packages_too(loads: list[str]) -> None:
    assert "late-strategy" in registry.names()
    assert "late-curriculum" in registry.curriculum_names()
    assert len(loads) == 2


@pytest.mark.once
def test_the_nearest_name_is_told_or_none(loads: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^masking 'late-strateg' is unknown \(did you mean 'late-strategy'\?\): use"):
        registry.find_strategy("late-strateg")
    with pytest.raises(ValueError, match=r"^curriculum 'q' is unknown: use a strategy \(random-token"):
        registry.find_curriculum("q")
    with pytest.raises(ValueError, match="'cm-gems' is a curriculum"):
        registry.find_strategy("cm-gems")


class Entry(SimpleNamespace):
    """An entry point: its name, its value, and what loading it does."""

    def load(self) -> Any:
        return self.loaded()


@pytest.mark.once
def test_classes_of_packages_get_their_name_and_broken_ones_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    strategies, curricula = dict(registry._STRATEGIES), dict(registry._CURRICULA)
    monkeypatch.setattr(registry, "_STRATEGIES", strategies)
    monkeypatch.setattr(registry, "_CURRICULA", curricula)
    kinds: dict[str, type] = {"New": type("New", (Dnabert,), {}), "Own": type("Own", (Dnabert,), {})}

    def own() -> type:
        return registry.register("own-name")(kinds["Own"])

    def fail(text: str) -> Any:
        raise RuntimeError(text)

    plan = type("Plan", (Curriculum,), {})
    entries = {
        registry.STRATEGY_GROUP: [
            Entry(name="new", value="a:New", loaded=lambda: kinds["New"]),
            Entry(name="entry-name", value="a:Own", loaded=own),
            Entry(name="broken", value="a:B", loaded=lambda: fail("first line\nsecond line")),
            Entry(name="silent", value="a:S", loaded=lambda: fail("")),
        ],
        registry.CURRICULUM_GROUP: [Entry(name="plan", value="a:Plan", loaded=lambda: plan)],
    }
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: entries[group])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registry._load_all.__wrapped__()
    assert {name: cls for name, cls in strategies.items() if cls in kinds.values()} == {
        "new": kinds["New"],
        "own-name": kinds["Own"],
    }
    assert curricula["plan"] is plan
    assert [str(warning.message) for warning in caught] == [
        "plug-in broken = a:B is ignored: first line",
        "plug-in silent = a:S is ignored: RuntimeError",
    ]
    assert {(warning.category, warning.filename) for warning in caught} == {(RuntimeWarning, __file__)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which Python does not search; modules of it are forgotten at the end."""
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.once
def test_modules_of_the_current_folder_are_found_last(folder: Path) -> None:
    (folder / "edge_masks").mkdir()
    (folder / "edge_masks" / "inner.py").write_text("VALUE = 3\n")
    before = list(sys.path)
    registry.load_plugins(["json", "os.path"])
    assert sys.path == before
    registry.load_plugins(["edge_masks.inner"])
    assert sys.modules["edge_masks.inner"].VALUE == 3
    assert sys.path == [os.getcwd(), *before]


@pytest.mark.once
def test_a_module_that_imports_a_missing_one_names_that(folder: Path) -> None:
    (folder / "found").mkdir()
    (folder / "found" / "edge_needy.py").write_text("import edge_absent\n")
    sys.path.append(str(folder / "found"))
    before = list(sys.path)
    with pytest.raises(ValueError, match="module 'edge_needy' cannot be imported: No module named 'edge_absent'"):
        registry.load_plugins(["edge_needy"])
    assert sys.path == before
    sys.path.append(os.getcwd())
    with pytest.raises(ValueError, match="module 'edge_none' cannot be imported: No module named 'edge_none'"):
        registry.load_plugins(["edge_none"])
    assert sys.path == [*before, os.getcwd()]


@pytest.mark.once
def test_of_an_error_in_a_module_the_first_line_is_told_or_its_kind(folder: Path) -> None:
    (folder / "edge_long.py").write_text("raise OSError('one\\ntwo')\n")
    (folder / "edge_short.py").write_text("raise OSError\n")
    with pytest.raises(ValueError, match=r"^module 'edge_long' cannot be imported: one$"):
        registry.load_plugins(["edge_long"])
    with pytest.raises(ValueError, match=r"^module 'edge_short' cannot be imported: OSError$"):
        registry.load_plugins(["edge_short"])


def test_cm_step_never_draws_what_has_probability_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "draw", lambda key, counter: 0)
    for curriculum in (gd.CMStep(num_steps=100), gd.CMStepReleased(num_steps=100)):
        assert curriculum.stage(0, 1, 3) == 0
        assert curriculum.stage(50, 0, 3) == 1


def test_a_seed_draws_the_same_stages_in_every_version() -> None:
    """When this fails on purpose, saved states no longer continue as they began."""
    for curriculum, seed, stages in (
        (gd.CMStep(num_steps=40), 5, "0000010100000010111011111010101110111111"),
        (gd.CMStepReleased(num_steps=40), 6, "0000000011001000100000010110001011111111"),
    ):
        assert "".join(str(curriculum.stage(step, 0, seed)) for step in range(40)) == stages


@pytest.mark.once
def test_cm_step_goes_from_0_to_1_in_ten_parts() -> None:
    curriculum = gd.CMStep(num_steps=100)
    steps = (0, 9, 10, 19, 20, 89, 90, 99, 100, 5000)
    assert [9 * curriculum.hard_probability(step) for step in steps] == [0, 0, 1, 1, 2, 8, 9, 9, 9, 9]
    assert gd.CMStep(num_steps=1).hard_probability(0) == 0
    assert gd.CMStepReleased(num_steps=7).hard_probability(3) == 0.42
    assert gd.CMStepReleased(num_steps=7).hard_probability(50) == 1
    with pytest.raises(ValueError, match="num_steps = 0; give the length of the run"):
        gd.CMStep(num_steps=0)
    assert curriculum.describe()["num_steps"] == 100


@pytest.mark.once
def test_steps_need_rising_boundaries_one_fewer_than_stages() -> None:
    assert gd.Steps(stages=("dnabert",), boundaries=()).stage(99, 1, 0) == 0
    curriculum = gd.Steps(stages=("dnabert", "global", "genemask"), boundaries=(0, 1))
    assert [curriculum.stage(step, 0, 0) for step in range(3)] == [1, 2, 2]
    assert curriculum.describe()["boundaries"] == [0, 1]
    assert [masking.budget for masking in curriculum.with_options(budget=0.2).maskings()] == [0.2] * 3
    for stages, boundaries in ((("dnabert",), (1,)), (("dnabert",) * 3, (2, 1)), (("dnabert",) * 3, (1, 1))):
        with pytest.raises(ValueError, match="give rising steps, one fewer than stages"):
            gd.Steps(stages=stages, boundaries=boundaries)


@pytest.mark.once
def test_a_name_and_a_length_make_a_curriculum() -> None:
    steps = gd.Steps(stages=("dnabert",), boundaries=())
    assert resolve_curriculum("genemask", steps) is steps
    assert resolve_curriculum("constant") == gd.Constant(masking="genemask")
    assert resolve_curriculum(Dnabert()) == gd.Constant(masking=Dnabert())
    assert resolve_curriculum("dnabert", num_steps=3) == gd.Constant(masking="dnabert")
    assert resolve_curriculum("cm-gems", num_steps=3) == gd.CMGems()
    for name, message in (("cm-step", "needs the length of the run"), ("steps", "needs its stages")):
        with pytest.raises(ValueError, match=message):
            resolve_curriculum(name)
    assert gd.CMGems().with_options(budget=0.1).maskings() == (gd.GeneMask(budget=0.1), gd.GlobalMask(budget=0.1))
    assert gd.CMGems(threshold=2.5).describe()["threshold"] == 2.5


@pytest.mark.once
def test_the_masking_of_a_stage_is_that_of_the_curriculum_or_the_strategy_itself() -> None:
    assert [strategy_in_stage("cm-gems", stage).name for stage in (0, 1, 2, 9)] == ["genemask"] + ["global"] * 3
    assert [strategy_in_stage("cm-step", stage).name for stage in (0, 1)] == ["genemask", "global"]
    assert strategy_in_stage("cm-gems").name == "genemask"
    assert strategy_in_stage("dnabert", 3, budget=0.2) == Dnabert(budget=0.2)
    assert strategy_in_stage(Dnabert(), 3, budget=0.2) == Dnabert(budget=0.2)
    assert strategy_in_stage("cm-gems", 1, budget=0.2) == gd.GlobalMask(budget=0.2)


@pytest.mark.once
def test_a_stage_log_holds_what_was_appended() -> None:
    log = StageLog()
    assert log.entries() == []
    for entry in ((0, 3), (2, 1), (2, 4), (7, 2)):
        log.append(*entry)
    assert log.entries() == [(0, 3), (2, 1), (2, 4), (7, 2)]
    assert [log.at(step) for step in range(9)] == [3, 3, 4, 4, 4, 4, 4, 2, 2]
    log.restore([(1, 5)])
    assert log.entries() == [(1, 5)]
    assert [log.at(step) for step in range(3)] == [0, 5, 5]
    log.restore([])
    assert log.entries() == []
    assert log.at(4) == 0


@pytest.mark.once
def test_a_stage_log_has_room_for_its_capacity_and_no_more() -> None:
    log = StageLog()
    log.restore([(step, step % 5) for step in range(CAPACITY - 1)])
    log.append(CAPACITY - 1, 7)
    assert len(log.entries()) == CAPACITY
    assert log.at(CAPACITY) == 7
    assert log.at(CAPACITY - 2) == (CAPACITY - 2) % 5
    with pytest.raises(ValueError, match=f"the stage log is full \\({CAPACITY} switches\\)"):
        log.append(CAPACITY, 0)
    with pytest.raises(ValueError, match=f"stage entry at step 5 after one at {CAPACITY - 1}: a log only grows"):
        log.append(5, 0)


@pytest.mark.once
def test_a_copy_of_a_stage_log_is_marked_and_one_for_a_worker_sees_later_entries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = StageLog()
    log.append(1, 2)
    copied = copy.deepcopy(log)
    assert copied.detached
    assert not log.detached
    for use in (lambda: copied.at(1), lambda: copied.append(2, 1), lambda: copied.restore([])):
        with pytest.raises(RuntimeError, match="this stage log is a copy"):
            use()
    monkeypatch.setattr("multiprocessing.context.get_spawning_popen", lambda: "a worker is being started")
    handed = StageLog.__new__(StageLog)
    handed.__setstate__(log.__getstate__())
    assert not handed.detached
    log.append(4, 6)
    assert handed.entries() == [(1, 2), (4, 6)]
    assert handed.at(4) == 6
