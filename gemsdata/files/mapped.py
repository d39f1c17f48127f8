"""Memory-mapped files that others may truncate or overwrite while they are read.

Reading beyond the end of a file that was truncated after it was mapped raises SIGBUS, which ends the process without a
message. On Linux, a handler replaces the lost pages by zeros and records the file, so that the reader continues and can
raise an error that names the file. Changes that cause no signal (a file that was overwritten, or truncated within its
last page) are found by comparing size and modification time at intervals, which costs a microsecond per file.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INTERVAL_S = 1.0
"""interval between two checks of a file's size and time of change"""
_SI_ADDR_OFFSET = 16  # of siginfo_t.si_addr on 64-bit Linux
_SA_SIGINFO, _SA_NODEFER = 4, 0x40000000
_MAP_FIXED = 0x10


@dataclass(kw_only=True, eq=False)
class _Map:
    """One mapped file."""

    path: Path
    address: int
    num_bytes: int
    is_intact: Callable[[Path], bool]
    status: os.stat_result
    lost_pages: bool = field(default=False)

    def check(self) -> None:
        """Raise ValueError if the mapped content has changed."""
        if self.lost_pages:
            self._raise("was truncated")
        try:
            now = os.stat(self.path)
        except OSError:
            return  # renamed or removed: the mapped content stays as it is
        if (now.st_dev, now.st_ino) != (self.status.st_dev, self.status.st_ino):
            return  # replaced by another file: likewise
        if now.st_size != self.status.st_size:
            self._raise(f"has {now.st_size} bytes, {self.status.st_size} when it was opened: it was truncated")
        if now.st_mtime_ns != self.status.st_mtime_ns:
            if not self.is_intact(self.path):
                self._raise("was overwritten")
            self.status = now  # only touched

    def _raise(self, what: str) -> None:
        raise ValueError(
            f"shard {self.path} {what} while it was read; batches since then may hold wrong rows: restore it, and"
            " resume from an earlier state"
        )


_maps: dict[int, _Map] = {}
"""all mapped files of this process, by address; replaced, never changed, so that the handler can read it any time"""
_lock = threading.Lock()


class MappedFiles:
    """The mapped files of one reader; each is compared with its state at the time when it was added."""

    def __init__(self) -> None:
        self._own: dict[Hashable, _Map] = {}
        self._checked_at = time.monotonic()
        # not __del__, which may run after the interpreter has cleared this module's names
        weakref.finalize(self, _forget, self._own).atexit = False

    def add(self, key: Hashable, path: Path, buffer: Any, is_intact: Callable[[Path], bool]) -> None:
        """Watch a file that is mapped at ``buffer`` (`pyarrow.Buffer`) until it is removed.

        ``is_intact`` is called for a file with a new modification time and returns whether its content is still
        correct.
        """
        install_handler()
        entry = _Map(
            path=path,
            address=buffer.address,
            num_bytes=buffer.size,
            is_intact=is_intact,
            status=os.stat(path),
        )
        self._own[key] = entry
        with _lock:
            globals()["_maps"] = {**_maps, entry.address: entry}

    def remove(self, key: Hashable) -> None:
        """Stop watching a file; call this before it is unmapped."""
        entry = self._own.pop(key, None)
        if entry is not None:
            _forget({key: entry})

    def check(self, *, now: bool = False) -> None:
        """Raise ValueError if a file has lost pages or (checked once a second, or ``now``) was changed."""
        if _handler.num_faults and any(entry.lost_pages for entry in self._own.values()):
            now = True
        if not now and time.monotonic() < self._checked_at + INTERVAL_S:
            return
        for entry in list(self._own.values()):
            entry.check()
        self._checked_at = time.monotonic()


def _forget(entries: dict[Hashable, _Map]) -> None:
    """Stop watching the files of ``entries``."""
    global _maps
    with _lock:
        gone = {id(entry) for entry in entries.values()}
        _maps = {address: entry for address, entry in _maps.items() if id(entry) not in gone}


class _SigAction(ctypes.Structure):
    """``struct sigaction`` of the C libraries of 64-bit Linux."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _Handler:
    """The handler of SIGBUS: it fills a fault in a registered file with zeros and records it, and passes on others."""

    def __init__(self) -> None:
        self.num_faults = 0
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(3 * [ctypes.c_int]), ctypes.c_long)
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(self._on_fault)
        self._own = _SigAction()
        self._own.handler = ctypes.cast(self._callback, ctypes.c_void_p)
        self._own.flags = _SA_SIGINFO | _SA_NODEFER
        self._previous = _SigAction()

    def install(self) -> None:
        """Install the handler of SIGBUS; do nothing if it is installed already."""
        current = _SigAction()
        self._libc.sigaction(signal.SIGBUS, None, ctypes.byref(current))
        if current.handler != self._own.handler:
            self._libc.sigaction(signal.SIGBUS, ctypes.byref(self._own), ctypes.byref(self._previous))

    def _on_fault(self, _: int, info: int, __: int) -> None:
        """Handle a fault, in the thread that was reading and so holds no lock of the interpreter or of malloc."""
        address = ctypes.c_void_p.from_address(info + _SI_ADDR_OFFSET).value or 0
        for entry in _maps.values():
            if entry.address <= address < entry.address + entry.num_bytes:
                first = address - address % mmap.PAGESIZE
                end = -(-(entry.address + entry.num_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
                flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
                if self._libc.mmap(first, end - first, mmap.PROT_READ, flags, -1, 0) == first:
                    entry.lost_pages = True
                    self.num_faults += 1
                    return
        self._libc.sigaction(signal.SIGBUS, ctypes.byref(self._previous), None)  # not registered: the read faults again


class _NoHandler:
    """Replacement for systems without the handler: changes are found only by checking the files."""

    num_faults = 0

    def install(self) -> None:
        """Do nothing."""


_handler: _Handler | _NoHandler = (
    _Handler() if sys.platform == "linux" and ctypes.sizeof(ctypes.c_void_p) == 8 else _NoHandler()
)


def install_handler() -> None:
    """Handle SIGBUS in this process; call it again if others (such as torch, in workers) replace the handler."""
    _handler.install()
