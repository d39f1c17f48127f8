"""A folder of bounded size that keeps fetched files under the hash of their content.

A file is downloaded to a temporary name, checked against its sha256 and size, and renamed; a file with its final name
is therefore complete and correct, and is not checked again. Any number of processes can share a folder: the process
that downloads a file locks its temporary file, and the lock ends with the process. A reader pins a file with a shared
lock; only unpinned files are evicted, the least recently used first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

_PARTIAL = ".part"
_LOCK, _TURN = "lock", "turn"
WAIT_S = 600.0
"""how long a reader waits for free space, or for the download of another process"""
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.5
_IN_VAIN_S = 1.0
"""how long a reader waits for files that its own process uses, in other threads"""


class _Pause:
    """Increasing sleeps, until ``limit_s`` seconds have passed since it was created."""

    def __init__(self, limit_s: float) -> None:
        self._end = time.monotonic() + limit_s
        self._pause_s = _SHORTEST_PAUSE_S

    def __call__(self) -> bool:
        """Sleep; when the time limit is reached, return False at once."""
        left_s = self._end - time.monotonic()
        if left_s <= 0:
            return False
        time.sleep(min(left_s, self._pause_s * random.uniform(0.5, 1)))
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return True


class Pin:
    """Keeps one cached file from being evicted, until it is released or the process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.num_bytes = os.fstat(descriptor).st_size
        self._descriptor = descriptor
        self._close = os.close  # kept for use at the exit of the interpreter

    @property
    def pinned(self) -> bool:
        """Whether the file is still pinned."""
        return self._descriptor >= 0

    def release(self) -> None:
        """Release the pin; the file may be evicted."""
        if self._descriptor >= 0:
            self._close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.release()


class _Together(threading.local):
    """Whether a thread fetches files that it needs at a time."""

    entered = False


class ContentError(ValueError):
    """The downloaded content does not match its hash."""


