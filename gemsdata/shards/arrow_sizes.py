"""Check the declared sizes of the compressed buffers of an Arrow IPC file, before Arrow allocates that much memory.

Arrow has no limit for them. The footer and the messages are FlatBuffers; the few fields needed are read here following
Arrow's format specification (Footer, Block, Message, RecordBatch, Buffer).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

_TAIL = struct.Struct("<i6s")
_MAGIC = b"ARROW1"
_BLOCK = struct.Struct("<qixxxxq")
_PAIR = struct.Struct("<qq")
_BUFFER_HEADER = 8
"""bytes before the data of a compressed buffer: its decompressed size, or -1 if it is stored uncompressed"""
_DICTIONARIES, _RECORD_BATCHES = 2, 3  # of a Footer
_HEADER = 2  # of a Message
_BUFFERS, _COMPRESSION = 2, 3  # of a RecordBatch
_SLACK_BYTES = 64
"""multiple to which a writer may pad buffers"""


def check_sizes(file: pa.Buffer, most_bytes: int) -> None:
    """Raise ValueError if a buffer of an Arrow IPC file declares that it expands to more than ``most_bytes``.

    Also raised for a file with dictionaries, which no shard has, and for a damaged footer.
    """
    data = memoryview(file)
    try:
        for offset, metadata_bytes, _ in _record_batches(data):
            check_batch(data, offset, metadata_bytes, most_bytes)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"its footer is damaged ({error})") from None


def footer_bytes(file: pa.Buffer | memoryview) -> int:
    """Return how many bytes at the end of an Arrow IPC file are its footer; raise ValueError if it has none."""
    data = memoryview(file)
    size, magic = _TAIL.unpack_from(data, len(data) - _TAIL.size)
    if magic != _MAGIC or not 0 < size < len(data) - _TAIL.size:
        raise ValueError("it has no Arrow footer")
    return int(size) + _TAIL.size


def record_batches(file: pa.Buffer) -> np.ndarray:
    """Return (offset, bytes of metadata, bytes of the body) of each record batch of an Arrow IPC file, int64[m, 3].

    Only the footer is read. Raises ValueError if it is damaged, or a batch is outside the file.
    """
    try:
        found = np.array(list(_record_batches(memoryview(file))), np.int64).reshape(-1, 3)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"its footer is damaged ({error})") from None
    if (found < 0).any() or (found.sum(axis=1) > file.size).any():
        raise ValueError("its footer is damaged (a batch is outside the file)")
    return found


def _record_batches(data: memoryview) -> Iterator[tuple[int, ...]]:
    size = footer_bytes(data)
    footer = data[len(data) - size : len(data) - _TAIL.size]
    root = _indirect(footer, 0)
    if next(_structs(footer, root, _DICTIONARIES, _BLOCK), None) is not None:
        raise ValueError("it has dictionaries, which no shard has")
    yield from _structs(footer, root, _RECORD_BATCHES, _BLOCK)


def check_batch(data: memoryview, offset: int, metadata_bytes: int, most_bytes: int) -> None:
    """Raise ValueError if a buffer of the record batch at ``offset`` declares that it expands to too many bytes."""
    message = data[offset : offset + metadata_bytes]
    (marker,) = struct.unpack_from("<i", message, 0)
    message = message[8 if marker == -1 else 4 :]  # before Arrow 0.15 there was no marker
    header = _field(message, _indirect(message, 0), _HEADER)
    if header is None:
        raise ValueError("it has a message without a header")
    batch = _indirect(message, header)
    if _field(message, batch, _COMPRESSION) is None:
        return
    body = offset + metadata_bytes
    for begin, length in _structs(message, batch, _BUFFERS, _PAIR):
        if length >= _BUFFER_HEADER:
            (expanded,) = struct.unpack_from("<q", data, body + begin)
            if expanded > most_bytes + _SLACK_BYTES:
                raise ValueError(
                    f"a buffer says that it expands to {expanded:,} bytes; a column has at most {most_bytes:,}"
                )


def _indirect(data: memoryview, at: int) -> int:
    """Return the position that the offset at ``at`` refers to."""
    (offset,) = struct.unpack_from("<I", data, at)
    return int(at + offset)


def _field(data: memoryview, table: int, index: int) -> int | None:
    """Return the position of a field of the table at ``table``; None if the field is absent."""
    (to_vtable,) = struct.unpack_from("<i", data, table)
    vtable = table - to_vtable
    (vtable_bytes,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * index + 2 > vtable_bytes:
        return None
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * index)
    return table + offset if offset else None


def _structs(data: memoryview, table: int, index: int, layout: struct.Struct) -> Iterator[tuple[int, ...]]:
    """Yield the structs of the vector that is field ``index`` of the table at ``table``."""
    field = _field(data, table, index)
    if field is None:
        return
    vector = _indirect(data, field)
    (length,) = struct.unpack_from("<I", data, vector)
    for i in range(length):
        yield layout.unpack_from(data, vector + 4 + i * layout.size)
