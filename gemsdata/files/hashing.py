"""xxh3 and sha256 of files and of streams: xxh3 is fast enough for every read, sha256 names content across machines."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

_CHUNK_BYTES = 1 << 20


class HashedStream:
    """A write-only stream that computes xxh3 and sha256 of the data that it passes on to an underlying stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._xxh3 = xxhash.xxh3_64()
        self._sha256 = hashlib.sha256()
        self.num_bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Write and hash a bytes-like object."""
        view = memoryview(data).cast("B")
        self._xxh3.update(view)
        self._sha256.update(view)
        self._stream.write(view)
        self.num_bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.num_bytes

    def flush(self) -> None:
        """Do nothing: the owner of the underlying stream flushes it."""

    def close(self) -> None:
        """Mark the stream as closed; the underlying stream stays open for its owner."""
        self.closed = True

    def digests(self) -> dict[str, str]:
        """Return {"xxh3_64": hex, "sha256": hex}."""
        return {"xxh3_64": self._xxh3.hexdigest(), "sha256": self._sha256.hexdigest()}


def xxh3_of(path: Path) -> str:
    """Return the 64-bit xxh3 of a file, in hex."""
    with open(path, "rb") as stream:
        return xxh3_of_stream(stream)


def xxh3_of_stream(stream: BinaryIO) -> str:
    """Return the 64-bit xxh3 of a stream from its position to its end, in hex."""
    digest = xxhash.xxh3_64()
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with open(path, "rb") as stream:
        return sha256_of_stream(stream)


def sha256_of_stream(stream: BinaryIO) -> str:
    """Return the sha256 of a stream from its position to its end, in hex."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
