"""What travels comes back, and a batch that would reach outside its rows is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemsdata.flight.wire import from_arrow, refusal, refusal_of, schema_of, to_arrow
from gemsdata.kernels.mask import UNMASKED
from gemsdata.kernels.sparse import pack
from gemsdata.packing import BatchLayout
from gemsdata.stream import BatchInfo

INFO = BatchInfo(step=2**40, epoch=3, stage=1, num_skipped=2, why_skipped="shard ä is missing")


def filled(seed: int, num_rows: int, width: int, dtypes: tuple[str, str]) -> tuple[BatchLayout, np.ndarray]:
    """A batch of random ids, lengths and labels; some rows without labels, some all labels."""
    layout = BatchLayout(num_rows=num_rows, width=width, id_dtype=dtypes[0], label_dtype=dtypes[1])
    rng = np.random.default_rng(seed)
    buffer = np.zeros(layout.num_bytes, np.uint8)
    views = layout.views(buffer)
    top = np.iinfo(dtypes[1]).max
    views["input_ids"][:] = rng.integers(0, min(top, np.iinfo(dtypes[0]).max), (num_rows, width), endpoint=True)
    views["sample_ids"][:] = rng.integers(-1, 2**62, num_rows)
    views["attention_mask"][:] = np.arange(width) < rng.integers(2, width, (num_rows, 1), endpoint=True)
    share = rng.choice([0, 0.15, 1], (num_rows, 1))
    labels = rng.integers(0, min(top, np.iinfo(dtypes[0]).max), (num_rows, width), endpoint=True)
    views["labels"][:] = np.where(rng.random((num_rows, width)) < share, labels, UNMASKED)
    return layout, buffer


@given(
    st.integers(0, 2**32),
    st.integers(1, 9),
    st.integers(2, 40),
    st.sampled_from([("uint16", "int16"), ("uint16", "int32"), ("uint32", "int32")]),
)
def test_a_batch_comes_back_as_it_was(seed, num_rows, width, dtypes):
    layout, buffer = filled(seed, num_rows, width, dtypes)
    batch, told = to_arrow(layout, buffer, INFO)
    batch.validate(full=True)
    again = np.full(layout.num_bytes, 0xAA, np.uint8)
    assert from_arrow(batch, told, layout, again) == INFO
    for name, view in layout.views(buffer).items():
        np.testing.assert_array_equal(layout.views(again)[name], view, err_msg=name)


def test_pack_is_its_naive_twin():
    layout, buffer = filled(5, 7, 20, ("uint16", "int16"))
    views = layout.views(buffer)
    ends, length = np.empty(8, np.int32), np.empty(7, np.uint16)
    position, token_id = np.empty(141, np.uint16), np.empty(141, np.uint16)
    pack(views["labels"], views["attention_mask"], ends, position, token_id, length)
    rows, expected = np.nonzero(views["labels"] != UNMASKED)
    assert ends.tolist() == [int((rows < i).sum()) for i in range(8)]
    assert position[: ends[-1]].tolist() == expected.tolist()
    assert token_id[: ends[-1]].tolist() == views["labels"][rows, expected].tolist()
    assert length.tolist() == views["attention_mask"].sum(axis=1).tolist()


def changed_column(batch: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    columns = [values if field.name == name else batch.column(field.name) for field in batch.schema]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def lists(batch: pa.RecordBatch, ends: list[int], values: list[int]) -> pa.Array:
    kind = batch.schema.field("masked_pos").type
    offsets = pa.py_buffer(np.array(ends, np.int32))
    return pa.Array.from_buffers(kind, len(ends) - 1, [None, offsets], children=[pa.array(values, pa.uint16())])


@pytest.mark.parametrize(
    ("ends", "values"),
    [([0, 1, 2], [3, 20]), ([0, 2, 1], [1, 2])],
)
def test_positions_outside_the_rows_are_refused(ends, values):
    layout, buffer = filled(1, 2, 20, ("uint16", "int16"))
    batch, told = to_arrow(layout, buffer, INFO)
    with pytest.raises(ValueError, match="masked positions lie outside its rows; the server is broken"):
        from_arrow(changed_column(batch, "masked_pos", lists(batch, ends, values)), told, layout, buffer)
    long = changed_column(batch, "num_tokens", pa.array([3, 65_535], pa.uint16()))
    with pytest.raises(ValueError, match="the server is broken"):
        from_arrow(long, told, layout, buffer)


def test_a_batch_of_another_shape_is_refused():
    layout, buffer = filled(1, 2, 20, ("uint16", "int16"))
    other, _ = filled(1, 3, 20, ("uint16", "int16"))
    batch, told = to_arrow(layout, buffer, INFO)
    with pytest.raises(ValueError, match=r"a batch of 2 rows came .*; wanted were 3 rows of 20 tokens"):
        from_arrow(batch, told, other, other.empty())
    wide = BatchLayout(num_rows=2, width=21, id_dtype="uint16", label_dtype="int16")
    assert schema_of(wide) != batch.schema
    with pytest.raises(ValueError, match="wanted were 2 rows of 21 tokens"):
        from_arrow(batch, told, wide, wide.empty())


def test_only_mistakes_are_refusals():
    for error in (ValueError("a ü b"), FileNotFoundError("gone")):
        again = refusal_of(refusal(error))
        assert (type(again), str(again)) == (type(error), str(error))
    assert len(str(refusal(ValueError("x" * 10_000)))) < 3000
    assert refusal_of(ValueError("other")) is None
    assert refusal_of(ConnectionError("lost")) is None
