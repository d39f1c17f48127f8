"""Batch requests are parsed strictly: a valid one round-trips, everything else is rejected by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemsdata.masking.registry import names
from gemsdata.masking.strategies import MASKING_VERSION, resolve
from gemsdata.service import batch_request as module
from gemsdata.service.batch_request import FIELDS, BatchRequest
from tests.batch_requests import GOOD, changed

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def read_or_refused(data: bytes) -> None:
    try:
        request = BatchRequest.parse(data)
    except ValueError:
        refused(data)
    else:
        assert BatchRequest.parse(request.to_json()) == request


def refused(data: bytes) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        BatchRequest.parse(data)
    message = str(caught.value)
    assert message.isascii()
    assert len(message) < 1000
    assert "\n" not in message
    return message


@st.composite
def requests(draw):
    num_ranks = draw(st.integers(1, 50))
    first, count = draw(st.integers(0, 2**40 - module.MAX_STEPS)), draw(st.integers(1, module.MAX_STEPS))
    later = draw(st.sets(st.integers(first + 1, first + count), max_size=min(count - 1, 5)))
    return BatchRequest(
        fingerprint=draw(st.text("0123456789abcdef", min_size=64, max_size=64)),
        masking_version=draw(st.integers(0, 2**31 - 1)),
        split=draw(st.sampled_from(["train", "valid"])),
        check=draw(st.sampled_from(["size", "hash"])),
        faults=draw(st.sampled_from(["raise", "skip-and-count"])),
        seed=draw(st.integers(0, 2**64 - 1)),
        shuffle=draw(st.booleans() | st.integers(1, 2**40)),
        remainder=draw(st.sampled_from(["wrap", "pad", "drop"])),
        weights=draw(st.none() | st.lists(st.floats(0, 1e18), min_size=1, max_size=4).map(tuple)),
        global_batch=draw(st.integers(num_ranks, 2**22)),
        rank=draw(st.integers(0, num_ranks - 1)),
        num_ranks=num_ranks,
        reverse_complement=draw(st.floats(0, 1)),
        maskings=tuple(map(resolve, draw(st.lists(st.sampled_from(names()), min_size=1, max_size=4)))),
        ranks=draw(st.none() | st.lists(st.integers(0, 2**16), min_size=1).map(lambda r: np.array(r, "<u4").tobytes())),
        first_step=first,
        num_steps=count,
        stage_log=tuple((step, draw(st.integers(0, 2**31 - 1))) for step in [first, *sorted(later)][:count]),
    )


@given(requests())
def test_a_request_round_trips(request):
    again = BatchRequest.parse(request.to_json())
    assert again == request
    assert again.stream_key() == request.stream_key()


@pytest.mark.parametrize("name", names())
def test_every_masking_travels(name):
    masking = resolve(name, budget=0.15, budget_unit="nucleotide", corruption="span")
    assert BatchRequest.parse(changed(maskings=[masking.describe()])).maskings == (masking,)


def test_the_stage_log_and_the_steps():
    assert list(GOOD.steps()) == list(range(100, 108))
    assert [GOOD.stage(step) for step in GOOD.steps()] == [0] * 4 + [1] * 4


def test_requests_for_one_stream_share_a_key():
    moved = {"first_step": 7, "num_steps": 1, "stage_log": [[0, 5]]}
    assert BatchRequest.parse(changed(**moved)).stream_key() == GOOD.stream_key()
    for change in ({"seed": 3}, {"rank": 1, "num_ranks": 2}, {"shuffle": 1}, {"reverse_complement": 0}):
        assert BatchRequest.parse(changed(**change)).stream_key() != GOOD.stream_key()


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_refused(data):
    refused(data)


@given(anything)
def test_any_json_is_refused(content):
    refused(json.dumps(content).encode())


@given(st.sampled_from([*FIELDS, "version"]), anything)
def test_any_value_of_a_field_is_read_or_refused(name, value):
    data = changed(**{name: value})
    read_or_refused(data)


@given(st.sampled_from([*resolve("randommask").describe(), "further"]), anything)
def test_any_option_of_a_masking_is_read_or_refused(name, value):
    data = changed(maskings=[{**resolve("randommask").describe(), name: value}])
    read_or_refused(data)


@given(st.integers(0, len(GOOD.to_json()) - 1), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(place, byte):
    data = bytearray(GOOD.to_json())
    data[place] = byte
    read_or_refused(bytes(data))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 10**12}, "num_steps = 1000000000000; give a whole number from 1 to 1024"),
        ({"first_step": -1}, "first_step = -1"),
        ({"first_step": 1.0}, "first_step = 1.0; give a whole number"),
        ({"seed": 2**64}, "seed = 18446744073709551616"),
        ({"seed": True}, "seed = True"),
        ({"fingerprint": "0" * 63}, "fingerprint = '0000.*give 64 hex digits"),
        ({"split": "../train"}, "split = '../train'; give one of train, valid"),
        ({"shuffle": 0}, "shuffle .* = 0"),
        ({"rank": 3, "num_ranks": 3}, "rank 3 of 3 in global batches of 256"),
        ({"num_ranks": 300}, "rank 0 of 300"),
        ({"weights": []}, "weights = .*; give a list of 1 to 64"),
        ({"weights": [float("inf")]}, "Infinity is not a JSON number"),
        ({"reverse_complement": 1.5}, "reverse_complement = 1.5"),
        ({"stage_log": [[101, 0]]}, "stage_log has entries at steps .101. for 8 steps from 100"),
        ({"stage_log": [[1, 0], [1, 1]]}, "stage_log has entries"),
        ({"stage_log": [[step, 0] for step in range(9)]}, "stage_log has entries"),
        ({"maskings": ["genemask"]}, "maskings has the entry 'genemask'"),
        ({"maskings": [{"name": "os.system"}]}, "maskings of masking version None"),
        (
            {"maskings": [{"name": "os.system", "masking_version": MASKING_VERSION}]},
            "masking 'os.system' is unknown to this server",
        ),
        ({"maskings": [{"name": "dnabert", "masking_version": 99}]}, "masking version 99; this server has"),
        (
            {"maskings": [{"name": "dnabert", "masking_version": MASKING_VERSION, "k": 6}]},
            "'dnabert' has no option 'k'",
        ),
        (
            {"maskings": [{"name": "dnabert", "masking_version": MASKING_VERSION, "rate": "x"}]},
            "'dnabert' has rate = 'x'; expected",
        ),
        (
            {"maskings": [{"name": "dnabert", "masking_version": MASKING_VERSION, "rate": 7}]},
            "batch request: masking .*rate = 7",
        ),
        ({"ranks": "AAA="}, "ranks has 2 bytes"),
        ({"ranks": "!"}, "ranks = '!'; give the ranks in base64"),
        ({"version": 2}, "batch request of protocol version 2; this server has version 4"),
        ({"version": 1}, "batch request of protocol version 1; this server has version 4: use the same"),
        ({"more": 1}, "unknown fields: 'more'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_errors_name_the_field(changes, message):
    with pytest.raises(ValueError, match=message):
        BatchRequest.parse(changed(**changes))
    refused(changed(**changes))


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field_is_named(name):
    content = json.loads(GOOD.to_json())
    del content[name]
    assert refused(json.dumps(content).encode()) == f"batch request without {name}"


def test_huge_and_deep_requests_are_rejected():
    assert refused(b" " * (module.MAX_BYTES + 1)) == "batch request of 1,048,577 bytes; the limit is 1,048,576"
    refused(b"[" * 100_000)
    refused(b'{"a":' * 100_000)
    refused(b"9" * 100_000)
    refused(b'{"version": 1, "version": 1}')
    refused(b"\x80\x04K\x01.")  # a pickle
    refused(changed(stage_log=[[step, 0] for step in range(2000)]))