class FileCache:
    """Files by content hash in ``folder``, with a total size of at most ``max_bytes``.

    ``wait_s`` limits how long `fetch` waits for free space, or for another process that downloads the same file.
    """

    def __init__(self, folder: str | Path, max_bytes: int, wait_s: float = WAIT_S) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.wait_s = wait_s
        self._pins: weakref.WeakSet[Pin] = weakref.WeakSet()
        self._releases: list[weakref.WeakMethod[Callable[[], None]]] = []
        self._turn: tuple[int, BinaryIO] | None = None
        self._turn_lock = threading.Lock()
        self._together = _Together()

    def on_full(self, release: Callable[[], None]) -> None:
        """Call the method ``release``, while its object lives, whenever a fetch of this process waits for room.

        Jobs that wait for a file and meanwhile keep others could wait for each other for ever. So who waits keeps none,
        and fetches those that it needs at a time, within `fetching_together`, when it is its turn.
        """
        self._releases = [one for one in self._releases if one() is not None]
        self._releases.append(weakref.WeakMethod(release))

    @contextlib.contextmanager
    def fetching_together(self) -> Iterator[None]:
        """End the turn of this thread, if it has had to wait for one, when all that it needs is there."""
        self._together.entered = True
        try:
            yield
        finally:
            self._together.entered = False
            with self._turn_lock:
                if self._turn is not None and self._owns_turn():
                    self._turn[1].close()
                    self._turn = None

    def _owns_turn(self) -> bool:
        return self._turn is not None and self._turn[0] == threading.get_ident()

    def _release_all(self) -> None:
        for release in [method() for method in self._releases]:
            if release is not None:
                release()

    def _has_turn(self) -> bool:
        """Take the turn, of all processes and threads that wait for room, unless another has it."""
        with self._turn_lock:
            if self._turn is None:
                stream = open(self.folder / _TURN, "ab")  # noqa: SIM115  (open until the turn ends)
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    stream.close()
                    return False
                self._turn = (threading.get_ident(), stream)
            return self._owns_turn()

    def fetch(self, sha256: str, num_bytes: int, download: Callable[[BinaryIO], None]) -> Pin:
        """Return a pin on the file whose content hashes to ``sha256`` (hex); download it if it is not in the cache.

        ``download`` writes the content to the stream it gets. Raises ContentError if it does not match the hash,
        ValueError if it is larger than the whole cache, OSError if the disk is full or the files in use leave no free
        space for ``wait_s``, TimeoutError if the download by another process takes longer than ``wait_s``.
        """
        return self._get(sha256, num_bytes, lambda partial, path: self._download(partial, path, num_bytes, download))

    def reserve(self, name: str, num_bytes: int) -> Pin:
        """Return a pin on the file ``name``, which is created with ``num_bytes`` zeros, as a sparse file.

        Who writes to it is responsible for its content. Raises ValueError and OSError as `fetch` does.
        """
        return self._get(name, num_bytes, self._publish)

    def _get(self, name: str, num_bytes: int, make: Callable[[BinaryIO, Path], None]) -> Pin:
        """Return a pin on a file; if there is none, ``make`` completes a temporary file of its size, and renames it."""
        if num_bytes > self.max_bytes:
            raise ValueError(
                f"a file of {num_bytes:,} bytes does not fit a cache of {self.max_bytes:,}; raise cache_bytes"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        pause, in_vain = _Pause(self.wait_s), _Pause(_IN_VAIN_S)
        wanted = 0
        while True:
            if wanted and self._together.entered and not self._has_turn() and pause():
                continue
            pin = _pinned(path)
            if pin is not None:
                os.utime(path)
                self._pins.add(pin)
                return pin
            with _locked(path.with_name(path.name + _PARTIAL)) as partial:
                if partial is None:
                    wanted = 0
                elif path.exists():
                    continue
                else:
                    wanted = self._reserve(partial, num_bytes)
                    if not wanted:
                        make(partial, path)
                        continue
            own_are_too_many = self._pinned_bytes() + num_bytes > self.max_bytes
            if wanted and (own_are_too_many or not self._owns_turn()):
                self._release_all()
                own_are_too_many = self._pinned_bytes() + num_bytes > self.max_bytes
            if wanted and own_are_too_many and not in_vain():
                raise OSError(_no_room(self.folder, "is full of files that this process uses", wanted, self.max_bytes))
            if pause():
                continue
            waited = f"for {self.wait_s:g} s"
            if not wanted:
                raise TimeoutError(f"another process has been downloading {path} {waited}; end it, or try again")
            raise OSError(_no_room(self.folder, f"was full of files in use {waited}", wanted, self.max_bytes))

    def _download(self, partial: BinaryIO, path: Path, num_bytes: int, download: Callable[[BinaryIO], None]) -> None:
        try:
            bounded = _Bounded(partial, num_bytes)
            download(cast(BinaryIO, bounded))
            partial.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OSError(
                error.errno,
                f"{os.strerror(error.errno)}; free some space, or set GEMSDATA_CACHE to a folder of another disk",
                str(self.folder),
            ) from None
        written, found = partial.tell(), bounded.sha256.hexdigest()
        if found != path.name or written != num_bytes:
            raise ContentError(
                f"what was fetched has sha256 {found} and {written:,} bytes instead of {path.name} and {num_bytes:,}:"
                " it is damaged, truncated, or of another version of the set"
            )
        os.fsync(partial.fileno())
        self._publish(partial, path)

    def _publish(self, partial: BinaryIO, path: Path) -> None:
        """Give a complete temporary file its name."""
        with self._counting():  # who counts meanwhile would find it under neither name
            os.replace(path.with_name(path.name + _PARTIAL), path)

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        """Hold the lock under which files are counted, evicted and renamed."""
        with open(self.folder / _LOCK, "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _reserve(self, partial: BinaryIO, num_bytes: int) -> int:
        """Evict files until ``partial`` fits and give it its size, so that other downloads count it; return 0.

        If the files in use do not leave enough space, ``partial`` stays empty and the size that the cache would need is
        returned.
        """
        with self._counting():
            partial.truncate(0)
            files = sorted((status.st_mtime_ns, status.st_size, path) for path, status in self._files())
            total = sum(size for _, size, _ in files) + num_bytes
            for _, size, path in files:
                if total <= self.max_bytes:
                    break
                if size and _evicted(path):
                    total -= size
            if total > self.max_bytes:
                return total
            partial.truncate(num_bytes)
            return 0

    def _pinned_bytes(self) -> int:
        """Return the number of bytes that are pinned by this process."""
        return sum({pin.path: pin.num_bytes for pin in self._pins if pin.pinned}.values())

    def __getstate__(self) -> dict[str, Any]:
        of_this_process = ("_pins", "_releases", "_turn", "_turn_lock", "_together")
        return {name: value for name, value in self.__dict__.items() if name not in of_this_process}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.name not in (_LOCK, _TURN):
                    yield path, path.stat()


class _Bounded:
    """The output stream of a download; it accepts no more bytes than the manifest announces."""

    def __init__(self, stream: BinaryIO, num_bytes: int) -> None:
        self._stream, self._num_bytes = stream, num_bytes
        self.sha256 = hashlib.sha256()
        """of what was written"""
        self.tell, self.flush = stream.tell, stream.flush

    def write(self, content: bytes) -> int:
        """Write ``content``; raise ContentError if it exceeds the announced size."""
        if self.tell() + len(content) > self._num_bytes:
            raise ContentError(f"the download has more than the {self._num_bytes:,} bytes of the manifest")
        self.sha256.update(content)
        return self._stream.write(content)


def _no_room(folder: Path, why: str, wanted: int, allowed: int) -> str:
    return (
        f"the cache {folder} {why}: {wanted:,} bytes are needed, {allowed:,} allowed; raise cache_bytes, or use a"
        " smaller shuffle window or fewer workers"
    )


def _pinned(path: Path) -> Pin | None:
    """Return a pin on ``path``; None if it does not exist or was evicted in the meantime."""
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
    """Lock the temporary file ``path`` and remove it at the end; None if another process holds the lock.

    Never waits for a lock: the file gets its final name and is then pinned, for as long as somebody uses it.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as stream:
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
