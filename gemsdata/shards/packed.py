"""Shards of packed bases: blocks of consecutive bases of a contig, four bases per byte, as Arrow IPC files.

A block is a row of the file; all blocks of a set have the same capacity, and only the last of a stretch is not full.
Any Arrow reader can open the file; the reader here maps it and keeps an address for each block.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gemsdata.genome.packed import PackedGenome, complement
from gemsdata.kernels.bases import copy_packed
from gemsdata.shards.arrow import holds
from gemsdata.shards.arrow_sizes import check_sizes
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.member import MOST_COLUMN_BYTES
from gemsdata.shards.schema import contig_dtype
from gemsdata.shards.windows import merge

SMALLEST_BLOCK_BASES, LARGEST_BLOCK_BASES = 256, 32768
BLOCK_BASES_KEY = b"gemsdata.block_bases"
_BATCH_BYTES = 1 << 20
_OTHER_BYTES = 16
"""bytes of a block's columns besides its bases"""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """B blocks of up to ``4 * packed.shape[1]`` bases."""

    contig: np.ndarray
    """index into the manifest's contigs, uint16[B] (uint32 beyond 65,536 contigs)"""
    start: np.ndarray
    """0-based position of the first base in its contig, int64[B]"""
    num_bases: np.ndarray
    """uint32[B]"""
    packed: np.ndarray
    """uint8[B, block_bases / 4]: the first base in the highest bits, A0 T1 C2 G3; 0 for any other letter and beyond
    ``num_bases``"""

    def __len__(self) -> int:
        return len(self.start)


