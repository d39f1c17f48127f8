"""Shards as WebDataset tars: a sample is a block of rows, each member a column of it as ``.npy``.

Keys are block numbers without a dot, because a WebDataset key ends at the first dot. There is no pickled data; time,
owner and mode are constant. If compressed, each member is a zstd frame (``.npy.zst``), so that a reader can still
access any block.
"""

from __future__ import annotations

import functools
import io
import sys
import tarfile
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gemsdata.shards.arrow import holds
from gemsdata.shards.member import MOST_COLUMN_BYTES, parse_name, read_array
from gemsdata.shards.schema import Rows

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ZSTD_LEVEL = 3
_TAR_BLOCK_BYTES = 512


class TarWriter:
    """Writes blocks of rows to a stream as a WebDataset tar."""

    def __init__(self, stream: Any, block_rows: int, *, compressed: bool = False) -> None:
        self._tar = tarfile.open(  # noqa: SIM115  (closed by close)
            fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=_TAR_BLOCK_BYTES
        )
        self._block_rows, self._compressed = block_rows, compressed

    def write(self, first_row: int, rows: Rows, ranks: np.ndarray | None) -> None:
        """Append one block; its key is the number of the block in the split."""
        key = f"{first_row // self._block_rows:08d}"
        columns = {
            "input_ids": rows.input_ids,
            "num_tokens": rows.num_tokens,
            "contig": rows.contig,
            "start": rows.start,
        }
        for name in ("num_bases", "token_bases"):
            if getattr(rows, name) is not None:
                columns[name] = getattr(rows, name)
        if ranks is not None:
            columns["npmi_rank"] = ranks
        for name, values in columns.items():
            self._add(f"{key}.{name}.npy", values)

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()

    def _add(self, name: str, values: np.ndarray) -> None:
        content = io.BytesIO()
        np.lib.format.write_array(content, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
        if self._compressed:
            name, content = f"{name}.zst", io.BytesIO(zstd.compress(content.getvalue(), level=_ZSTD_LEVEL))
        member = tarfile.TarInfo(name)
        member.size = len(content.getbuffer())
        member.mode = 0o644
        content.seek(0)
        self._tar.addfile(member, content)


class TarShard:
    """One tar shard on a local disk, memory-mapped. It keeps no file descriptor.

    If uncompressed, a block is a view of the map; if compressed, it is decoded on access, and columns of more than
    ``most_bytes`` are rejected.
    """

    def __init__(self, path: str | Path, num_cached: int = 0, most_bytes: int = MOST_COLUMN_BYTES) -> None:
        self.path = Path(path)
        self.pin: object = None
        """keeps a downloaded file in its cache"""
        self._places: list[dict[str, tuple[int, int]]] = []
        self._block: str | None = None
        self._compressed = False
        self._most_bytes = most_bytes
        try:
            with pa.memory_map(str(path)) as file:
                self.map = file.read_buffer()
            with tarfile.open(path, mode="r:") as tar:
                for member in tar:
                    self._index(member)
        except (tarfile.TarError, OSError, ValueError) as error:
            raise ValueError(f"{path} is not a complete tar shard: {error}") from None
        self.num_blocks = len(self._places)

    def block(self, index: int) -> Rows:
        """Return block ``index`` as read-only arrays."""
        try:
            return Rows(**{name: self._array(*place) for name, place in self._places[index].items()})
        except (
            TypeError,
            ValueError,
            IndexError,
            EOFError,
            tokenize.TokenError,
            SyntaxError,
            RecursionError,
            MemoryError,
        ) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{self.path}: block {index} is damaged: {reason}") from None

    def holds(self, values: np.ndarray) -> bool:
        """Return whether an array of a block lies in the memory map."""
        return holds(self.map, values)

    def _index(self, member: tarfile.TarInfo) -> None:
        block, column, self._compressed = parse_name(member)
        if block != self._block:
            self._places.append({})
            self._block = block
        if column != "npmi_rank":
            self._places[-1][column] = (member.offset_data, member.size)

    def _array(self, offset: int, num_bytes: int) -> np.ndarray:
        if self._compressed:
            content = self.map[offset : offset + num_bytes].to_pybytes()
            return read_array(content, compressed=True, most_bytes=self._most_bytes)
        header_bytes = 10 + int.from_bytes(self.map[offset + 8 : offset + 10].to_pybytes(), "little")
        shape, dtype = _parse_header(self.map[offset : offset + header_bytes].to_pybytes())
        count = int(np.prod(shape))
        return np.frombuffer(self.map, dtype, count, offset + header_bytes).reshape(shape)


@functools.lru_cache(maxsize=64)
def _parse_header(header: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype from a ``.npy`` header (version 1); cached, as a set has few different ones."""
    stream = io.BytesIO(header)
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, dtype
