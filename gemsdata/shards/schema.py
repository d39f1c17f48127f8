"""The row of a shard: its columns in memory and as Arrow types."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gemsdata.genome.vocab import token_dtype


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A block of B rows of L = row_tokens token positions; positions from ``num_tokens`` on hold [PAD] (0)."""

    input_ids: np.ndarray
    """token ids, uint16[B, L] (uint32 from k = 8); no special tokens except padding"""
    num_tokens: np.ndarray
    """real tokens in the row, uint16[B], 1..L"""
    contig: np.ndarray
    """index into the manifest's contigs, uint16[B] (uint32 beyond 65,536 contigs)"""
    start: np.ndarray
    """0-based position of the row's first base in its contig, int64[B]"""
    num_bases: np.ndarray | None = None
    """bases that the tokens cover, uint32[B]; None for rows of overlapping k-mers, which have ``num_tokens`` + k - 1"""
    token_bases: np.ndarray | None = None
    """bases of each token, uint8[B, L], if they vary in length; else None"""

    def covered_bases(self, k: int) -> np.ndarray:
        """Return the number of bases that the tokens of each row cover, int64[B]; ``k`` is for overlapping k-mers."""
        return self.num_tokens.astype(np.int64) + k - 1 if self.num_bases is None else self.num_bases.astype(np.int64)

    def __len__(self) -> int:
        return len(self.num_tokens)

    def take(self, index: np.ndarray | slice) -> Rows:
        """Return the rows at ``index``."""
        return Rows(
            input_ids=self.input_ids[index],
            num_tokens=self.num_tokens[index],
            contig=self.contig[index],
            start=self.start[index],
        )


def contig_dtype(num_contigs: int) -> np.dtype:
    """Return the narrowest dtype of a contig index: uint16, or uint32 beyond 65,536 contigs."""
    return np.dtype(np.uint16 if num_contigs <= 65536 else np.uint32)


def view_schema(id_dtype: np.dtype, row_tokens: int, num_contigs: int, varying: bool) -> pa.Schema:
    """Return the Arrow schema of a shard that was written from a view, without metadata; no column is nullable."""
    item = pa.field("item", pa.from_numpy_dtype(id_dtype), nullable=False)
    fields = [
        pa.field("input_ids", pa.list_(item, row_tokens), nullable=False),
        pa.field("num_tokens", pa.uint16(), nullable=False),
        pa.field("contig", pa.from_numpy_dtype(contig_dtype(num_contigs)), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("num_bases", pa.uint32(), nullable=False),
    ]
    if varying:
        sizes = pa.list_(pa.field("item", pa.uint8(), nullable=False), row_tokens)
        fields.append(pa.field("token_bases", sizes, nullable=False))
    return pa.schema(fields)


def row_schema(k: int, row_tokens: int, num_contigs: int, rank_column: bool) -> pa.Schema:
    """Return the Arrow schema of a shard, without metadata; no column is nullable."""
    ids = pa.from_numpy_dtype(token_dtype(k))
    item = pa.field("item", ids, nullable=False)
    fields = [
        pa.field("input_ids", pa.list_(item, row_tokens), nullable=False),
        pa.field("num_tokens", pa.uint16(), nullable=False),
        pa.field("contig", pa.from_numpy_dtype(contig_dtype(num_contigs)), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
    ]
    if rank_column:
        fields.append(pa.field("npmi_rank", pa.list_(item, row_tokens), nullable=False))
    return pa.schema(fields)
