"""Encoding of batches as Arrow record batches, and of errors that a client raises again.

Rows of overlapping k-mers are encoded by `gemsdata.kernels.compact`: ``num_tokens``, ``head``, ``bases``,
``token_states``, the ``listed`` tokens, and ``sample_ids``. Other batches have a column for each array, and Arrow
compresses them for the transfer. The client keeps a batch encoded until the training loop takes it; one pass then
writes the requested arrays.
"""

from __future__ import annotations

import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.flight as fl

from gemsdata.kernels.compact import CompactRows, ListedTokens, compress, expand
from gemsdata.kernels.widen import widen
from gemsdata.stream.batch import BatchLayout, PendingBatch
from gemsdata.stream.source import BatchInfo

_NUM_ENDS = 2  # [CLS] and [SEP]
_MAX_MESSAGE_CHARS = 2000
_ERRORS: dict[str, type[Exception]] = {"FileNotFoundError": FileNotFoundError, "ValueError": ValueError}
_KMER_ARRAYS = ["input_ids", "labels", "attention_mask", "sample_ids"]
_MAX_COMPACT_K = 9
"""the bases before the last one of a token must fit 16 bits"""
_MAX_COMPACT_TOKENS = 65535

Filled = Iterable[tuple[np.ndarray, BatchInfo]]
Decoded = list[tuple[PendingBatch, BatchInfo]]


@dataclass(frozen=True, kw_only=True)
class Codec(ABC):
    """Encodes batches of one layout as record batches, and decodes them."""

    layout: BatchLayout
    compression: ClassVar[str | None] = None
    """compression of the record batches for the transfer"""

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """The columns of a record batch."""

    @abstractmethod
    def encode(self, filled: Filled, num_batches: int) -> tuple[pa.RecordBatch, bytes]:
        """Return batches as one record batch, and their `BatchInfo` as a JSON list.

        ``filled`` yields each batch as a filled buffer of the layout; it may yield the same buffer again.
        """

    @abstractmethod
    def decode(self, batch: pa.RecordBatch, metadata: bytes) -> Decoded:
        """Return the batches of a record batch, still encoded and without a copy; raise ValueError if it is invalid.

        ``metadata`` is the JSON that `encode` returned.
        """

    def _checked_infos(self, batch: pa.RecordBatch, metadata: bytes) -> list[BatchInfo]:
        """Return the `BatchInfo` of the batches; raise ValueError for a record batch that does not fit."""
        layout, infos = self.layout, _parsed_infos(metadata)
        if batch.schema != self.schema or batch.num_rows != layout.num_rows * len(infos):
            raise ValueError(
                f"received {len(infos)} batches with {batch.num_rows} rows and the columns"
                f" {', '.join(batch.schema.names)}; expected {layout.num_rows} rows of {layout.width} tokens each: use"
                " the same gemsdata version on client and server"
            )
        try:
            batch.validate()
        except pa.ArrowInvalid as error:
            raise ValueError(f"received an invalid record batch ({error}); the server is broken") from None
        return infos


def codec_of(layout: BatchLayout, token_identity: str) -> Codec:
    """Return the codec of batches of some tokens, the same on client and server."""
    kind, k, stride = (*token_identity.split(":"), "")[:3]
    plain = [array.name for array in layout.arrays] == _KMER_ARRAYS and layout.width - _NUM_ENDS <= _MAX_COMPACT_TOKENS
    if plain and kind == "kmer" and stride == "1" and int(k) <= _MAX_COMPACT_K:
        return KmerCodec(layout=layout, k=int(k))
    return ArrayCodec(layout=layout)


