"""Members of tar shards: their names, and their content as arrays of bounded size."""

from __future__ import annotations

import io
import re
import sys
import tarfile

import numpy as np

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MOST_COLUMN_BYTES = 1 << 30
"""limit for a decompressed column of a block, if no manifest gives the block size"""
_MOST_HEADER_BYTES = 1 << 16
_NAME = re.compile(r"([0-9]+)\.([a-z_]+)\.npy(\.zst)?", re.ASCII)


def column_bytes(block_rows: int, row_tokens: int, dtype: str) -> int:
    """Return the largest number of bytes of a column of a block of ``block_rows`` rows."""
    return block_rows * max(row_tokens * np.dtype(dtype).itemsize, np.dtype(np.int64).itemsize)


def parse_name(member: tarfile.TarInfo) -> tuple[str, str, bool]:
    """Return the block, the column, and whether it is compressed.

    Raises ValueError for a name with a folder, and for links, devices and sparse files: gemsdata never unpacks
    archives, but other readers might.
    """
    match = _NAME.fullmatch(member.name)
    if match is None:
        raise ValueError(f"member {ascii(member.name)[:80]} is not BLOCK.COLUMN.npy or BLOCK.COLUMN.npy.zst")
    if not member.isreg() or member.issparse():
        raise ValueError(f"member {member.name} is a link, a device or a sparse file; plain files are expected")
    return match[1], match[2], match[3] is not None


def decompressed(content: bytes, most_bytes: int) -> bytes:
    """Return the content of one zstd frame.

    Raises ValueError if it is damaged, truncated, longer than ``most_bytes``, or followed by other data.
    """
    decompressor = zstd.ZstdDecompressor()
    try:
        found = decompressor.decompress(content, most_bytes + 1)
    except zstd.ZstdError as error:
        raise ValueError(f"its zstd data is invalid ({' '.join(str(error).split())})") from None
    if len(found) > most_bytes:
        raise ValueError(f"its zstd data expands to more than the {most_bytes:,} bytes that a column may have")
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("its zstd data is not exactly one complete frame")
    return bytes(found)


def read_array(content: bytes, *, compressed: bool, most_bytes: int) -> np.ndarray:
    """Return the array in the content of a ``.npy`` member; raise ValueError if it is damaged or too large."""
    if compressed:
        content = decompressed(content, most_bytes + _MOST_HEADER_BYTES)
    stream = io.BytesIO(content)
    try:
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    except MemoryError:
        raise ValueError("its header declares an array larger than the memory") from None
    if stream.read(1):
        raise ValueError("it is longer than its array")
    return array
