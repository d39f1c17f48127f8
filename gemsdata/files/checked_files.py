"""Check files against a hash once: a record lists the files that matched, so that no process hashes them again.

The record has a line for each file that matched: a hash of its device, inode, size, times of change and
expected content. Any write or replacement changes at least one of them (programs cannot set an inode's time of change).
Content that a disk loses without a write is found by ``gemsdata verify``, which does not use the record.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import xxhash

from gemsdata.files.hashing import xxh3_of_stream

_KEY_BYTES = 32
_SETTLED_NS = 2_000_000_000
"""a file that was changed this recently may be changed again within one tick of its clock, and is not recorded"""
_MOST_RECORD_BYTES = 4 << 20


def has_hash(path: Path, xxh3_64: str, record: Path | None, *, lock: bool = True) -> bool:
    """Return whether the content of a file has a hash (64-bit xxh3, hex), from the record or by reading it.

    Parameters
    ----------
    path, xxh3_64
        the file, and the hash that it should have.
    record
        file with the results; if it is None or cannot be written, every process reads ``path``.
    lock
        whether processes that check the file at the same time wait for the result of the first one.
    """
    known = None if record is None else _record(record)
    with open(path, "rb") as stream:
        if known is not None and known.has(_key(stream, xxh3_64)):
            return True
        with _alone(stream) if lock else contextlib.nullcontext():
            key = _key(stream, xxh3_64)
            if known is not None and known.has(key):
                return True
            if xxh3_of_stream(stream) != xxh3_64:
                return False
            if known is not None and key == _key(stream, xxh3_64) and _is_settled(stream):
                known.add(key)
            return True


class _Record:
    """The part of a record that this process has read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: set[bytes] = set()
        self._num_bytes = 0

    def has(self, key: bytes) -> bool:
        """Return whether ``key`` is recorded."""
        if key not in self._keys:
            self._read()
        return key in self._keys

    def add(self, key: bytes) -> None:
        """Append ``key``; do nothing if the record cannot be written."""
        self._keys.add(key)
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(descriptor).st_size >= _MOST_RECORD_BYTES:
                    os.ftruncate(descriptor, 0)
                os.write(descriptor, key + b"\n")
            finally:
                os.close(descriptor)

    def _read(self) -> None:
        """Read the lines that other processes have added; start again if the record has become shorter."""
        with contextlib.suppress(OSError), open(self._path, "rb") as stream:
            if os.fstat(stream.fileno()).st_size < self._num_bytes:
                self._num_bytes = 0
            stream.seek(self._num_bytes)
            lines = stream.read(_MOST_RECORD_BYTES)
            whole = lines.rpartition(b"\n")[0] + b"\n" if b"\n" in lines else b""
            self._num_bytes += len(whole)
            self._keys.update(line for line in whole.split(b"\n") if len(line) == _KEY_BYTES)


@functools.cache
def _record(path: Path) -> _Record:
    return _Record(path)


def _key(stream: BinaryIO, xxh3_64: str) -> bytes:
    """Return a key that changes when the file or its expected content changes."""
    status = os.fstat(stream.fileno())
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, xxh3_64)
    return xxhash.xxh3_128(":".join(map(str, parts)).encode()).hexdigest().encode()


def _is_settled(stream: BinaryIO) -> bool:
    status = os.fstat(stream.fileno())
    return max(status.st_mtime_ns, status.st_ctime_ns) + _SETTLED_NS < time.time_ns()


@contextlib.contextmanager
def _alone(stream: BinaryIO) -> Iterator[None]:
    """Hold an exclusive lock on an open file, if its file system supports locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(stream, fcntl.LOCK_EX)
    yield
