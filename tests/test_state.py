"""Loader states that are damaged or hostile: one line that names the field, and a loader that is as it was."""

from __future__ import annotations

import copy
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gemsdata as gd
from gemsdata.stream.state import MAX_STEP, STATE_VERSION, LoaderState
from tests.stream_support import make_set

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=80)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def loader(tmp_path_factory):
    shards = make_set(tmp_path_factory.mktemp("state") / "set")
    loader = gd.build_loader(shards, batch_size=7, masking="cm-gems", num_steps=60, stage_lag=9)
    for batch in loader:
        if batch["step"] in (5, 9, 12):
            loader.observe(30.0 - batch["step"])
        if batch["step"] == 15:
            break
    return loader


@pytest.fixture(scope="module")
def good(loader):
    return loader.state_dict()


def test_a_state_survives_json_and_parsing(good):
    assert good["version"] == STATE_VERSION
    assert LoaderState.parse(json.loads(json.dumps(good))).to_dict() == good


def test_a_version_of_many_digits_is_named_shortly(good):
    with pytest.raises(ValueError, match=r"version [0-9]{77}\.\.\.; this gemsdata reads up to 2: upgrade it"):
        LoaderState.parse({**good, "version": 10**600})


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_mutated_state_is_refused_in_one_line_or_loads_as_it_stands(loader, good, data):
    state = copy.deepcopy(good)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(sorted(state) or ["version"]))
        match data.draw(st.sampled_from(["replace", "remove", "add", "within"])):
            case "replace":
                state[place] = data.draw(ANYTHING)
            case "remove":
                state.pop(place, None)
            case "add":
                state[data.draw(st.text(max_size=8))] = data.draw(ANYTHING)
            case "within" if isinstance(state.get(place), list) and state[place]:
                entry = state[place][data.draw(st.integers(0, len(state[place]) - 1))]
                if isinstance(entry, list) and entry:
                    entry[data.draw(st.integers(0, len(entry) - 1))] = data.draw(ANYTHING)
    before = loader.state_dict()
    message = refusal(loader, state)
    if message is not None:
        assert message
        assert "\n" not in message
        assert len(message) < 400
        assert loader.state_dict() == before  # nothing of it was taken
        return
    loaded = loader.state_dict()
    state["perplexities"] = [[step, float(value)] for step, value in state["perplexities"]]
    for name in loaded.keys() - {"version"}:
        assert json.dumps(loaded[name]) == json.dumps(state[name]), name
    assert next(iter(loader), loaded)["step"] == loaded["step"]
    loader.load_state_dict(good)


def refusal(loader, state) -> str | None:
    try:
        loader.load_state_dict(state)
    except ValueError as error:
        return str(error)
    return None


@given(ANYTHING)
@settings(max_examples=100, deadline=None)
def test_what_is_no_state_at_all_is_refused(loader, anything):
    with pytest.raises(ValueError, match="state"):
        loader.load_state_dict(anything)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2"}, "has version '2'"),
        ({"version": STATE_VERSION + 1}, "upgrade it"),
        ({"step": -1}, r"has step -1; it should be an integer from 0"),
        ({"step": MAX_STEP}, "has step"),
        ({"step": 3.0}, r"has step 3\.0"),
        ({"step": True}, "has step True"),
        ({"stage_log": [[5, 1], [4, 0]]}, "its steps should not decrease"),
        ({"stage_log": [[5, -1]]}, "has stage_log -1"),
        ({"stage_log": [[0, 0]] * 2000}, "2000 entries in stage_log; at most 1024"),
        ({"stage_log": [5, 1]}, "it should be a list of pairs"),
        ({"perplexities": [[3, "x"]]}, "has perplexities 'x'; it should be a number"),
        ({"fingerprint": "a\nb"}, r"has fingerprint 'a\\nb'; it should be a hash"),
        ({"seed": 10**5000}, "has seed a int"),
    ],
)
def test_a_field_that_is_wrong_is_named(good, change, message):
    with pytest.raises(ValueError, match=message):
        LoaderState.parse({**good, **change})


def test_a_state_of_version_1_is_still_read(loader, good):
    old = {**good, "version": 1, "recipe": good["config_hash"]}
    del old["config_hash"]
    loader.load_state_dict(old)
    assert loader.state_dict() == good


def test_a_perplexity_may_be_infinite(loader, good):
    state = {**good, "perplexities": [[3, math.inf]]}
    assert LoaderState.parse(json.loads(json.dumps(state))).perplexities == ((3, math.inf),)
