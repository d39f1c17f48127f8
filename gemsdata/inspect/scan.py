"""Arrow streams of the rows and the tokens of a shard set, one record batch per block.

DuckDB, Polars and pyarrow read an object with ``__arrow_c_stream__`` lazily. Unlike a ``pyarrow.dataset``, it also
reads tar shards, and most columns are views of the memory-mapped file, so that a query that does not use the token ids
does not read them from disk. Every scan starts from the first row.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from gemsdata.shards.manifest import SPLITS
from gemsdata.shards.schema import Rows, contig_dtype
from gemsdata.shards.shard_set import ShardSet

_NAME = pa.string()
_SPLIT = pa.dictionary(pa.int8(), _NAME)


class Scan(abc.ABC):
    """Stream of record batches of a shard set, split by split, in row order."""

    schema: pa.Schema

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards
        self._contigs = pa.array(shards.contig_names, _NAME)
        self._splits = pa.array(SPLITS, _NAME)
        self._contig = pa.dictionary(pa.from_numpy_dtype(contig_dtype(len(shards.contig_names))), _NAME)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Start a scan and return its stream (Arrow PyCapsule interface)."""
        return pa.RecordBatchReader.from_batches(self.schema, self.batches()).__arrow_c_stream__(requested_schema)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield one batch per block of the set."""
        manifest = self.shards.manifest
        shards = ShardSet(self.shards.store, manifest)  # own reader: scans may run in parallel threads
        for split, entries in manifest.splits.items():
            for index, entry in enumerate(entries):
                for block in range(-(-entry.num_rows // manifest.block_rows)):
                    rows = shards.block(split, index, block)
                    first_row = entry.first_row + block * manifest.block_rows
                    yield pa.record_batch(self._columns(split, index, first_row, rows), schema=self.schema)

    @abc.abstractmethod
    def _columns(self, split: str, shard: int, first_row: int, rows: Rows) -> list[pa.Array]:
        """Return the columns of one block."""

    def _where(self, split: str, shard: int, count: int) -> list[pa.Array]:
        """Return the columns with the split and the shard of a block."""
        splits = np.full(count, SPLITS.index(split), np.int8)
        return [
            pa.DictionaryArray.from_arrays(splits, self._splits),
            pa.array(np.full(count, shard, np.int32)),
        ]

    def _contig_column(self, contig: np.ndarray) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(contig), self._contigs)


class RowScan(Scan):
    """One row per row of the set; ``tokens`` contains its token ids without padding."""

    def __init__(self, shards: ShardSet) -> None:
        super().__init__(shards)
        self.schema = pa.schema(
            {
                "split": _SPLIT,
                "shard": pa.int32(),
                "row": pa.int64(),
                "contig": self._contig,
                "start": pa.int64(),
                "num_tokens": pa.int32(),
                "tokens": pa.list_view(pa.from_numpy_dtype(np.dtype(shards.manifest.token_dtype))),
            }
        )

    def _columns(self, split: str, shard: int, first_row: int, rows: Rows) -> list[pa.Array]:
        count, row_tokens = rows.input_ids.shape
        offsets = np.arange(count, dtype=np.int32) * np.int32(row_tokens)
        return [
            *self._where(split, shard, count),
            pa.array(np.arange(first_row, first_row + count)),
            self._contig_column(rows.contig),
            pa.array(rows.start),
            pa.array(rows.num_tokens.astype(np.int32)),
            pa.ListViewArray.from_arrays(offsets, rows.num_tokens.astype(np.int32), pa.array(rows.input_ids.ravel())),
        ]


class BlockScan(Scan):
    """One row per block of a packed set; ``packed`` contains its bases, four a byte."""

    def __init__(self, shards: ShardSet) -> None:
        super().__init__(shards)
        self.schema = pa.schema(
            {
                "split": _SPLIT,
                "shard": pa.int32(),
                "row": pa.int64(),
                "contig": self._contig,
                "start": pa.int64(),
                "num_bases": pa.int32(),
                "packed": pa.binary(shards.row_tokens // 4),
            }
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield one batch per record batch of the shards."""
        for split, entries in self.shards.manifest.splits.items():
            for index, entry in enumerate(entries):
                opened = self.shards.open_packed_shard(split, index)
                first_row = entry.first_row
                for number in range(opened.num_blocks):
                    blocks = opened.block(number)
                    count = len(blocks)
                    packed = pa.Array.from_buffers(
                        self.schema.field("packed").type, count, [None, pa.py_buffer(blocks.packed)]
                    )
                    columns = [
                        *self._where(split, index, count),
                        pa.array(np.arange(first_row, first_row + count)),
                        self._contig_column(blocks.contig),
                        pa.array(blocks.start),
                        pa.array(blocks.num_bases.astype(np.int32)),
                        packed,
                    ]
                    yield pa.record_batch(columns, schema=self.schema)
                    first_row += count

    def _columns(self, split: str, shard: int, first_row: int, rows: Rows) -> list[pa.Array]:
        raise NotImplementedError("blocks are read by batches()")


class TokenScan(Scan):
    """One row per token of the set, with its position and its NPMI rank (null if the set has no NPMI table)."""

    def __init__(self, shards: ShardSet, ranks: np.ndarray | None) -> None:
        super().__init__(shards)
        self._ranks = ranks
        self.schema = pa.schema(
            {
                "split": _SPLIT,
                "shard": pa.int32(),
                "row": pa.int64(),
                "contig": self._contig,
                "token_pos": pa.int32(),
                "base_pos": pa.int64(),
                "token_id": pa.int32(),
                "rank": pa.int32(),
            }
        )

    def _columns(self, split: str, shard: int, first_row: int, rows: Rows) -> list[pa.Array]:
        num_tokens = rows.num_tokens.astype(np.int64)
        count = int(num_tokens.sum())
        token_pos = np.arange(count) - np.repeat(np.cumsum(num_tokens) - num_tokens, num_tokens)
        token_ids = rows.input_ids[np.arange(self.shards.row_tokens) < num_tokens[:, None]]
        return [
            *self._where(split, shard, count),
            pa.array(np.repeat(np.arange(first_row, first_row + len(rows)), num_tokens)),
            self._contig_column(np.repeat(rows.contig, num_tokens)),
            pa.array(token_pos.astype(np.int32)),
            pa.array(np.repeat(rows.start, num_tokens) + token_pos),
            pa.array(token_ids.astype(np.int32)),
            pa.nulls(count, pa.int32()) if self._ranks is None else pa.array(self._ranks[token_ids].astype(np.int32)),
        ]
