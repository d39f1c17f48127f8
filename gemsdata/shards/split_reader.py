"""Random access to the rows of one split: row ids in, token ids out, with a policy for rows that cannot be read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gemsdata.files.hashing import xxh3_of
from gemsdata.files.mapped import MappedFiles
from gemsdata.genome.vocab import reverse_complement_ids
from gemsdata.kernels.gather import gather, gather_places
from gemsdata.masking.token_rows import Vocabulary
from gemsdata.shards.arrow import ArrowShard
from gemsdata.shards.schema import Rows, contig_dtype
from gemsdata.shards.shard_fetcher import ShardFetcher
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.shard_table import num_bytes_of
from gemsdata.shards.storage import open_together
from gemsdata.shards.webdataset import TarShard

FAULT_POLICIES = ("raise", "skip-and-count")
CHECKS = ("hash", "size")
DECODED_BYTES = 512 << 20
_UNSEEN, _DAMAGED, _DECODED = 0, -1, -2
_MOST_READERS = 64


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """Rows as a shard set stores them, without special tokens."""

    input_ids: np.ndarray
    """uint16[B, L] (uint32 from k = 8)"""
    num_tokens: np.ndarray
    """uint16[B]"""
    tokens: None = None


class SplitReader:
    """Reads rows of one split of a shard set in any order from memory maps: a `gemsdata.stream.row_reader.RowReader`.

    Parameters
    ----------
    shards, split
        the set and which split of it.
    check
        how a shard's file is compared with the manifest on first access: by "hash" (detects any change, such as an
        exchanged shard or a flipped bit; reads the whole file, once per machine until the file changes), or by "size"
        (detects a missing or truncated file; for sets that are too large to read before training).
    faults
        "raise", or "skip-and-count": the rows of a damaged shard are read as empty rows, the same ones in every run,
        and counted.
    decoded_bytes
        limit for the decoded blocks of compressed shards that a process caches.

    Notes
    -----
    A memory-mapped block needs four addresses (32 bytes) in a table whose pages are allocated on use, and a shard needs
    its map, so memory use does not grow with the rows that are read. Files are opened by the process that reads them.
    """

    def __init__(
        self,
        shards: ShardSet,
        split: str,
        *,
        check: str = "hash",
        faults: str = "raise",
        decoded_bytes: int = DECODED_BYTES,
    ) -> None:
        if check not in CHECKS:
            raise ValueError(f"check = {check!r}; give one of {', '.join(CHECKS)}")
        if faults not in FAULT_POLICIES:
            raise ValueError(f"faults = {faults!r}; give one of {', '.join(FAULT_POLICIES)}")
        self.shards, self.split, self.check, self.faults = shards, split, check, faults
        self.num_rows = shards.num_rows(split)
        self._decoded_bytes = decoded_bytes
        first_format = shards.file_format == shards.manifest.formats[0]  # tars beside Arrow are not compressed
        self._compressed = first_format and shards.manifest.compression != "none"
        num_bytes = sum(num_bytes_of(shards.manifest.shards(split), shards.file_format))
        limit = shards.store.max_bytes
        self._passing = limit is not None and num_bytes > limit
        self._complement = reverse_complement_ids(shards.k)
        self._index = shards.row_index(split)
        self._start()

    def _start(self) -> None:
        """Initialise the state that belongs to one process."""
        self._lock = threading.RLock()
        self._table = np.zeros((self._index.num_blocks, 4), np.int64)
        self._files = MappedFiles()
        self._kept: dict[int, tuple[pa.Buffer, object]] = {}
        self._recent: set[int] = set()
        self._readers: dict[int, ArrowShard | TarShard] = {}
        self._decoded: OrderedDict[int, Rows] = OrderedDict()
        self._num_decoded = 0
        self._why: dict[int, str] = {}
        if self._passing:
            self.shards.store.on_full(self._make_room)
        self._fetcher = ShardFetcher(self.shards, self.split)

    @property
    def needs_windows(self) -> bool:
        """Whether the split exceeds the cache, so that its order must read few shards at a time."""
        return self._passing

    @property
    def row_tokens(self) -> int:
        """Token positions of a row, L."""
        return self.shards.row_tokens

    @property
    def k(self) -> int:
        """Bases of a token."""
        return self.shards.k

    @property
    def vocabulary(self) -> Vocabulary:
        """DNABERT's ids of k-mers."""
        return Vocabulary.of_kmers(self.k)

    @property
    def token_identity(self) -> str:
        """The kind of k-mers, as text."""
        return f"kmer:{self.k}:1"

    @property
    def weighted(self) -> bool:
        """Whether rows have loss weights: stored rows have none."""
        return False

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the shard set."""
        return self.shards.manifest.fingerprint

    def places(self, row_ids: np.ndarray, rows: StoredRows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (contig, start, end) of rows; see `gemsdata.stream.row_reader.RowReader.places`."""
        contig, start = self.starts(row_ids)
        return contig, start, start + rows.num_tokens + self.k - 1

    def starts(self, row_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (contig, start), int64[B] each, of rows (int64[B]); 0 for negative ids. The rows must be readable."""
        out = np.empty((2, len(row_ids)), np.int64)
        shard, block, in_block = self._index.locate(np.maximum(row_ids, 0))
        with self._lock:
            address, held = self._addresses(shard, block)
        itemsize = contig_dtype(len(self.shards.contig_names)).itemsize
        contig = np.where(row_ids < 0, 0, address[:, 2] + in_block * itemsize)
        gather_places(contig, address[:, 3] + in_block * out.itemsize, itemsize == 4, out)
        del held  # decoded blocks must live until here
        self._files.check()
        return out[0], out[1]

    def loss_weights(self, rows: StoredRows) -> None:
        """Return None: stored rows have no loss weights."""

    def check_unchanged(self) -> None:  # noqa: D102
        self.shards.check_unchanged()
        self._files.check(now=True)

    @property
    def fetches_ahead(self) -> bool:
        """Whether `fetch_ahead` can fetch another shard."""
        return self._fetcher.has_room

    def fetch_ahead(self, epoch: int, row_ids: np.ndarray) -> None:
        """Start to fetch the shards of rows; see `RowReader.fetch_ahead`."""
        shard = self._index.locate(row_ids[row_ids >= 0]).shard
        self._fetcher.request(np.unique(shard).tolist())

    def empty(self, num_rows: int) -> StoredRows:
        """Return a buffer for `read`."""
        input_ids = np.empty((num_rows, self.row_tokens), self.shards.manifest.token_dtype)
        return StoredRows(input_ids=input_ids, num_tokens=np.empty(num_rows, np.uint16))

    def read(self, epoch: int, row_ids: np.ndarray, flip: np.ndarray, out: StoredRows) -> tuple[int, str]:
        """Write rows ``row_ids`` to ``out``; see `RowReader.read`. Stored rows are the same in every epoch."""
        shard, block, in_block = self._index.locate(np.maximum(row_ids, 0))
        with self._lock:
            address, held = self._addresses(shard, block)
        damaged = address[:, 0] == _DAMAGED
        empty = damaged | (row_ids < 0)
        ids_address = address[:, 0] + in_block * (self.row_tokens * out.input_ids.itemsize)
        ids_address[empty] = 0
        gather(ids_address, address[:, 1] + 2 * in_block, flip, self._complement, out.input_ids, out.num_tokens)
        del held  # keep decoded blocks alive until here
        self._files.check()
        damaged &= row_ids >= 0
        lost = np.flatnonzero(damaged)
        if not lost.size:
            return 0, ""
        row_ids[lost] = -1
        return lost.size, self._why[int(block[lost[0]])]

    def _addresses(self, shard: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, list[object]]:
        """Return the addresses of the columns of blocks, int64[B, 4], and the objects that keep decoded ones alive."""
        if (self._table[block, 0] == _UNSEEN).any():
            self._open_all(shard, block)
        address = self._table[block]
        held: list[object] = []
        if self._passing:
            held += self._let_go(set(shard.tolist()))
        if self._compressed:
            found, first = np.unique(block, return_index=True)
            for block_id, index in zip(found.tolist(), shard[first].tolist(), strict=True):
                rows = self._decode(index, block_id)
                if rows is not None:
                    address[block == block_id] = _addresses_of(rows)
                    held.append(rows)
        address[self._table[block, 0] == _DAMAGED] = (_DAMAGED, 0, 0, 0)
        return address, held

    def _open_all(self, shard: np.ndarray, block: np.ndarray) -> None:
        """Open the shards of blocks that were not seen yet; each may close the others, see `_make_room`."""
        entries = self.shards.manifest.shards(self.split)
        together = [] if self._compressed else np.unique(shard).tolist()  # of compressed ones each is read by itself
        open_together(
            self.shards.store,
            {index: entries[index].files[self.shards.file_format].num_bytes for index in together},
            lambda: np.unique(shard[self._table[block, 0] == _UNSEEN]).tolist(),
            self._open,
            self._fetcher.request,
        )

    def _open(self, shard: int) -> None:
        """Open a shard for the first time: record the addresses of its blocks, or its damage."""
        blocks = self._index.blocks(shard)
        self._fetcher.begin(shard)
        try:
            opened = self.shards.open_shard(self.split, shard, check=self.check, num_cached=0)
        except (FileNotFoundError, ValueError, OSError) as error:
            self._damaged(error, blocks)
            return
        if self._compressed:
            self._table[blocks.start : blocks.stop, 0] = _DECODED
            return
        self._kept[shard] = (opened.map, opened.pin)
        self._watch(shard, opened)
        for block_id in blocks:
            try:
                rows = self._checked_block(opened, shard, block_id)
            except (ValueError, IndexError) as error:
                self._damaged(error, range(block_id, block_id + 1))
            else:
                self._table[block_id] = _addresses_of(rows)

    def _let_go(self, current: set[int]) -> list[object]:
        """Close the shards that neither this batch nor the one before used; return those that this batch needs."""
        for shard in self._kept.keys() - current - self._recent:
            blocks = self._index.blocks(shard)
            self._table[blocks.start : blocks.stop] = _UNSEEN
            self._fetcher.forget(shard)
            self._files.remove(shard)
            del self._kept[shard]
        for shard in self._readers.keys() - current - self._recent:
            self._files.remove(shard)
            del self._readers[shard]
        self._recent = current
        return [self._kept[shard] for shard in current & self._kept.keys()]

    def _make_room(self) -> None:
        """Close all shards: the cache is full, and other jobs may wait for those that this one keeps."""
        if self._lock.acquire(blocking=False):  # else another thread opens shards, and is asked itself
            self._recent = set()
            self._let_go(set())
            self._lock.release()

    def _decode(self, shard: int, block_id: int) -> Rows | None:
        """Return a block of a compressed shard; None if it is damaged and to be skipped."""
        rows = self._decoded.get(block_id)
        if rows is not None:
            self._decoded.move_to_end(block_id)
            return rows
        if self._table[block_id, 0] == _DAMAGED:
            return None
        try:
            if shard not in self._readers:
                while len(self._readers) >= _MOST_READERS:
                    oldest = next(iter(self._readers))
                    self._files.remove(oldest)
                    del self._readers[oldest]
                self._readers[shard] = self.shards.open_shard(self.split, shard, check=self.check, num_cached=0)
                self._watch(shard, self._readers[shard])
            rows = self._checked_block(self._readers[shard], shard, block_id)
        except (FileNotFoundError, ValueError, IndexError, OSError) as error:
            self._files.check(now=True)  # the cause, if the file was truncated
            self._damaged(error, range(block_id, block_id + 1))
            return None
        self._decoded[block_id] = rows
        self._num_decoded += rows.input_ids.nbytes
        while self._num_decoded > self._decoded_bytes and len(self._decoded) > 1:
            self._num_decoded -= self._decoded.popitem(last=False)[1].input_ids.nbytes
        return rows

    def _watch(self, shard: int, opened: ArrowShard | TarShard) -> None:
        """Watch the file of a shard for changes while it is mapped."""
        expected = self.shards.manifest.shards(self.split)[shard].files[self.shards.file_format].xxh3_64
        self._files.add(shard, opened.path, opened.map, lambda path: xxh3_of(path) == expected)

    def _damaged(self, error: Exception, blocks: range) -> None:
        """Raise ``error``, or record the blocks as damaged by it."""
        if self.faults == "raise":
            raise error
        self._table[blocks.start : blocks.stop, 0] = _DAMAGED
        self._why.update(dict.fromkeys(blocks, str(error)))

    def _checked_block(self, opened: ArrowShard | TarShard, shard: int, block_id: int) -> Rows:
        """Return a block whose arrays match the manifest and lie within the map."""
        index = block_id - self._index.blocks(shard).start
        num_rows = self._index.rows_of_block(shard, block_id)
        rows = opened.block(index)
        ids, numbers = rows.input_ids, (rows.num_tokens, rows.contig, rows.start)
        dtype = self.shards.manifest.token_dtype
        lengths = {column.shape for column in numbers}
        if ids.shape != (num_rows, self.row_tokens) or ids.dtype != dtype or lengths != {(num_rows,)}:
            raise ValueError(
                f"shard {opened.path}: block {index} holds {ids.dtype} {ids.shape}, its manifest says {dtype}"
                f" {(num_rows, self.row_tokens)}; it is damaged or of another set"
            )
        dtypes = [np.uint16, contig_dtype(len(self.shards.contig_names)), np.int64]
        whole = self._compressed or all(opened.holds(column) for column in (ids, *numbers))
        if [column.dtype for column in numbers] != dtypes or not whole:
            raise ValueError(f"shard {opened.path}: block {index} reaches beyond the file; it is damaged")
        return rows

    def __getstate__(self) -> dict[str, Any]:
        own = (
            "_lock", "_files", "_table", "_kept", "_recent", "_readers",
            "_decoded", "_num_decoded", "_why", "_fetcher",
        )  # fmt: skip
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def _addresses_of(rows: Rows) -> tuple[int, ...]:
    """Return the addresses of a block's ids, counts, contigs and starts."""
    columns = (rows.input_ids, rows.num_tokens, rows.contig, rows.start)
    return tuple(column.__array_interface__["data"][0] for column in columns)
