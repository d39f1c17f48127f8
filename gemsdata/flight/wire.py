"""What travels: a batch as one Arrow record batch, and errors that a client can tell apart.

A batch goes as ``input_ids`` (lists of fixed size, [CLS] and [SEP] included), ``num_tokens``, ``sample_ids``, and for
each row the masked tokens as two lists: ``masked_pos`` (position in the row, [CLS] is 0) and ``masked_ids`` (what was
there: the labels). Half the bytes of the arrays that it becomes, and receiving bytes is what a client spends most on.
"""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np
import pyarrow as pa
import pyarrow.flight as fl

from gemsdata.kernels.sparse import pack, unpack
from gemsdata.packing import BatchLayout
from gemsdata.stream import BatchInfo

_NUM_ENDS = 2  # [CLS] and [SEP]
_MAX_MESSAGE = 2000


@functools.lru_cache(maxsize=64)
def schema_of(layout: BatchLayout) -> pa.Schema:
    """Return the columns of a batch."""
    ids = pa.field("item", _values(layout.id_dtype), False)
    columns = {
        "input_ids": pa.list_(ids, layout.width),
        "num_tokens": pa.uint16(),
        "sample_ids": pa.int64(),
        "masked_pos": pa.list_(pa.field("item", pa.uint16(), False)),
        "masked_ids": pa.list_(ids),
    }
    return pa.schema([pa.field(name, kind, False) for name, kind in columns.items()])


def to_arrow(layout: BatchLayout, buffer: np.ndarray, info: BatchInfo) -> tuple[pa.RecordBatch, bytes]:
    """Return a filled buffer as a record batch, ids uncopied, and what the batch says of itself as JSON."""
    views = layout.views(buffer)
    rows, size = layout.num_rows, layout.num_rows * layout.width
    ends, position = np.empty(rows + 1, np.int32), np.empty(size + 1, np.uint16)
    token_id, length = np.empty(size + 1, layout.id_dtype), np.empty(rows, np.uint16)
    pack(views["labels"], views["attention_mask"], ends, position, token_id, length)
    schema = schema_of(layout)

    def lists(name: str, values: np.ndarray) -> pa.Array:
        return pa.Array.from_buffers(
            schema.field(name).type, rows, [None, pa.py_buffer(ends)], children=[pa.array(values[: ends[-1]])]
        )

    ids = pa.array(views["input_ids"].reshape(-1))
    columns = [
        pa.Array.from_buffers(schema.field("input_ids").type, rows, [None], children=[ids]),
        pa.array(length - np.uint16(_NUM_ENDS)),
        pa.array(views["sample_ids"]),
        lists("masked_pos", position),
        lists("masked_ids", token_id),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema), json.dumps(dataclasses.asdict(info)).encode()


def from_arrow(batch: pa.RecordBatch, told: bytes, layout: BatchLayout, buffer: np.ndarray) -> BatchInfo:
    """Write a record batch to ``buffer`` (uint8[layout.num_bytes]); raise ValueError when it is not of the layout."""
    if batch.schema != schema_of(layout) or batch.num_rows != layout.num_rows:
        raise ValueError(
            f"a batch of {batch.num_rows} rows came with the columns {', '.join(batch.schema.names)}; wanted were"
            f" {layout.num_rows} rows of {layout.width} tokens; use the same gemsdata on both sides"
        )
    views = layout.views(buffer)
    views["input_ids"][...] = batch.column("input_ids").flatten().to_numpy().reshape(views["input_ids"].shape)
    views["sample_ids"][...] = batch.column("sample_ids").to_numpy()
    ends = batch.column("masked_pos").offsets.to_numpy()
    position, token_id = (batch.column(name).values.to_numpy() for name in ("masked_pos", "masked_ids"))
    length = batch.column("num_tokens").to_numpy().astype(np.int64) + _NUM_ENDS
    if (
        ends[0] < 0
        or (np.diff(ends) < 0).any()
        or ends[-1] > min(position.size, token_id.size)
        or position.max(initial=0) >= layout.width
        or length.max(initial=0) > layout.width
    ):
        raise ValueError("a batch came whose masked positions lie outside its rows; the server is broken")
    unpack(ends, position, token_id, length, views["labels"], views["attention_mask"])
    return BatchInfo(**json.loads(told))


def refusal(error: Exception) -> fl.FlightServerError:
    """Return what a server raises so that the client raises ``error`` again: a mistake, which no retry mends."""
    message = str(error)[:_MAX_MESSAGE]
    kind = "FileNotFoundError" if isinstance(error, FileNotFoundError) else "ValueError"
    return fl.FlightServerError(message, json.dumps({"error": kind, "message": message}).encode())


def refusal_of(error: Exception) -> Exception | None:
    """Return the mistake that a server told of; None when ``error`` is something else, such as a lost connection."""
    try:
        told = json.loads(error.extra_info)  # type: ignore[attr-defined]
        kind = {"FileNotFoundError": FileNotFoundError, "ValueError": ValueError}[told["error"]]
        return kind(told["message"])
    except (AttributeError, ValueError, KeyError, TypeError):
        return None


def _values(dtype: str) -> pa.DataType:
    return pa.from_numpy_dtype(np.dtype(dtype))