@dataclass(frozen=True, kw_only=True)
class KmerCodec(Codec):
    """Encodes rows of overlapping k-mers compactly."""

    k: int

    @functools.cached_property
    def schema(self) -> pa.Schema:  # noqa: D102
        two_bits_per_token = pa.binary(-(-(self.layout.width - _NUM_ENDS) // 4))
        listed = pa.struct([pa.field(name, kind, False) for name, kind in self._listed_types().items()])
        columns = {
            "num_tokens": pa.uint16(),
            "head": pa.uint16(),
            "bases": two_bits_per_token,
            "token_states": two_bits_per_token,
            "sample_ids": pa.int64(),
            "listed": pa.list_(pa.field("item", listed, False)),
        }
        return pa.schema([pa.field(name, kind, False) for name, kind in columns.items()])

    def encode(self, filled: Filled, num_batches: int) -> tuple[pa.RecordBatch, bytes]:  # noqa: D102
        rows = num_batches * self.layout.num_rows
        tokens, head, sample_ids = np.empty(rows, np.uint16), np.empty(rows, np.uint16), np.empty(rows, np.int64)
        bases, states = (np.empty((rows, self.schema.field("bases").type.byte_width), np.uint8) for _ in range(2))
        ends = np.zeros(rows + 1, np.int32)
        listed = ListedTokens(
            *(np.empty(rows * self.layout.width, kind.to_pandas_dtype()) for kind in self._listed_types().values())
        )
        infos = []
        for n, (buffer, info) in enumerate(filled):
            views = self.layout.views(buffer)
            own = slice(n * self.layout.num_rows, (n + 1) * self.layout.num_rows)
            compress(
                views["input_ids"],
                views["labels"],
                views["attention_mask"],
                self.k,
                CompactRows(tokens[own], head[own], bases[own], states[own]),
                listed,
                ends[own.start : own.stop + 1],
            )
            sample_ids[own] = views["sample_ids"]
            infos.append(vars(info))
        types = self.schema.types
        items = pa.StructArray.from_arrays(
            [pa.array(values[: ends[-1]].copy()) for values in listed], fields=list(types[-1].value_type)
        )
        columns = [
            pa.array(tokens),
            pa.array(head),
            pa.Array.from_buffers(types[2], rows, [None, pa.py_buffer(bases)]),
            pa.Array.from_buffers(types[3], rows, [None, pa.py_buffer(states)]),
            pa.array(sample_ids),
            pa.Array.from_buffers(types[-1], rows, [None, pa.py_buffer(ends)], children=[items]),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema), json.dumps(infos).encode()

    def decode(self, batch: pa.RecordBatch, metadata: bytes) -> Decoded:  # noqa: D102
        layout, infos = self.layout, self._checked_infos(batch, metadata)
        tokens, head, sample_ids = (batch.column(name).to_numpy() for name in ("num_tokens", "head", "sample_ids"))
        packed = [
            np.frombuffer(column.buffers()[1], np.uint8, column.nbytes).reshape(len(batch), -1)
            for column in (batch.column("bases"), batch.column("token_states"))
        ]
        listed = batch.column("listed")
        ends, items = listed.offsets.to_numpy(), [field.to_numpy() for field in listed.values.flatten()]
        if tokens.max(initial=0) > layout.width - _NUM_ENDS:
            raise ValueError(f"received a row of {tokens.max()} tokens; the server is broken")
        batches: Decoded = []
        for n, info in enumerate(infos):
            own = slice(n * layout.num_rows, (n + 1) * layout.num_rows)
            rows = CompactRows(tokens[own], head[own], *(values[own] for values in packed))
            listed_tokens = ListedTokens(*(values[ends[own.start] : ends[own.stop]] for values in items))
            encoded = EncodedBatch(codec=self, rows=rows, listed=listed_tokens, sample_ids=sample_ids[own])
            batches.append((encoded, info))
        return batches

    def _listed_types(self) -> dict[str, pa.DataType]:
        fields = self.layout.fields
        dtypes = {"input_id": fields["input_ids"].dtype, "label": fields["labels"].dtype}
        return {name: pa.from_numpy_dtype(dtype) for name, dtype in dtypes.items()}


@dataclass(frozen=True, kw_only=True)
class EncodedBatch:
    """A pending batch from a server, decoded when it is read."""

    codec: KmerCodec
    rows: CompactRows
    listed: ListedTokens
    sample_ids: np.ndarray

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the batch to arrays of the layout's shapes and any integer type; raise ValueError if it is invalid."""
        outputs = (arrays["input_ids"], arrays["labels"], arrays["attention_mask"])
        num_listed = expand(self.rows, self.listed, self.codec.k, *outputs)
        if num_listed != self.listed.ids.size:
            raise ValueError(
                f"received a batch with {self.listed.ids.size} listed tokens, its rows have {num_listed}; the server is"
                " broken"
            )
        arrays["sample_ids"][...] = self.sample_ids

    def to_buffer(self) -> np.ndarray:
        """Return the batch as a new buffer of the layout."""
        buffer = self.codec.layout.empty()
        self.write(self.codec.layout.views(buffer))
        return buffer


@dataclass(frozen=True, kw_only=True)
class ArrayCodec(Codec):
    """Encodes any batch: a column of bytes for each of its arrays."""

    compression = "zstd"

    @functools.cached_property
    def schema(self) -> pa.Schema:  # noqa: D102
        kinds = {name: pa.binary(field.row_bytes) for name, field in self.layout.fields.items()}
        return pa.schema([pa.field(name, kind, False) for name, kind in kinds.items()])

    def encode(self, filled: Filled, num_batches: int) -> tuple[pa.RecordBatch, bytes]:  # noqa: D102
        rows, infos = self.layout.num_rows, []
        columns = [np.empty((num_batches * rows, kind.byte_width), np.uint8) for kind in self.schema.types]
        for n, (buffer, info) in enumerate(filled):
            for column, array in zip(columns, self.layout.views(buffer).values(), strict=True):
                column[n * rows : (n + 1) * rows] = array.reshape(rows, -1).view(np.uint8)
            infos.append(vars(info))
        arrays = [
            pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(column)])
            for kind, column in zip(self.schema.types, columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema), json.dumps(infos).encode()

    def decode(self, batch: pa.RecordBatch, metadata: bytes) -> Decoded:  # noqa: D102
        infos, rows = self._checked_infos(batch, metadata), self.layout.num_rows
        arrays = {
            name: np.frombuffer(column.buffers()[1], np.uint8, len(batch) * column.type.byte_width)
            .view(self.layout.fields[name].dtype)
            .reshape(len(batch), *self.layout.fields[name].shape[1:])
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }
        return [
            (
                ReceivedArrays(
                    layout=self.layout,
                    arrays={name: values[n * rows : (n + 1) * rows] for name, values in arrays.items()},
                ),
                info,
            )
            for n, info in enumerate(infos)
        ]


@dataclass(frozen=True, kw_only=True)
class ReceivedArrays:
    """A pending batch from a server, as its arrays."""

    layout: BatchLayout
    arrays: dict[str, np.ndarray]

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the batch to arrays of the layout's shapes, each of the layout's dtype or a wider one."""
        for name, values in self.arrays.items():
            if values.dtype.kind in "iu":
                widen(values.reshape(-1), arrays[name].reshape(-1))
            else:
                arrays[name][...] = values

    def to_buffer(self) -> np.ndarray:
        """Return the batch as a new buffer of the layout."""
        buffer = self.layout.empty()
        self.write(self.layout.views(buffer))
        return buffer


def remote_error(error: Exception) -> fl.FlightServerError:
    """Return the exception that a server raises so that the client raises ``error`` and does not retry."""
    message = str(error)[:_MAX_MESSAGE_CHARS]
    kind = "FileNotFoundError" if isinstance(error, FileNotFoundError) else "ValueError"
    return fl.FlightServerError(message, json.dumps({"error": kind, "message": message}).encode())


def original_error(error: Exception) -> Exception | None:
    """Return the exception that was given to `remote_error`; None for others, such as a lost connection."""
    try:
        content = json.loads(error.extra_info)  # type: ignore[attr-defined]
        return _ERRORS[content["error"]](content["message"])
    except (AttributeError, ValueError, KeyError, TypeError):
        return None


def _parsed_infos(metadata: bytes) -> list[BatchInfo]:
    try:
        return [BatchInfo(**info) for info in json.loads(metadata)]
    except (ValueError, TypeError):
        raise ValueError(
            f"received batches with the metadata {metadata[:80]!a}; use the same gemsdata version on client and server"
        ) from None
