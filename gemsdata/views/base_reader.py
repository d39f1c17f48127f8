"""Bases of any stretch of a packed shard set, read from memory maps."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np

from gemsdata.files.hashing import xxh3_of
from gemsdata.files.mapped import MappedFiles
from gemsdata.files.partial_file import RangesUnsupportedError
from gemsdata.kernels.bases import NOT_ACGT, mark, unpack_rows
from gemsdata.shards.packed import PackedShard, cut_blocks, split_stretches
from gemsdata.shards.packed_ranges import PackedRanges
from gemsdata.shards.shard_fetcher import ShardFetcher
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.shard_table import column_of, num_bytes_of
from gemsdata.shards.storage import open_together
from gemsdata.views.block_fetcher import BlockFetcher
from gemsdata.views.regions import contigs_of

_OF_A_PROCESS = ("_lock", "_files", "_address", "_kept", "_recent", "_why", "_gaps", "_fetcher", "_blocks_ahead")


class BaseReader:
    """Reads bases of one split of a packed shard set.

    Parameters
    ----------
    shards, split
        the set and which split of it.
    check
        how a shard's file is compared with the manifest on first access: by "hash" or by "size", see
        `gemsdata.shards.split_reader.SplitReader`. Of a shard at a URL, "hash" fetches the whole file, "size" only the
        ranges that are read.
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
        self._in_ranges = check == "size" and limit is not None
        self._start()

    def _start(self) -> None:
        """Initialise the state that belongs to one process."""
        self._lock = threading.RLock()
        self._address = np.zeros(int(self._first_block[-1]), np.int64)
        self._files = MappedFiles()
        """of each block, 0 if it is not here"""
        self._kept: dict[int, PackedShard | PackedRanges] = {}
        self._recent: set[int] = set()
        self._why: dict[int, str] = {}
        if self.needs_windows:
            self.shards.store.on_full(self._make_room)
        self._fetcher = ShardFetcher(self.shards, self.split)
        self._blocks_ahead = BlockFetcher(self._fetch_blocks)

    def read(
        self, contig: np.ndarray, start: np.ndarray, num_bases: np.ndarray, out: np.ndarray
    ) -> tuple[np.ndarray, str]:
        """Write rows of bases to out uint8[B, W]: A0 T1 C2 G3, 4 for any other letter.

        Row i has bases start[i] .. start[i] + num_bases[i] - 1 (int64[B]) of contig[i] (int64[B]), within one stretch
        of the split, and at least one. Returns which rows were lost to damaged shards, bool[B] (nothing is written for
        them), and the reason for one of them.
        """
        place = self.contigs.offset[contig] + start
        first_block, offset = self._blocks_of(place)
        blocks = (
            first_block + offset // self._block_bases,
            first_block + (offset + num_bases - 1) // self._block_bases,
        )
        first, last = self._shard_of(blocks[0]), self._shard_of(blocks[1])
        with self._lock:
            address, held = self._opened(blocks, first, last)
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
        """Whether `fetch_ahead` can fetch more."""
        if self._in_ranges:
            return not self.needs_windows and self._blocks_ahead.has_room
        return self._fetcher.has_room

    def fetch_ahead(self, contig: np.ndarray, start: np.ndarray, num_bases: np.ndarray) -> None:
        """Start to fetch what `read` will need for these rows, while there is room."""
        first_block, offset = self._blocks_of(self.contigs.offset[contig] + start)
        first = first_block + offset // self._block_bases
        if not self._in_ranges:
            self._fetcher.request(np.unique(self._shard_of(first)).tolist())
            return
        last = first_block + (offset + num_bases - 1) // self._block_bases
        blocks = self._missing(first, last)
        if blocks.size:
            self._blocks_ahead.request(blocks)

    def _blocks_of(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first block of the stretch of each position on the line, and the position's offset in it."""
        stretch = np.searchsorted(self._line_start, place, side="right") - 1
        return self._first_block[stretch], place - self._line_start[stretch]

    @functools.cached_property
    def _gaps(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends of non-ACGT intervals on the line of the contigs, int64[m] each."""
        return _edges(self.contigs.on_line(self.shards.intervals("gap")))

    def _shard_of(self, block: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._first_of_shard, block, side="right") - 1

    def _opened(
        self, blocks: tuple[np.ndarray, np.ndarray], first: np.ndarray, last: np.ndarray
    ) -> tuple[np.ndarray, list[PackedShard | PackedRanges]]:
        """Open shards first[i] .. last[i], which hold blocks blocks[0][i] .. blocks[1][i].

        Return the addresses of all blocks, and the objects that keep them valid.
        """
        wanted = set(np.unique(np.concatenate([first, last])).tolist())
        if (last - first > 1).any():
            wanted = {shard for a, b in zip(first.tolist(), last.tolist(), strict=True) for shard in range(a, b + 1)}
        if wanted - self._kept.keys() - self._why.keys():
            self._open_all(wanted)
        if self._in_ranges:
            self._fetch_blocks(self._missing(*blocks))
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
            (lambda _: None) if self._in_ranges else self._fetcher.request,
        )

    def _missing(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return which of blocks first[i] .. last[i] are not here, int64[m]."""
        blocks = np.unique(np.concatenate([first, last]))
        if (last - first > 1).any():
            wide = [np.arange(a, b) for a, b in zip(first.tolist(), last.tolist(), strict=True) if b - a > 1]
            blocks = np.unique(np.concatenate([blocks, *wide]))
        return blocks[self._address[blocks] == 0]

    def _fetch_blocks(self, blocks: np.ndarray) -> None:
        """Fetch blocks, int64[m] in order, of shards that are read in ranges; see `PackedRanges.fetch`."""
        shards = self._shard_of(blocks)
        for shard in np.unique(shards).tolist():
            with self._lock:
                if shard not in self._kept and shard not in self._why:
                    self._open(shard)
                opened = self._kept.get(shard)
            if isinstance(opened, PackedRanges):
                begin, own = int(self._first_of_shard[shard]), blocks[shards == shard]
                try:
                    self._address[own] = opened.fetch(own - begin)
                except (ValueError, OSError) as error:
                    self._damaged(shard, error)

    def _let_go(self, wanted: set[int]) -> None:
        """Close the shards that neither this read nor the one before touched."""
        for shard in self._kept.keys() - wanted - self._recent:
            self._files.remove(shard)
            self._fetcher.forget(shard)
            self._address[slice(*self._first_of_shard[shard : shard + 2])] = 0
            del self._kept[shard]
        self._recent = wanted

    def _make_room(self) -> None:
        """Close all shards: the cache is full, and other jobs may wait for those that this one keeps."""
        if self._lock.acquire(blocking=False):  # else another thread opens shards, and is asked itself
            self._recent = set()
            self._let_go(set())
            self._lock.release()

    def _open(self, shard: int) -> None:
        self._fetcher.begin(shard)
        try:
            opened = self._open_in_ranges(shard) or self._open_whole(shard)
        except (FileNotFoundError, ValueError, OSError) as error:
            self._damaged(shard, error)
            return
        self._kept[shard] = opened
        expected = self.shards.manifest.shards(self.split)[shard].files["packed"].xxh3_64
        in_ranges = isinstance(opened, PackedRanges)  # its file changes with every fetch
        self._files.add(shard, opened.path, opened.map, lambda path: in_ranges or xxh3_of(path) == expected)

    def _open_whole(self, shard: int) -> PackedShard:
        begin, end = (int(block) for block in self._first_of_shard[shard : shard + 2])
        opened = self.shards.open_packed_shard(self.split, shard, check=self.check)
        self._address[begin:end] = opened.addresses(end - begin)
        return opened

    def _open_in_ranges(self, shard: int) -> PackedRanges | None:
        """Open a shard of which ranges are fetched; None if it is on this machine, or can only be fetched whole."""
        try:
            return self.shards.open_packed_ranges(self.split, shard) if self._in_ranges else None
        except RangesUnsupportedError:
            self._in_ranges = False
            return None

    def _damaged(self, shard: int, error: Exception) -> None:
        """Raise ``error``, or record the shard as damaged by it."""
        if self.faults == "raise":
            raise error
        self._why[shard] = str(error)

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
