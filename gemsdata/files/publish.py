"""Publish files by rename: a final name only ever stands for a whole file."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import xxhash


class HashedStream:
    """A write-only stream that hashes what passes through it: xxh3 (fast, for every read) and sha256 (for shipping)."""

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
        """Do nothing: publishing flushes."""

    def close(self) -> None:
        """Mark the end; the stream beneath stays open for its owner."""
        self.closed = True

    def digests(self) -> dict[str, str]:
        """Return {"xxh3_64": hex, "sha256": hex}."""
        return {"xxh3_64": self._xxh3.hexdigest(), "sha256": self._sha256.hexdigest()}


@contextlib.contextmanager
def publish(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; flush it to disk and rename it on success, remove it on failure.

    The temporary name begins with an underscore, so that readers of the folder pass it over.
    """
    temporary = path.with_name(f"_{path.name}.{os.getpid()}.tmp")
    stream = open(temporary, "wb")  # noqa: SIM115  (closed below, before the rename)
    try:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            stream.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Publish ``text`` (UTF-8) under ``path``."""
    with publish(path) as stream:
        stream.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    with contextlib.suppress(OSError):  # not every file system lets a folder be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def xxh3_of(path: Path) -> str:
    """Return the xxh3 of a file, in hex."""
    digest = xxhash.xxh3_64()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
