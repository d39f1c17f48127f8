"""Fetch blocks of packed bases at a URL before they are read."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable

import numpy as np

_MOST_AHEAD = 4
"""requests for blocks that are carried out at a time"""


class BlockFetcher:
    """Calls ``fetch`` with the blocks of later batches, in threads of the process that reads them.

    ``fetch`` is a method of the reader, of which a weak reference is kept: a reader that is no longer used is deleted
    at once, with its pins on files of the cache. Errors are ignored: the reader fetches the blocks again and raises
    them.
    """

    def __init__(self, fetch: Callable[[np.ndarray], None]) -> None:
        self._fetch = weakref.WeakMethod(fetch)
        self._running = 0
        self._lock = threading.Lock()

    @property
    def has_room(self) -> bool:
        """Whether more blocks can be requested."""
        return self._running < _MOST_AHEAD

    def request(self, blocks: np.ndarray) -> None:
        """Start to fetch blocks, int64[m] in order."""
        self._count(1)
        threading.Thread(target=self._run, args=(blocks,), name="fetch", daemon=True).start()

    def _run(self, blocks: np.ndarray) -> None:
        fetch = self._fetch()
        if fetch is not None:
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                fetch(blocks)
        self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._running += change
