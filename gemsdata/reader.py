"""Random access to the rows of one split: row ids in, token ids out, and what happens to rows that cannot be read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from gemsdata.arrow_shards import ArrowShard
from gemsdata.kernels.gather import gather
from gemsdata.schema import Rows
from gemsdata.shardset import ShardSet
from gemsdata.tar_shards import TarShard
from gemsdata.vocab import reverse_complement_ids

FAULT_POLICIES = ("raise", "skip-and-count")
CHECKS = ("size", "hash")
DECODED_BYTES = 512 << 20
_UNSEEN, _DAMAGED = 0, -1


class SplitReader:
    """Reads rows of one split of a shard set, any order, from memory maps.

    Parameters
    ----------
    shards, split
        the set and which split of it.
    check
        how a shard's file is compared with the manifest when it is first touched: by "size" (a missing or truncated
        file), or by "hash" (any flipped bit; reads the whole file once in every process).
    faults
        "raise", or "skip-and-count": the rows of a damaged shard read as empty, always the same ones, and are counted.
    decoded_bytes
        how much of compressed shards a process keeps decoded.

    Notes
    -----
    A block that lies in a memory map costs two addresses (16 bytes), kept in a table that the system fills in page by
    page, so memory stays flat for any number of rows. Files are opened by the process that touches them.
    """

    def __init__(
        self,
        shards: ShardSet,
        split: str,
        *,
        check: str = "size",
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
        self._complement = reverse_complement_ids(shards.k)
        entries = shards.manifest.shards(split)
        rows = np.array([shard.num_rows for shard in entries], np.int64)
        self._first_row = np.concatenate([[0], np.cumsum(rows)])
        self._first_block = np.concatenate([[0], np.cumsum(-(-rows // shards.manifest.block_rows))])
        self._start()

    @property
    def row_tokens(self) -> int:
        """Token positions of a row, L."""
        return self.shards.row_tokens

    def read(
        self, row_ids: np.ndarray, flip: np.ndarray, input_ids: np.ndarray, num_tokens: np.ndarray
    ) -> tuple[int, str]:
        """Write rows ``row_ids`` (int64[B]; -1: an empty row) to input_ids [B, L] and num_tokens uint16[B].

        Where ``flip`` (uint8[B]) is not 0, a row becomes its reverse complement. Returns how many rows were lost to
        damaged shards (they read as empty, and their entry of ``row_ids`` becomes -1), and why one of them was.
        """
        block_rows = self.shards.manifest.block_rows
        wanted = np.maximum(row_ids, 0)
        shard = np.searchsorted(self._first_row, wanted, side="right") - 1
        in_shard = wanted - self._first_row[shard]
        in_block = in_shard % block_rows
        block = self._first_block[shard] + in_shard // block_rows
        with self._lock:
            address, held = self._addresses(shard, block)
        damaged = address[:, 0] == _DAMAGED
        empty = damaged | (row_ids < 0)
        ids_address = address[:, 0] + in_block * (self.row_tokens * input_ids.itemsize)
        ids_address[empty] = 0
        gather(ids_address, address[:, 1] + 2 * in_block, flip, self._complement, input_ids, num_tokens)
        del held  # decoded blocks must live until here
        damaged &= row_ids >= 0
        lost = np.flatnonzero(damaged)
        if not lost.size:
            return 0, ""
        row_ids[lost] = -1
        return lost.size, self._why[int(block[lost[0]])]

    def _addresses(self, shard: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, list[Rows]]:
        """Return where blocks begin, int64[B, 2] (ids, counts), and what keeps decoded ones there."""
        address = self._table[block]
        unseen = np.flatnonzero(address[:, 0] == _UNSEEN)
        held = []
        if unseen.size:
            blocks, first = np.unique(block[unseen], return_index=True)
            for index, block_id in zip(unseen[first].tolist(), blocks.tolist(), strict=True):
                rows = self._block(int(shard[index]), block_id)
                where = (_DAMAGED, 0) if rows is None else (_address_of(rows.input_ids), _address_of(rows.num_tokens))
                address[block == block_id] = where
                if rows is None or block_id not in self._decoded:
                    self._table[block_id] = where
                else:
                    held.append(rows)
        return address, held

    def _block(self, shard: int, block_id: int) -> Rows | None:
        """Return a block, or None for one of a damaged shard whose rows are to be skipped."""
        rows = self._decoded.get(block_id)
        if rows is not None:
            self._decoded.move_to_end(block_id)
            return rows
        try:
            opened = self._opened(shard)
            rows = opened.block(block_id - int(self._first_block[shard]))
            self._check_shape(shard, block_id, rows)
        except (FileNotFoundError, ValueError, IndexError, OSError) as error:
            if self.faults == "raise":
                raise
            self._why[block_id] = str(error)
            return None
        if not opened.is_mapped(rows.input_ids):
            self._decoded[block_id] = rows
            self._num_decoded += rows.input_ids.nbytes
            while self._num_decoded > self._decoded_bytes and len(self._decoded) > 1:
                self._num_decoded -= self._decoded.popitem(last=False)[1].input_ids.nbytes
        return rows

    def _opened(self, shard: int) -> ArrowShard | TarShard:
        if shard not in self._open:
            try:
                self._open[shard] = self.shards.open_shard(self.split, shard, check=self.check, num_cached=0)
            except (FileNotFoundError, ValueError, OSError) as error:
                self._open[shard] = error
        opened = self._open[shard]
        if isinstance(opened, Exception):
            raise opened
        return opened

    def _check_shape(self, shard: int, block_id: int, rows: Rows) -> None:
        block_rows = self.shards.manifest.block_rows
        first = (block_id - int(self._first_block[shard])) * block_rows
        num_rows = min(block_rows, int(self._first_row[shard + 1] - self._first_row[shard]) - first)
        dtype = self.shards.manifest.token_dtype
        if (
            rows.input_ids.shape != (num_rows, self.row_tokens)
            or rows.input_ids.dtype != dtype
            or rows.num_tokens.shape != (num_rows,)
            or rows.num_tokens.dtype != np.uint16
        ):
            raise ValueError(
                f"shard {self._opened(shard).path}: block {block_id} has {rows.input_ids.dtype}{rows.input_ids.shape},"
                f" its manifest says {dtype}{(num_rows, self.row_tokens)}; it is damaged or of another set"
            )

    def _start(self) -> None:
        """Set what a process has of its own."""
        self._lock = threading.Lock()
        self._table = np.zeros((int(self._first_block[-1]), 2), np.int64)
        self._open: dict[int, ArrowShard | TarShard | Exception] = {}
        self._decoded: OrderedDict[int, Rows] = OrderedDict()
        self._num_decoded = 0
        self._why: dict[int, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        own = ("_lock", "_table", "_open", "_decoded", "_num_decoded", "_why")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def _address_of(values: np.ndarray) -> int:
    address: int = values.__array_interface__["data"][0]
    return address
