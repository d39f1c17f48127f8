"""Bases of any stretch of a packed shard set, read from memory maps."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np

from gemsdata.files.hashing import xxh3_of
from gemsdata.files.mapped import MappedFiles
from gemsdata.kernels.bases import NOT_ACGT, mark, unpack_rows
from gemsdata.shards.packed import PackedShard, cut_blocks, split_stretches
from gemsdata.shards.shard_fetcher import ShardFetcher
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.shard_table import column_of, num_bytes_of
from gemsdata.shards.storage import open_together
from gemsdata.views.regions import contigs_of

_OF_A_PROCESS = ("_lock", "_files", "_address", "_kept", "_recent", "_why", "_gaps", "_fetcher")


class BaseReader:
    """Reads bases of one split of a packed shard set.

    Parameters
    ----------
    shards, split
        the set and which split of it.
    check
        how a shard's file is compared with the manifest on first access: by "hash" or by "size", see
        `gemsdata.shards.split_reader.SplitReader`.
    faults
        "raise", or "skip-and-count": rows of a damaged shard are reported as lost.

    Notes
    -----
    A block needs eight bytes for its address, and a shard its map. Files are opened by the process that reads them.
    """

    def __init__(self, shards: ShardSet, split: str, *, check: str = "hash", faults: str = "raise") -> None:
        self.shards, self.split, self.check, self.faults = shards, split, check, faults
        self.contigs = contigs_of(shards)
        self.stretches = split_stretches(shards.manifest)[split]
        """parts of contigs that the split holds, (contig, start, end) int64[m, 3]"""
        self._line_start = self.contigs.on_line(self.stretches)[:, 0]
        self._block_bases = shards.manifest.row_tokens
        self._first_block = cut_blocks(self.stretches, self._block_bases)[1]
        entries = shards.manifest.shards(split)
        self._first_of_shard = np.array([*column_of(entries, "first_row"), self._first_block[-1]], np.int64)
        limit = shards.store.max_bytes
        self.needs_windows = limit is not None and sum(num_bytes_of(entries, "packed")) > limit
        """whether the split exceeds the cache: shards are closed after use, and the order must read few at a time"""
        self._start()

    def _start(self) -> None:
        """Initialise the state that belongs to one process."""
        self._lock = threading.RLock()
        self._address = np.zeros(int(self._first_block[-1]), np.int64)
        self._files = MappedFiles()
        self._kept: dict[int, PackedShard] = {}
        self._recent: set[int] = set()
        self._why: dict[int, str] = {}
        if self.needs_windows:
            self.shards.store.on_full(self._make_room)
        self._fetcher = ShardFetcher(self.shards, self.split)

    def read(
        self, contig: np.ndarray, start: np.ndarray, num_bases: np.ndarray, out: np.ndarray
    ) -> tuple[np.ndarray, str]:
        """Write rows of bases to out uint8[B, W]: A0 T1 C2 G3, 4 for any other letter.

        Row i has bases start[i] .. start[i] + num_bases[i] - 1 (int64[B]) of contig[i] (int64[B]), within one stretch
        of the split, and at least one. Returns which rows were lost to damaged shards, bool[B] (nothing is written for
        them), and the reason for one of them.
        """
        place = self.contigs.offset[contig] + start
        stretch = np.searchsorted(self._line_start, place, side="right") - 1
        offset = place - self._line_start[stretch]
        first_block = self._first_block[stretch]
        first = self._shard_of(first_block + offset // self._block_bases)
        last = self._shard_of(first_block + (offset + num_bases - 1) // self._block_bases)
        with self._lock:
            address, held = self._opened(first, last)
            lost = np.zeros(len(place), bool)
            for shard in self._why:
                lost |= (first <= shard) & (shard <= last)
        readable = np.where(lost, 0, num_bases)
        unpack_rows(address, first_block, offset, readable, self._block_bases, out)
        del held  # keep the maps alive until here
        self._files.check()
        if self._gaps[0].size:
            mark(*self._gaps, place, readable, NOT_ACGT, out)
        why = ""
        if lost.any():
            index = int(np.flatnonzero(lost)[0])
            why = next(self._why[shard] for shard in range(first[index], last[index] + 1) if shard in self._why)
        return lost, why

    @property
    def fetches_ahead(self) -> bool:
        """Whether `fetch_ahead` can fetch another shard."""
        return self._fetcher.has_room

    def fetch_ahead(self, contig: np.ndarray, start: np.ndarray) -> None:
        """Start to fetch the shards that hold bases ``start`` of ``contig``, int64[B] each, while there is room."""
        place = self.contigs.offset[contig] + start
        stretch = np.searchsorted(self._line_start, place, side="right") - 1
        block = self._first_block[stretch] + (place - self._line_start[stretch]) // self._block_bases
        self._fetcher.request(np.unique(self._shard_of(block)).tolist())

    @functools.cached_property
    def _gaps(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends of non-ACGT intervals on the line of the contigs, int64[m] each."""
        return _edges(self.contigs.on_line(self.shards.intervals("gap")))

    def _shard_of(self, block: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._first_of_shard, block, side="right") - 1

    def _opened(self, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, list[PackedShard]]:
        """Open shards first[i] .. last[i]; return the addresses of all blocks, and the objects that keep them valid."""
        wanted = set(np.unique(np.concatenate([first, last])).tolist())
        if (last - first > 1).any():
            wanted = {shard for a, b in zip(first.tolist(), last.tolist(), strict=True) for shard in range(a, b + 1)}
        if wanted - self._kept.keys() - self._why.keys():
            self._open_all(wanted)
        held = [self._kept[shard] for shard in wanted if shard in self._kept]
        if not self.needs_windows:
            return self._address, held
        self._let_go(wanted)
        return self._address.copy(), held  # another thread may open a shard again, elsewhere, before this one has read

    def _open_all(self, wanted: set[int]) -> None:
        """Open the shards that are not open; each may close the others, see `_make_room`."""
        entries = self.shards.manifest.shards(self.split)
        open_together(
            self.shards.store,
            {shard: entries[shard].files["packed"].num_bytes for shard in wanted},
            lambda: sorted(wanted - self._kept.keys() - self._why.keys()),
            self._open,
            self._fetcher.request,
        )

    def _let_go(self, wanted: set[int]) -> None:
        """Close the shards that neither this read nor the one before touched."""
        for shard in self._kept.keys() - wanted - self._recent:
            self._files.remove(shard)
            self._fetcher.forget(shard)
            del self._kept[shard]
        self._recent = wanted

    def _make_room(self) -> None:
        """Close all shards: the cache is full, and other jobs may wait for those that this one keeps."""
        if self._lock.acquire(blocking=False):  # else another thread opens shards, and is asked itself
            self._recent = set()
            self._let_go(set())
            self._lock.release()

    def _open(self, shard: int) -> None:
        begin, end = (int(block) for block in self._first_of_shard[shard : shard + 2])
        self._fetcher.begin(shard)
        try:
            opened = self.shards.open_packed_shard(self.split, shard, check=self.check)
            self._address[begin:end] = opened.addresses(end - begin)
        except (FileNotFoundError, ValueError, OSError) as error:
            if self.faults == "raise":
                raise
            self._why[shard] = str(error)
        else:
            self._kept[shard] = opened
            expected = self.shards.manifest.shards(self.split)[shard].files["packed"].xxh3_64
            self._files.add(shard, opened.path, opened.map, lambda path: xxh3_of(path) == expected)

    def check_unchanged(self) -> None:
        """Raise ValueError if the set or one of its open files was changed since it was opened."""
        self.shards.check_unchanged()
        self._files.check(now=True)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _OF_A_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def _edges(intervals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return intervals[:, 0].copy(), intervals[:, 1].copy()
