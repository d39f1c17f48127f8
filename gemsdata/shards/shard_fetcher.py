"""Fetch shards of a set at a URL into the cache before they are read."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.shard_table import num_bytes_of

_MOST_AHEAD = 2
"""shards that are being fetched, or were fetched and not read yet"""
_LEAST_ROOM = 8
"""how many shards the cache must have room for"""


class ShardFetcher:
    """Fetches the next shards of one split in threads of the process that reads it.

    A fetched shard is in the cache and not pinned, so that it can be evicted where the reader needs the room. Errors
    are ignored: the reader fetches the shard again and raises them. Nothing is fetched for a local set, or if the cache
    has room for few shards.
    """

    def __init__(self, shards: ShardSet, split: str) -> None:
        self._shards = shards
        self._entries = shards.manifest.shards(split)
        limit = shards.store.max_bytes
        largest = 0 if limit is None else max(num_bytes_of(self._entries, shards.file_format), default=0)
        self._active = limit is not None and _LEAST_ROOM * largest <= limit
        self._lock = threading.Lock()
        self._ahead: dict[int, threading.Thread] = {}
        self._read: set[int] = set()
        self._elsewhere: set[int] = set()
        """shards that another process is fetching"""

    @property
    def has_room(self) -> bool:
        """Whether one more shard can be requested."""
        left = len(self._entries) - len(self._read) - len(self._ahead)
        return self._active and left > 0 and len(self._ahead) < _MOST_AHEAD

    def request(self, shards: Iterable[int]) -> None:
        """Start to fetch those of ``shards`` that are not read yet, as long as there is room."""
        with self._lock:
            for shard in shards:
                if not self.has_room:
                    return
                if shard not in self._ahead and shard not in self._read and shard not in self._elsewhere:
                    self._ahead[shard] = threading.Thread(target=self._fetch, args=(shard,), name="fetch", daemon=True)
                    self._ahead[shard].start()

    def begin(self, shard: int) -> None:
        """Wait for a shard that is being fetched; call this before the shard is read."""
        thread = self._ahead.get(shard)
        if thread is not None:
            thread.join()
        with self._lock:
            self._ahead.pop(shard, None)
            self._elsewhere.discard(shard)
            self._read.add(shard)

    def _fetch(self, shard: int) -> None:
        """Fetch a shard; one that another process is fetching makes room for the next one."""
        if not self._shards.store.fetch_ahead(self._entries[shard].files[self._shards.file_format]):
            with self._lock:
                self._ahead.pop(shard, None)
                self._elsewhere.add(shard)

    def forget(self, shard: int) -> None:
        """Allow a shard that was closed to be fetched again."""
        self._read.discard(shard)
