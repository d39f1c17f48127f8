"""A folder of bounded size that keeps fetched files under the hash of their content.

A file is downloaded to a temporary name, compared with its sha256 and size, and renamed; so what has its final name is
whole and right, and never checked again. Any number of processes share a folder: the one that downloads a file holds a
lock on its temporary file, which dies with the process. A reader pins a file by a shared lock on it; only files that
nobody pins are evicted, the one that was used longest ago first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from gemsdata.files.hashing import sha256_of_stream

_PARTIAL = ".part"
_WAIT_S = 0.02


class Pin:
    """Keeps one cached file from being evicted, until it is released or the process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._close = os.close  # still there when the interpreter ends

    def release(self) -> None:
        """Let the file go."""
        if self._descriptor >= 0:
            self._close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.release()


class FileCache:
    """Files by content hash in ``folder``, at most ``max_bytes`` of them together."""

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes

    def fetch(self, sha256: str, num_bytes: int, download: Callable[[BinaryIO], None]) -> Pin:
        """Return a pin on the file whose content hashes to ``sha256`` (hex), downloaded if it is not there.

        ``download`` writes the content to the stream it gets. Raises ValueError when that is not what the hash says or
        larger than the whole cache, OSError when the files in use leave no room.
        """
        if num_bytes > self.max_bytes:
            raise ValueError(
                f"a file of {num_bytes:,} bytes does not fit a cache of {self.max_bytes:,}; raise cache_bytes"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / sha256
        while True:
            pin = _pinned(path)
            if pin is not None:
                os.utime(path)
                return pin
            with _locked(path.with_name(path.name + _PARTIAL)) as partial:
                if partial is None:
                    time.sleep(_WAIT_S)
                elif not path.exists():
                    self._download(partial, path, num_bytes, download)

    def _download(self, partial: BinaryIO, path: Path, num_bytes: int, download: Callable[[BinaryIO], None]) -> None:
        self._reserve(partial, num_bytes)
        download(partial)
        partial.flush()
        written = partial.tell()
        partial.seek(0)
        found = sha256_of_stream(partial)
        if found != path.name or written != num_bytes:
            raise ValueError(
                f"what was fetched has sha256 {found} and {written:,} bytes, wanted are {path.name} and {num_bytes:,}:"
                " it is damaged, truncated, or of another version of the set"
            )
        os.fsync(partial.fileno())
        os.replace(path.with_name(path.name + _PARTIAL), path)

    def _reserve(self, partial: BinaryIO, num_bytes: int) -> None:
        """Evict until there is room, and give ``partial`` its size, so that other downloads count it."""
        with open(self.folder / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            partial.truncate(0)
            files = sorted((status.st_mtime_ns, status.st_size, path) for path, status in self._files())
            total = sum(size for _, size, _ in files) + num_bytes
            for _, size, path in files:
                if total <= self.max_bytes:
                    break
                if size and _evicted(path):
                    total -= size
            if total > self.max_bytes:
                raise OSError(
                    f"the cache {self.folder} is full of files in use: {total:,} bytes are needed, {self.max_bytes:,}"
                    " allowed; raise cache_bytes, or use a smaller shuffle window or fewer workers"
                )
            partial.truncate(num_bytes)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.name != "lock":
                    yield path, path.stat()


def _pinned(path: Path) -> Pin | None:
    """Return a pin on ``path``; None when it is not there, or was evicted meanwhile."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if os.fstat(descriptor).st_nlink:
        return Pin(path, descriptor)
    os.close(descriptor)
    return None


def _evicted(path: Path) -> bool:
    """Remove ``path`` unless it is pinned."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO | None]:
    """Hold the temporary file ``path``, alone, and remove it in the end; None when another process holds it.

    Never waits for a lock: the file gets its final name and is then pinned, for as long as somebody uses it.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        try:
            yield stream if _is(path, stream) else None
        finally:
            if _is(path, stream):
                path.unlink()


def _is(path: Path, stream: BinaryIO) -> bool:
    try:
        return path.stat().st_ino == os.fstat(stream.fileno()).st_ino
    except FileNotFoundError:
        return False


def copy_stream(source: BinaryIO, target: BinaryIO) -> None:
    """Copy all of ``source`` to ``target`` in pieces of a MiB."""
    shutil.copyfileobj(source, target, 1 << 20)
