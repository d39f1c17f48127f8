"""Batches round-trip through the codec, and a batch that would reach outside its rows is rejected."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemsdata.kernels.compact import HIDDEN, KEPT, LISTED, SHOWN, CompactRows, ListedTokens, compress, expand
from gemsdata.kernels.corrupt import UNMASKED
from gemsdata.kernels.special_ids import MASK_ID
from gemsdata.service.codec import ArrayCodec, KmerCodec, codec_of, original_error, remote_error
from gemsdata.stream.batch import BatchArray, BatchLayout
from gemsdata.stream.source import BatchInfo
from gemsdata.stream.stream import COORDINATES

INFO = BatchInfo(step=2**40, epoch=3, stage=1, num_skipped=2, why_skipped="shard ä is missing")
KINDS = {1: ("uint16", "int16"), 6: ("uint16", "int16"), 8: ("uint32", "int32")}


def kmer_codec(num_rows: int, width: int, k: int) -> KmerCodec:
    id_dtype, label_dtype = KINDS[k]
    layout = BatchLayout.masked_lm(num_rows=num_rows, width=width, id_dtype=id_dtype, label_dtype=label_dtype)
    codec = codec_of(layout, f"kmer:{k}:1")
    assert isinstance(codec, KmerCodec)
    return codec


def filled(codec: KmerCodec, seed: int, share_strange: float = 0.2) -> np.ndarray:
    """A batch of rows of any length, empty ones too, masked to any degree; some ids are not those of a sequence."""
    rng = np.random.default_rng(seed)
    layout, k = codec.layout, codec.k
    buffer = np.zeros(layout.num_bytes, np.uint8)
    views = layout.views(buffer)
    views["labels"][:] = UNMASKED
    views["sample_ids"][:] = rng.integers(-1, 2**62, layout.num_rows)
    for i in range(layout.num_rows):
        tokens = int(rng.integers(0, layout.width - 2, endpoint=True))
        bases = rng.integers(0, 4, tokens + k - 1)
        ids = np.array([int("".join(map(str, bases[t : t + k])), 4) + 5 for t in range(tokens)], np.int64)
        strange = rng.random(tokens) < share_strange * (rng.random() < 0.3)
        ids[strange] = rng.integers(0, 4**k + 5, strange.sum())
        masked = rng.random(tokens) < rng.choice([0, 0.15, 1])
        state = rng.random(tokens)
        seen = np.where(masked & (state < 0.8), MASK_ID, ids)
        seen = np.where(masked & (state > 0.9), rng.integers(0, 4**k + 5, tokens), seen)
        views["input_ids"][i, : tokens + 2] = [2, *seen, 3]
        views["labels"][i, 1 : tokens + 1] = np.where(masked, ids, UNMASKED)
        views["attention_mask"][i, : tokens + 2] = 1
    return buffer


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 3), st.integers(2, 40), st.sampled_from([1, 6, 8]))
def test_batches_round_trip(seed, num_rows, num_batches, width, k):
    codec = kmer_codec(num_rows, width, k)
    buffers = [filled(codec, seed + n) for n in range(num_batches)]
    batch, metadata = codec.encode([(buffer, INFO) for buffer in buffers], num_batches)
    batch.validate(full=True)
    decoded = codec.decode(batch, metadata)
    assert [info for _, info in decoded] == [INFO] * num_batches
    for buffer, (pending, _) in zip(buffers, decoded, strict=True):
        wide = {name: np.full(shape, -7, np.int64) for name, (_, shape, _) in codec.layout.fields.items()}
        pending.write(wide)
        narrow = codec.layout.views(pending.to_buffer())
        for name, view in codec.layout.views(buffer).items():
            np.testing.assert_array_equal(narrow[name], view, err_msg=name)
            np.testing.assert_array_equal(wide[name], view, err_msg=name)


@pytest.mark.once
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 3), st.integers(2, 30))
def test_any_arrays_round_trip(seed, num_rows, num_batches, width):
    layout = BatchLayout.masked_lm(
        num_rows=num_rows,
        width=width,
        id_dtype="uint32",
        label_dtype="int32",
        extra=(BatchArray(name="loss_weights", row_shape=(width,), dtype="float16"), *COORDINATES),
    )
    codec = codec_of(layout, "kmer:6:6")
    assert isinstance(codec, ArrayCodec)
    plain = kmer_codec(num_rows, width, 8).layout
    assert isinstance(codec_of(plain, "kmer:10:1"), ArrayCodec), "16 bits have room for 8 bases before the last"
    rng = np.random.default_rng(seed)
    buffers = []
    for _ in range(num_batches):
        buffers.append(np.zeros(layout.num_bytes, np.uint8))
        for array in layout.views(buffers[-1]).values():
            array[...] = rng.integers(0, 100, array.shape)
    batch, metadata = codec.encode([(buffer, INFO) for buffer in buffers], num_batches)
    batch.validate(full=True)
    for buffer, (pending, info) in zip(buffers, codec.decode(batch, metadata), strict=True):
        assert info == INFO
        wide = {
            name: np.zeros(field.shape, np.float32 if field.dtype.kind == "f" else np.int64)
            for name, field in layout.fields.items()
        }
        pending.write(wide)
        narrow = layout.views(pending.to_buffer())
        for name, view in layout.views(buffer).items():
            np.testing.assert_array_equal(narrow[name], view, err_msg=name)
            np.testing.assert_array_equal(wide[name], view, err_msg=name)
    with pytest.raises(ValueError, match=r"expected .* rows of .* tokens each"):
        codec.decode(batch.slice(1), metadata)


def test_a_row_of_512_tokens_takes_a_quarter_of_its_narrow_bytes():
    codec = kmer_codec(16, 512, 6)
    batch, _ = codec.encode([(filled(codec, 3, share_strange=0), INFO)], 1)
    assert batch.nbytes / 16 < codec.layout.num_bytes / 16 / 4


def compressed(codec: KmerCodec, buffer: np.ndarray) -> dict[str, np.ndarray]:
    views, num_rows = codec.layout.views(buffer), codec.layout.num_rows
    fours, most = (num_rows, -(-(codec.layout.width - 2) // 4)), num_rows * codec.layout.width
    bits = [np.empty(fours, np.uint8) for _ in range(2)]
    rows = CompactRows(np.empty(num_rows, np.uint16), np.empty(num_rows, np.uint16), *bits)
    listed = ListedTokens(*(np.empty(most, codec.layout.fields[name].dtype) for name in ("input_ids", "labels")))
    ends = np.zeros(num_rows + 1, np.int32)
    compress(views["input_ids"], views["labels"], views["attention_mask"], codec.k, rows, listed, ends)
    return {**rows._asdict(), **listed._asdict(), "ends": ends}


@pytest.mark.parametrize("k", [6, 8])
def test_compress_is_its_naive_twin(k):
    """Read the bits as the module's first lines define them."""
    codec = kmer_codec(40, 23, k)
    buffer = filled(codec, 5)
    views, out = codec.layout.views(buffer), compressed(codec, buffer)
    listed = []
    for i in range(40):
        tokens = int(views["attention_mask"][i].sum()) - 2
        seen, label = (views[name][i, 1 : tokens + 1].tolist() for name in ("input_ids", "labels"))
        bits = ["".join(f"{byte:08b}" for byte in out[name][i]) for name in ("bases", "token_states")]
        last, states = ([int(text[2 * t : 2 * t + 2], 2) for t in range(len(text) // 2)] for text in bits)
        bases = [int(out["head"][i]) >> 2 * (k - 2 - b) & 3 for b in range(k - 1)] + last
        assert out["tokens"][i] == tokens
        assert not any(last[tokens:] + states[tokens:])
        for t in range(tokens):
            token_id = 5 + int("".join(map(str, bases[t : t + k])), 4)
            expected = {SHOWN: (token_id, UNMASKED), HIDDEN: (MASK_ID, token_id), KEPT: (token_id, token_id)}
            if states[t] == LISTED:
                listed.append((seen[t], label[t]))
            else:
                assert (seen[t], label[t]) == expected[states[t]]
        assert out["ends"][i + 1] == len(listed)
    assert listed == list(zip(out["ids"].tolist(), out["labels"].tolist(), strict=True))[: len(listed)]


def test_only_random_replacements_are_listed():
    codec = kmer_codec(40, 60, 6)
    buffer = filled(codec, 7, share_strange=0)
    views, out = codec.layout.views(buffer), compressed(codec, buffer)
    replaced = (views["labels"] != UNMASKED) & (views["input_ids"] != MASK_ID) & (views["input_ids"] != views["labels"])
    assert out["ends"][-1] == replaced.sum() > 0


@given(st.integers(0, 2**32), st.integers(2, 21))
def test_expand_stays_within_its_arrays_whatever_it_is_given(seed, width):
    rng = np.random.default_rng(seed)
    fours = (3, -(-(width - 2) // 4))
    rows = CompactRows(
        rng.integers(0, width - 2, 3, dtype=np.uint16, endpoint=True),
        rng.integers(0, 2**16, 3, dtype=np.uint16),
        *(rng.integers(0, 2**8, fours, dtype=np.uint8) for _ in range(2)),
    )
    listed = ListedTokens(np.full(2, 77, np.uint16), np.full(2, 88, np.int16))
    guarded = [np.full((5, width), -7, np.int64) for _ in range(3)]
    count = expand(rows, listed, 6, *(array[1:4] for array in guarded))
    states = [rows.token_states[i, t // 4] >> 6 - 2 * (t % 4) & 3 for i in range(3) for t in range(rows.tokens[i])]
    assert count == states.count(LISTED)
    for array in guarded:
        assert (array[[0, 4]] == -7).all()
        assert (array[1:4] != -7).all()


def changed_column(batch: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    columns = [values if field.name == name else batch.column(field.name) for field in batch.schema]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def listed(batch: pa.RecordBatch, ends: list[int], num_values: int) -> pa.Array:
    kind = batch.schema.field("listed").type
    values = [pa.array([9] * num_values, field.type) for field in kind.value_type]
    items = pa.StructArray.from_arrays(values, fields=list(kind.value_type))
    offsets = pa.py_buffer(np.array(ends, np.int32))
    return pa.Array.from_buffers(kind, len(ends) - 1, [None, offsets], children=[items])


def test_a_batch_that_reaches_outside_its_rows_is_rejected():
    codec = kmer_codec(2, 20, 6)
    buffer = filled(codec, 1, share_strange=0)
    views = codec.layout.views(buffer)
    views["input_ids"][0, 1], views["labels"][0, 1] = 7, 8  # a token that is listed
    views["attention_mask"][0] = np.arange(20) < 3
    batch, metadata = codec.encode([(buffer, INFO)] * 2, 2)
    long = changed_column(batch, "num_tokens", pa.array([3, 19, 0, 0], pa.uint16()))
    with pytest.raises(ValueError, match="received a row of 19 tokens; the server is broken"):
        codec.decode(long, metadata)
    ends = batch.column("listed").offsets.to_numpy()
    sent = batch.serialize().to_pybytes()
    assert sent.count(ends.tobytes()) == 1
    sent = sent.replace(ends.tobytes(), np.append(ends[:-1], np.int32(1000)).tobytes())
    with pytest.raises(ValueError, match=r"received an invalid record batch \(.*\); the server is broken") as caught:
        codec.decode(pa.ipc.read_record_batch(pa.py_buffer(sent), batch.schema), metadata)
    assert type(caught.value) is ValueError, "a client would retry"
    for ends in ([0, 30, 30, 30, 30], [0, 30, -9, 40, 30], [0, 0, 2**31 - 1, 0, 30]):
        batches = codec.decode(changed_column(batch, "listed", listed(batch, ends, 30)), metadata)
        with pytest.raises(ValueError, match=r"listed tokens, its rows have .*; the server is broken"):
            [pending.to_buffer() for pending, _ in batches]


def test_a_batch_of_another_shape_is_rejected():
    codec = kmer_codec(2, 20, 6)
    batch, metadata = codec.encode([(filled(codec, 1), INFO)], 1)
    with pytest.raises(ValueError, match=r"received 1 batches with 2 rows .*; expected 3 rows of 20 tokens"):
        kmer_codec(3, 20, 6).decode(batch, metadata)
    wide = kmer_codec(2, 30, 6)
    assert wide.schema != batch.schema
    with pytest.raises(ValueError, match="expected 2 rows of 30 tokens"):
        wide.decode(batch, metadata)


def test_only_remote_errors_are_raised_again():
    for error in (ValueError("a ü b"), FileNotFoundError("gone")):
        again = original_error(remote_error(error))
        assert (type(again), str(again)) == (type(error), str(error))
    assert len(str(remote_error(ValueError("x" * 10_000)))) < 3000
    assert original_error(ValueError("other")) is None
    assert original_error(ConnectionError("lost")) is None
