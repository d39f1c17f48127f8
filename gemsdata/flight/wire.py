"""What travels: a batch as one Arrow record batch of narrow columns, and errors that a client can tell apart."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.flight as fl

from gemsdata.packing import BatchLayout
from gemsdata.stream import BatchInfo

_MAX_MESSAGE = 2000


def schema_of(layout: BatchLayout) -> pa.Schema:
    """Return the columns of a batch: lists of fixed size, and int64 sample ids."""
    return pa.schema(
        [
            pa.field(
                name,
                _values(dtype) if len(shape) == 1 else pa.list_(pa.field("item", _values(dtype), False), shape[1]),
                nullable=False,
            )
            for name, (_, shape, dtype) in layout.fields.items()
        ]
    )


def to_arrow(layout: BatchLayout, buffer: np.ndarray, info: BatchInfo) -> tuple[pa.RecordBatch, bytes]:
    """Return a filled buffer as a record batch, uncopied, and what the batch says of itself as JSON."""
    schema = schema_of(layout)
    whole = pa.py_buffer(buffer)
    columns = []
    for field, (offset, shape, dtype) in zip(schema, layout.fields.values(), strict=True):
        size = int(np.prod(shape))
        flat = pa.Array.from_buffers(_values(dtype), size, [None, whole.slice(offset, size * dtype.itemsize)])
        nested = pa.types.is_fixed_size_list(field.type)
        columns.append(pa.Array.from_buffers(field.type, shape[0], [None], children=[flat]) if nested else flat)
    return pa.RecordBatch.from_arrays(columns, schema=schema), json.dumps(dataclasses.asdict(info)).encode()


def from_arrow(batch: pa.RecordBatch, told: bytes, layout: BatchLayout, buffer: np.ndarray) -> BatchInfo:
    """Copy a record batch into ``buffer`` (uint8[layout.num_bytes]); raise ValueError when it is not of the layout."""
    if batch.schema != schema_of(layout) or batch.num_rows != layout.num_rows:
        raise ValueError(
            f"a batch of {batch.num_rows} rows came, {batch.schema.to_string(truncate_metadata=True)!r}; wanted were"
            f" {layout.num_rows} rows of {layout.width} tokens"
        )
    for name, view in layout.views(buffer).items():
        column = batch.column(name)
        values = column.flatten() if view.ndim == 2 else column
        view[...] = values.to_numpy(zero_copy_only=True).reshape(view.shape)
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


def _values(dtype: np.dtype) -> pa.DataType:
    return pa.from_numpy_dtype(dtype)
