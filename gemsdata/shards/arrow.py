"""Shards as Arrow IPC files: one record batch per block of rows, memory-mapped, any row in O(1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gemsdata.shards.arrow_sizes import check_sizes
from gemsdata.shards.member import MOST_COLUMN_BYTES
from gemsdata.shards.schema import Rows

_ZSTD_LEVEL = 3


class ArrowWriter:
    """Writes blocks of rows to a stream as an Arrow IPC file."""

    def __init__(self, stream: Any, schema: pa.Schema, compression: str) -> None:
        codec = pa.Codec("zstd", compression_level=_ZSTD_LEVEL) if compression == "zstd" else None
        options = pa.ipc.IpcWriteOptions(compression=codec, use_threads=False)
        self._schema = schema
        self._writer = pa.ipc.new_file(pa.PythonFile(stream, mode="w"), schema, options=options)

    def write(self, first_row: int, rows: Rows, ranks: np.ndarray | None) -> None:
        """Append one block; ``ranks`` [B, L] fills the column npmi_rank if the schema has it."""
        columns = [
            self._lists("input_ids", rows.input_ids),
            pa.array(rows.num_tokens),
            pa.array(rows.contig),
            pa.array(rows.start),
        ]
        if rows.num_bases is not None:
            columns.append(pa.array(rows.num_bases))
        if rows.token_bases is not None:
            columns.append(self._lists("token_bases", rows.token_bases))
        if ranks is not None:
            columns.append(self._lists("npmi_rank", ranks))
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()

    def _lists(self, name: str, values: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=self._schema.field(name).type)


class ArrowShard:
    """One Arrow shard, opened for random access; it keeps a memory map and no file descriptor.

    If uncompressed, every block is a view of the memory map, and reading a row touches only its own bytes. If
    compressed, a block is decoded on access and the last ``num_cached`` are kept; files that have a column of a block
    with more than ``most_bytes`` are rejected.
    """

    def __init__(self, path: str | Path, num_cached: int = 16, most_bytes: int = MOST_COLUMN_BYTES) -> None:
        self.path = Path(path)
        self.pin: object = None
        """keeps a downloaded file in its cache"""
        try:
            with pa.memory_map(str(path)) as file:
                self.map = file.read_buffer()
            check_sizes(self.map, most_bytes)
            self._reader = pa.ipc.open_file(pa.BufferReader(self.map))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ValueError(f"{path} is not a complete Arrow shard: {str(error).splitlines()[0]}") from None
        self._blocks: dict[int, Rows] = {}
        self._num_cached = num_cached
        self.num_blocks: int = self._reader.num_record_batches
        self.metadata: dict[bytes, bytes] = self._reader.schema.metadata or {}

    def block(self, index: int) -> Rows:
        """Return block ``index`` as read-only arrays."""
        rows = self._blocks.get(index)
        if rows is None:
            try:
                batch = self._reader.get_batch(index)
                batch.validate()  # slicing a damaged batch can crash the process
                rows = rows_of(batch)
            except (pa.ArrowException, OSError, KeyError, AttributeError, ValueError) as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise ValueError(f"{self.path}: block {index} is damaged: {reason}") from None
            while self._blocks and len(self._blocks) >= self._num_cached:
                self._blocks.pop(next(iter(self._blocks)))
            if self._num_cached:
                self._blocks[index] = rows
        return rows

    def column(self, index: int, name: str) -> np.ndarray:
        """Return a column of lists of block ``index``, such as npmi_rank, as an array [rows, L]."""
        return _lists_of(self._reader.get_batch(index).column(name))

    def holds(self, values: np.ndarray) -> bool:
        """Return whether an array of a block lies in the memory map."""
        return holds(self.map, values)


def holds(buffer: pa.Buffer, values: np.ndarray) -> bool:
    """Return whether all of ``values`` (contiguous) lies within ``buffer``."""
    first: int = values.__array_interface__["data"][0]
    return buffer.address <= first and first + values.nbytes <= buffer.address + buffer.size


def rows_of(batch: pa.RecordBatch) -> Rows:
    """View a record batch of a shard as arrays, without a copy."""
    extra = {}
    if "num_bases" in batch.schema.names:
        extra["num_bases"] = batch.column("num_bases").to_numpy(zero_copy_only=True)
    if "token_bases" in batch.schema.names:
        extra["token_bases"] = _lists_of(batch.column("token_bases"))
    return Rows(
        input_ids=_lists_of(batch.column("input_ids")),
        num_tokens=batch.column("num_tokens").to_numpy(zero_copy_only=True),
        contig=batch.column("contig").to_numpy(zero_copy_only=True),
        start=batch.column("start").to_numpy(zero_copy_only=True),
        **extra,
    )


def _lists_of(column: pa.Array) -> np.ndarray:
    """View a column of lists of one length as an array [rows, length]."""
    return column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), column.type.list_size)