def choose_block_bases(num_bases: np.ndarray) -> int:
    """Return the power of two from 256 to 32,768 that minimises the bytes for stretches of int64[m] bases."""
    sizes = [SMALLEST_BLOCK_BASES]
    while sizes[-1] < LARGEST_BLOCK_BASES:
        sizes.append(2 * sizes[-1])
    bytes_of = [int((-(-num_bases // size)).sum()) * (size // 4 + _OTHER_BYTES) for size in sizes]
    return sizes[int(np.argmin(bytes_of))]


def blocks_per_batch(block_bases: int) -> int:
    """Return how many blocks a record batch holds: about a megabyte of them."""
    return max(1, _BATCH_BYTES // (block_bases // 4))


def cut_blocks(stretches: np.ndarray, block_bases: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut stretches (contig, start, end) int64[m, 3] into blocks.

    Return the blocks (contig, start, num_bases), int64[B, 3], and the first block of each stretch, int64[m + 1].
    """
    length = stretches[:, 2] - stretches[:, 1]
    blocks = -(-length // block_bases)
    first = np.concatenate([[0], np.cumsum(blocks)])
    stretch = np.repeat(np.arange(len(stretches)), blocks)
    offset = (np.arange(first[-1]) - first[stretch]) * block_bases
    size = np.minimum(block_bases, length[stretch] - offset)
    return np.column_stack([stretches[stretch, 0], stretches[stretch, 1] + offset, size]), first


def encode_blocks(genome: PackedGenome, blocks: np.ndarray, block_bases: int) -> Blocks:
    """Return the blocks (contig, start, num_bases) int64[B, 3] of a genome."""
    contig, start, num_bases = blocks.T
    packed = np.empty((len(blocks), block_bases // 4), np.uint8)
    copy_packed(genome.packed, genome.base_offset[contig] + start, num_bases, packed)
    return Blocks(
        contig=contig.astype(contig_dtype(len(genome.names))),
        start=np.ascontiguousarray(start),
        num_bases=num_bases.astype(np.uint32),
        packed=packed,
    )


def packed_schema(block_bases: int, num_contigs: int) -> pa.Schema:
    """Return the Arrow schema of a shard, without metadata; no column is nullable."""
    return pa.schema(
        [
            pa.field("contig", pa.from_numpy_dtype(contig_dtype(num_contigs)), nullable=False),
            pa.field("start", pa.int64(), nullable=False),
            pa.field("num_bases", pa.uint32(), nullable=False),
            pa.field("packed", pa.binary(block_bases // 4), nullable=False),
        ]
    )


class PackedWriter:
    """Writes blocks to a stream as an Arrow IPC file, one record batch for each call of `write`."""

    def __init__(self, stream: Any, block_bases: int, num_contigs: int, metadata: dict[bytes, bytes]) -> None:
        schema = packed_schema(block_bases, num_contigs)
        self._schema = schema.with_metadata({**metadata, BLOCK_BASES_KEY: str(block_bases).encode()})
        options = pa.ipc.IpcWriteOptions(use_threads=False)
        self._writer = pa.ipc.new_file(pa.PythonFile(stream, mode="w"), self._schema, options=options)

    def write(self, blocks: Blocks) -> None:
        """Append blocks."""
        packed = pa.Array.from_buffers(
            self._schema.field("packed").type, len(blocks), [None, pa.py_buffer(np.ascontiguousarray(blocks.packed))]
        )
        columns = [pa.array(blocks.contig), pa.array(blocks.start), pa.array(blocks.num_bases), packed]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


class PackedShard:
    """One packed shard, opened for random access; it keeps a memory map and no file descriptor.

    Raises ValueError for a file that is not a complete packed shard.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.pin: object = None
        """keeps a downloaded file in its cache"""
        try:
            with pa.memory_map(str(path)) as file:
                self.map = file.read_buffer()
            check_sizes(self.map, MOST_COLUMN_BYTES)
            self._reader = pa.ipc.open_file(pa.BufferReader(self.map))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ValueError(f"{path} is not a complete Arrow shard: {str(error).splitlines()[0]}") from None
        self.metadata: dict[bytes, bytes] = self._reader.schema.metadata or {}
        if not self.metadata.get(BLOCK_BASES_KEY, b"").isdigit():
            raise ValueError(f"{path} is not a shard of packed bases")
        self.block_bases = int(self.metadata[BLOCK_BASES_KEY])
        self.num_blocks: int = self._reader.num_record_batches

    def block(self, index: int) -> Blocks:
        """Return record batch ``index`` as read-only arrays; raise ValueError if it is damaged."""
        try:
            batch = self._reader.get_batch(index)
            batch.validate()  # slicing a damaged batch can crash the process
            return _blocks_of(batch)
        except (pa.ArrowException, OSError, KeyError, AttributeError, TypeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"{self.path}: block {index} is damaged: {reason}") from None

    def addresses(self, num_blocks: int) -> np.ndarray:
        """Return the memory address of the bases of each of the shard's ``num_blocks`` blocks, int64[num_blocks].

        The addresses are valid as long as ``map`` exists. Raises ValueError for a file that has other blocks.
        """
        parts = [np.empty(0, np.int64)]
        for index in range(self.num_blocks):
            packed = self.block(index).packed
            if packed.shape[1] * 4 != self.block_bases or not holds(self.map, packed):
                raise ValueError(f"shard {self.path}: block {index} reaches beyond the file; it is damaged")
            first = packed.__array_interface__["data"][0]
            parts.append(first + np.arange(len(packed), dtype=np.int64) * packed.shape[1])
        out = np.concatenate(parts)
        if len(out) != num_blocks:
            raise ValueError(
                f"shard {self.path} holds {len(out)} blocks, its manifest says {num_blocks}; it is damaged or of"
                " another set"
            )
        return out


def _blocks_of(batch: pa.RecordBatch) -> Blocks:
    """View a record batch of a packed shard as arrays, without a copy."""
    column = batch.column("packed")
    width = column.type.byte_width
    packed = np.frombuffer(column.buffers()[1], np.uint8, count=len(column) * width, offset=column.offset * width)
    return Blocks(
        contig=batch.column("contig").to_numpy(zero_copy_only=True),
        start=batch.column("start").to_numpy(zero_copy_only=True),
        num_bases=batch.column("num_bases").to_numpy(zero_copy_only=True),
        packed=packed.reshape(-1, width),
    )


def split_stretches(manifest: Manifest) -> dict[str, np.ndarray]:
    """Return the parts of contigs that each split of a packed set holds, (contig, start, end) int64[m, 3], sorted."""
    num_bases = np.array([contig.num_bases for contig in manifest.contigs], np.int64)
    return stretches_of(num_bases, np.array(manifest.validation.regions, np.int64).reshape(-1, 3))


def stretches_of(num_bases: np.ndarray, valid_regions: np.ndarray) -> dict[str, np.ndarray]:
    """Split contigs of int64[C] bases by the regions (contig, start, end) int64[m, 3], sorted, disjoint, of "valid"."""
    offset = np.cumsum(num_bases + 1) - num_bases - 1  # contigs on one line, a position apart
    held_out = valid_regions[:, 1:] + offset[valid_regions[:, 0], None]
    borders = np.column_stack([offset + num_bases, offset + num_bases + 1])
    barred = np.concatenate([held_out, borders])
    train = complement(merge(barred[np.argsort(barred[:, 0], kind="stable")]), int((num_bases + 1).sum()))
    contig = np.searchsorted(offset, train[:, 0], side="right") - 1
    return {
        "train": np.column_stack([contig, train - offset[contig, None]]),
        "valid": valid_regions[valid_regions[:, 2] > valid_regions[:, 1]],
    }
