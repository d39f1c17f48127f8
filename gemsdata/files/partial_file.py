"""The local copy of a remote file of which only some pieces have been fetched."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

PIECE_BYTES = 1 << 15
_MOST_BYTES_AT_ONCE = 8 << 20
"""of neighbouring pieces that one request asks for"""
_HASH_BYTES = 8


class RangesUnsupportedError(OSError):
    """The server sends only whole files."""


def partial_bytes(num_bytes: int) -> int:
    """Return the size of the copy of a file of ``num_bytes``: its content, and a hash for each piece."""
    return num_bytes + _HASH_BYTES * _num_pieces(num_bytes)


class PartialFile:
    """A sparse file with the size of a remote file, followed by the 64-bit xxh3 of each piece that is there (else 0).

    Processes of a machine share the file: a piece is written before its hash, and every process compares them once, so
    that a piece that is half-written, or was lost in a crash, is fetched again. ``map`` (`pyarrow.Buffer`) is the
    mapped content; only ranges given to `fetch` may be read.

    Parameters
    ----------
    path
        an existing file of `partial_bytes` bytes.
    num_bytes
        size of the remote file.
    read
        returns bytes begin .. end - 1 of the remote file.
    """

    def __init__(self, path: Path, num_bytes: int, read: Callable[[int, int], bytes]) -> None:
        self._path, self._num_bytes, self._read = path, num_bytes, read
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self.map = pa.py_buffer(mmap.mmap(self._descriptor, num_bytes, prot=mmap.PROT_READ))
        self._here = np.zeros(_num_pieces(num_bytes), bool)
        self._coming: set[int] = set()
        self._changed = threading.Condition()

    def fetch(self, begin: np.ndarray, end: np.ndarray) -> None:
        """Fetch the pieces that hold bytes begin[i] .. end[i] - 1 (int64[m] each) and are not here yet.

        Raises what ``read`` raises, and OSError if the disk is full.
        """
        edges = np.zeros(len(self._here) + 1, np.int64)
        np.add.at(edges, begin // PIECE_BYTES, 1)
        np.add.at(edges, (end - 1) // PIECE_BYTES + 1, -1)
        wanted = np.cumsum(edges[:-1]) > 0
        while True:
            with self._changed:
                missing = np.flatnonzero(wanted & ~self._here)
                own = [piece for piece in missing.tolist() if piece not in self._coming]
                if not missing.size:
                    return
                if not own:  # other threads fetch them
                    self._changed.wait()
                    continue
                self._coming.update(own)
            try:
                self._fetch_own(np.array(own))
            finally:
                with self._changed:
                    self._coming.difference_update(own)
                    self._changed.notify_all()

    def _fetch_own(self, pieces: np.ndarray) -> None:
        """Fetch pieces, int64[m] in order, except those that another process has fetched."""
        absent = pieces[[not self._is_whole(piece) for piece in pieces.tolist()]]
        self._here[np.setdiff1d(pieces, absent)] = True
        most = _MOST_BYTES_AT_ONCE // PIECE_BYTES
        for run in np.split(absent, np.flatnonzero(np.diff(absent) > 1) + 1):
            for first in range(0, len(run), most):
                self._fetch_run(run[first : first + most])

    def _fetch_run(self, pieces: np.ndarray) -> None:
        """Fetch neighbouring pieces with one request."""
        begin, end = int(pieces[0]) * PIECE_BYTES, min((int(pieces[-1]) + 1) * PIECE_BYTES, self._num_bytes)
        content = self._read(begin, end)
        if len(content) != end - begin:
            raise OSError(f"{end - begin} bytes were asked for and {len(content)} sent")
        hashes = [_hash_of(content[i : i + PIECE_BYTES]) for i in range(0, len(content), PIECE_BYTES)]
        try:
            os.pwrite(self._descriptor, content, begin)
            os.pwrite(self._descriptor, b"".join(hashes), self._hash_at(int(pieces[0])))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            advice = "free some space, or set GEMSDATA_CACHE to a folder of another disk"
            raise OSError(error.errno, f"{os.strerror(error.errno)}; {advice}", str(self._path.parent)) from None
        self._here[pieces] = True

    def _is_whole(self, piece: int) -> bool:
        """Return whether a piece is in the file and has its hash."""
        stored = os.pread(self._descriptor, _HASH_BYTES, self._hash_at(piece))
        begin = piece * PIECE_BYTES
        return any(stored) and _hash_of(self.map[begin : min(begin + PIECE_BYTES, self._num_bytes)]) == stored

    def _hash_at(self, piece: int) -> int:
        return self._num_bytes + _HASH_BYTES * piece


def _num_pieces(num_bytes: int) -> int:
    return -(-num_bytes // PIECE_BYTES)


def _hash_of(content: bytes | pa.Buffer) -> bytes:
    return max(xxhash.xxh3_64_intdigest(content), 1).to_bytes(_HASH_BYTES, "little")
