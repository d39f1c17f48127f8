"""A shard of packed bases at a URL, of which only the blocks that are read are fetched."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa

from gemsdata.files.cache import Pin
from gemsdata.files.partial_file import PIECE_BYTES, PartialFile
from gemsdata.shards.arrow_sizes import check_batch, footer_bytes, record_batches
from gemsdata.shards.member import MOST_COLUMN_BYTES


class PackedRanges:
    """Fetches blocks of a shard, and tells where in memory they are.

    Parameters
    ----------
    file, pin, url
        the copy of the shard, the object that keeps it in the cache, and its URL, for messages.
    num_blocks, block_bases
        number of blocks and bases of a block.

    Raises ValueError for a file that has other blocks.
    """

    def __init__(self, file: PartialFile, pin: Pin, url: str, num_blocks: int, block_bases: int) -> None:
        self._file, self.pin, self.path, self._url = file, pin, pin.path, url
        self._num_blocks, self._block_bytes = num_blocks, block_bases // 4
        self._offsets = self._locate_blocks()

    @property
    def map(self) -> pa.Buffer:
        """The mapped file, of which the fetched blocks may be read."""
        return self._file.map

    def fetch(self, blocks: np.ndarray) -> np.ndarray:
        """Fetch blocks, int64[m], that are not here yet; return the memory address of each, int64[m].

        Raises what `PartialFile.fetch` raises.
        """
        begin = self._offsets[blocks]
        self._file.fetch(begin, begin + self._block_bytes)
        return begin + self.map.address

    def _locate_blocks(self) -> np.ndarray:
        """Return the offset of each block in the file, int64[num_blocks], from the footer and the first and last batch.

        Batches that have equal sizes have the same layout, as there are no compressed columns and no nulls.
        """
        size = self.map.size
        self._fetch(max(0, size - PIECE_BYTES), size)
        try:
            self._fetch(size - footer_bytes(self.map), size)
            batches = record_batches(self.map)
        except ValueError as error:
            raise ValueError(f"{self._url} is not a complete Arrow shard: {error}") from None
        same = (batches[:, 1:] == batches[0, 1:]).all(axis=1)
        if not same[:-1].all():
            raise ValueError(f"shard {self._url}: its batches have different sizes; it is damaged")
        return self._offsets_in(batches)

    def _offsets_in(self, batches: np.ndarray) -> np.ndarray:
        """Return the offsets of the blocks of batches (offset, bytes of metadata and of the body), int64[m, 3]."""
        first, at_first = self._packed_column(batches[0])
        last, at_last = self._packed_column(batches[-1])
        within = [np.arange(first) * self._block_bytes + at_first] * (len(batches) - 1)
        within.append(np.arange(last) * self._block_bytes + at_last)
        offsets = np.concatenate([start + part for start, part in zip(batches[:, 0], within, strict=True)])
        if len(offsets) != self._num_blocks or offsets.max() + self._block_bytes > self.map.size:
            raise ValueError(
                f"shard {self._url} holds {len(offsets)} blocks, its manifest says {self._num_blocks}; it is damaged or"
                " of another set"
            )
        return offsets

    def _packed_column(self, batch: np.ndarray) -> tuple[int, int]:
        """Return the number of blocks of a batch, and the offset of their bases in it."""
        begin, metadata_bytes, body_bytes = batch.tolist()
        self._fetch(0, PIECE_BYTES)  # the schema
        self._fetch(begin, begin + metadata_bytes)
        try:
            check_batch(memoryview(self.map), begin, metadata_bytes, MOST_COLUMN_BYTES)
            with pa.ipc.open_file(pa.BufferReader(self.map)) as reader:
                schema = reader.schema
            message = self.map[begin : begin + metadata_bytes + body_bytes]
            column = pa.ipc.read_record_batch(message, schema).column("packed")
            if column.type.byte_width != self._block_bytes:
                raise ValueError(f"it has blocks of {column.type.byte_width} bytes")
            return len(column), column.buffers()[1].address - message.address
        except (pa.ArrowException, OSError, KeyError, AttributeError, ValueError, struct.error) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"shard {self._url} is damaged: {reason}") from None

    def _fetch(self, begin: int, end: int) -> None:
        self._file.fetch(np.array([begin]), np.array([min(end, self.map.size)]))
