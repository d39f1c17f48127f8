"""What travels: batches in Arrow record batches, and errors that a client can tell apart.

Rows go as `gemsdata.kernels.compact` has them: ``num_tokens``, ``head``, ``bases``, ``fates``, the ``listed`` tokens,
and ``sample_ids``. They stay like that in the client until a batch is taken; then one pass writes the arrays that are
wanted.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.flight as fl

from gemsdata.kernels.compact import compress, expand
from gemsdata.stream.batch import BatchLayout
from gemsdata.stream.stream import BatchInfo

_NUM_ENDS = 2  # [CLS] and [SEP]
_MAX_MESSAGE = 2000


@dataclass(frozen=True, kw_only=True)
class Codec:
    """How batches of a layout, of tokens of ``k`` bases, become a record batch, and that becomes parcels."""

    layout: BatchLayout
    k: int

    @functools.cached_property
    def schema(self) -> pa.Schema:
        """Return the columns of a batch."""
        fours = pa.binary(-(-(self.layout.width - _NUM_ENDS) // 4))
        listed = pa.struct([pa.field(name, kind, False) for name, kind in self._listed().items()])
        columns = {
            "num_tokens": pa.uint16(),
            "head": pa.uint16(),
            "bases": fours,
            "fates": fours,
            "sample_ids": pa.int64(),
            "listed": pa.list_(pa.field("item", listed, False)),
        }
        return pa.schema([pa.field(name, kind, False) for name, kind in columns.items()])

    def encode(self, filled: Iterable[tuple[np.ndarray, BatchInfo]], num_batches: int) -> tuple[pa.RecordBatch, bytes]:
        """Return batches as one record batch, and what they say of themselves as JSON, a list of objects.

        ``filled`` yields every batch as a filled buffer, which may be the same one again and again.
        """
        rows = num_batches * self.layout.num_rows
        tokens, head, sample_ids = np.empty(rows, np.uint16), np.empty(rows, np.uint16), np.empty(rows, np.int64)
        bases, fates = (np.empty((rows, self.schema.field("bases").type.byte_width), np.uint8) for _ in range(2))
        ends = np.zeros(rows + 1, np.int32)
        listed = [np.empty(rows * self.layout.width, kind.to_pandas_dtype()) for kind in self._listed().values()]
        infos = []
        for n, (buffer, info) in enumerate(filled):
            views = self.layout.views(buffer)
            own = slice(n * self.layout.num_rows, (n + 1) * self.layout.num_rows)
            compress(
                views["input_ids"],
                views["labels"],
                views["attention_mask"],
                self.k,
                tokens[own],
                head[own],
                bases[own],
                fates[own],
                ends[own.start : own.stop + 1],
                *listed,
            )
            sample_ids[own] = views["sample_ids"]
            infos.append(vars(info))
        kinds = self.schema.types
        items = pa.StructArray.from_arrays(
            [pa.array(values[: ends[-1]].copy()) for values in listed], fields=list(kinds[-1].value_type)
        )
        columns = [
            pa.array(tokens),
            pa.array(head),
            pa.Array.from_buffers(kinds[2], rows, [None, pa.py_buffer(bases)]),
            pa.Array.from_buffers(kinds[3], rows, [None, pa.py_buffer(fates)]),
            pa.array(sample_ids),
            pa.Array.from_buffers(kinds[-1], rows, [None, pa.py_buffer(ends)], children=[items]),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema), json.dumps(infos).encode()

    def decode(self, batch: pa.RecordBatch, told: bytes) -> list[tuple[Sent, BatchInfo]]:
        """Return the batches of a record batch as parcels, uncopied; raise ValueError when it is not of the layout."""
        layout, infos = self.layout, json.loads(told)
        if batch.schema != self.schema or batch.num_rows != layout.num_rows * len(infos):
            raise ValueError(
                f"{len(infos)} batches of {batch.num_rows} rows came with the columns"
                f" {', '.join(batch.schema.names)}; wanted were {layout.num_rows} rows of {layout.width} tokens each:"
                " use the same gemsdata on both sides"
            )
        try:
            batch.validate()
        except pa.ArrowInvalid as error:
            raise ValueError(f"a batch came that is damaged ({error}); the server is broken") from None
        tokens, head, sample_ids = (batch.column(name).to_numpy() for name in ("num_tokens", "head", "sample_ids"))
        fours = [
            np.frombuffer(column.buffers()[1], np.uint8, column.nbytes).reshape(len(batch), -1)
            for column in (batch.column("bases"), batch.column("fates"))
        ]
        column = batch.column("listed")
        ends, items = column.offsets.to_numpy(), [part.to_numpy() for part in column.values.flatten()]
        if tokens.max(initial=0) > layout.width - _NUM_ENDS:
            raise ValueError(f"a batch came with a row of {tokens.max()} tokens; the server is broken")
        parcels = []
        for n, info in enumerate(infos):
            own = slice(n * layout.num_rows, (n + 1) * layout.num_rows)
            listed = (values[ends[own.start] : ends[own.stop]] for values in items)
            rows = (tokens[own], head[own], *(values[own] for values in fours), *listed)
            parcels.append((Sent(codec=self, rows=rows, sample_ids=sample_ids[own]), BatchInfo(**info)))
        return parcels

    def _listed(self) -> dict[str, pa.DataType]:
        kinds = {"seen": self.layout.id_dtype, "label": self.layout.label_dtype}
        return {name: pa.from_numpy_dtype(np.dtype(kind)) for name, kind in kinds.items()}


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A parcel that came from a server, as small as it travelled until it is opened."""

    codec: Codec
    rows: tuple[np.ndarray, ...]
    """what `expand` takes, from num_tokens to the listed labels"""
    sample_ids: np.ndarray

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the batch to arrays of the layout's shapes and any integers; ValueError for one that is broken."""
        listed = expand(*self.rows, self.codec.k, arrays["input_ids"], arrays["labels"], arrays["attention_mask"])
        if listed != self.rows[-1].size:
            raise ValueError(
                f"a batch came with {self.rows[-1].size} listed tokens, its rows have {listed}; the server is broken"
            )
        arrays["sample_ids"][...] = self.sample_ids

    def take(self) -> np.ndarray:
        """Return the batch as a buffer of the layout, nobody else's."""
        buffer = self.codec.layout.empty()
        self.write(self.codec.layout.views(buffer))
        return buffer


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
