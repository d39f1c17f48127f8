"""A shard set opened for reading: any row by its number, the NPMI ranks, contigs and soft-masked bases."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemsdata.files.cache import Pin
from gemsdata.files.checked_files import has_hash
from gemsdata.files.hashing import sha256_of
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.arrow import ArrowShard
from gemsdata.shards.manifest import INTERVALS_FILE, NPMI_FILE, Manifest
from gemsdata.shards.member import column_bytes
from gemsdata.shards.packed import PackedShard
from gemsdata.shards.packed_ranges import PackedRanges
from gemsdata.shards.row_index import RowIndex
from gemsdata.shards.schema import Rows, contig_dtype
from gemsdata.shards.storage import LocalStore, Store, checked_files_record, place_name, store_of
from gemsdata.shards.webdataset import TarShard

_READERS: dict[str, type[ArrowShard] | type[TarShard]] = {"arrow": ArrowShard, "webdataset": TarShard}


class ShardSet:
    """A complete shard set in a local folder or at a URL. Files are opened, or fetched, on first access.

    It has more than 12 public methods because it gives access to rows, blocks and intervals.
    """

    def __init__(self, place: Path | Store, manifest: Manifest, file_format: str | None = None) -> None:
        self.store: Store = LocalStore(place) if isinstance(place, Path) else place
        self.manifest = manifest
        self.file_format = file_format or manifest.formats[0]
        if self.file_format not in manifest.formats:
            raise ValueError(f"{self.store} has no {self.file_format} shards, only {', '.join(manifest.formats)}")
        self.contig_names: list[str] = [contig.name for contig in manifest.contigs]
        self._shards: dict[tuple[str, int], ArrowShard | TarShard] = {}
        self._row_index: dict[str, RowIndex] = {}
        self._manifest_status = self.store.manifest_status()

    @classmethod
    def open(
        cls,
        place: str | Path,
        file_format: str | None = None,
        *,
        cache_dir: str | Path | None = None,
        cache_bytes: int | None = None,
        storage_options: dict[str, Any] | None = None,
        retry_s: float | None = None,
    ) -> ShardSet:
        """Open a shard set in a folder or at a URL (docs/remote.md).

        Parameters
        ----------
        place
            folder of the set, or the URL of one: ``s3://``, ``gs://``, ``az://``, ``https://``, or any other URL that
            fsspec supports.
        file_format
            "arrow" or "webdataset", where the set has both; default: Arrow if it has it.
        cache_dir, cache_bytes
            folder of fetched shards (default: $GEMSDATA_CACHE or the user's cache folder), and their largest total size
            (default: $GEMSDATA_CACHE_BYTES or 64 GiB).
        storage_options
            settings of the obstore store, such as ``endpoint`` or ``region``, or of the fsspec file system.
        retry_s
            seconds for which failing requests are repeated (default: $GEMSDATA_RETRY_S or 120).

        Raises
        ------
        FileNotFoundError, ValueError
            if there is no set, or it cannot be read.
        PermissionError, ConnectionError
            if the server denies access, or does not answer.
        """
        store = store_of(
            place, cache_dir=cache_dir, cache_bytes=cache_bytes, storage_options=storage_options, retry_s=retry_s
        )
        return cls(store, store.manifest(), file_format)

    @property
    def name(self) -> str:
        """Last component of the folder or URL."""
        return place_name(str(self.store))

    @property
    def folder(self) -> Path:
        """The folder of a local set."""
        return Path(str(self.store))

    @property
    def k(self) -> int:
        """Bases of a token."""
        return self.manifest.k

    @property
    def row_tokens(self) -> int:
        """Token positions of a row, L."""
        return self.manifest.row_tokens

    def num_rows(self, split: str) -> int:
        """Return the number of rows of a split."""
        return self.manifest.num_rows(split)

    def read(self, split: str, row_ids: np.ndarray) -> Rows:
        """Return rows ``row_ids`` (integers[B], 0 .. num_rows - 1, any order, repeats allowed) of a split, copied.

        Raises IndexError for a row that does not exist.
        """
        row_ids = np.asarray(row_ids, np.int64)
        index = self.row_index(split)
        wrong = row_ids[(row_ids < 0) | (row_ids >= index.num_rows)]
        if wrong.size:
            raise IndexError(f"row {wrong[0]} of split {split!r}, which has {index.num_rows} rows")
        out = self._empty(row_ids.size)
        shard_ids, block_ids, row_in_block = index.locate(row_ids)
        order = np.argsort(block_ids, kind="stable")
        for here in np.split(order, np.flatnonzero(np.diff(block_ids[order])) + 1):
            if here.size:
                shard = int(shard_ids[here[0]])
                block = self.block(split, shard, int(block_ids[here[0]]) - index.blocks(shard).start)
                for name in ("input_ids", "num_tokens", "contig", "start"):
                    getattr(out, name)[here] = getattr(block, name)[row_in_block[here]]
        return out

    def row_index(self, split: str) -> RowIndex:
        """Return the index of the rows of a split; raise ValueError if there is no such split."""
        if split not in self._row_index:
            self._row_index[split] = RowIndex.of(self.manifest.shards(split), self.manifest.block_rows)
        return self._row_index[split]

    def block(self, split: str, shard: int, block: int) -> Rows:
        """Return one block of a shard as read-only arrays."""
        if (split, shard) not in self._shards:
            self._shards[split, shard] = self.open_shard(split, shard)
        return self._shards[split, shard].block(block)

    def open_shard(
        self, split: str, shard: int, *, check: str = "structure", num_cached: int = 16
    ) -> ArrowShard | TarShard:
        """Open one shard of rows of tokens; it caches the last ``num_cached`` blocks that were read.

        ``check`` says how its file is first compared with the manifest: by structure only, by "size" (detects a
        truncated file), or by "hash" (detects any change; reads the whole file, unless a process on this machine has
        done so since it was written). Raises FileNotFoundError or ValueError.
        """
        if self.manifest.packed:
            raise ValueError(
                f"{self.store} holds packed bases: say which tokens and windows to read, with gemsdata.view(SET,"
                " tokens=..., row_tokens=...)"
            )
        path, pin = self._checked_file(split, shard, check)
        manifest = self.manifest
        most_bytes = column_bytes(manifest.block_rows, manifest.row_tokens, manifest.token_dtype)
        opened = _READERS[self.file_format](path, num_cached, most_bytes)
        opened.pin = pin
        return opened

    def open_packed_shard(self, split: str, shard: int, *, check: str = "structure") -> PackedShard:
        """Open one shard of packed bases; ``check`` and errors as in `open_shard`."""
        path, pin = self._checked_file(split, shard, check)
        opened = PackedShard(path)
        opened.pin = pin
        return opened

    def open_packed_ranges(self, split: str, shard: int) -> PackedRanges | None:
        """Open one shard of packed bases at a URL, of which only the blocks that are read are fetched.

        None: the file is on this machine. Its size is compared with the manifest, its content is not. Errors as in
        `open_shard`.
        """
        entry = self.manifest.shards(split)[shard]
        file = entry.files[self.file_format]
        found = self.store.partial(file)
        if found is None:
            return None
        return PackedRanges(*found, f"{self.store}/{file.path}", entry.num_rows, self.row_tokens)

    def check_unchanged(self) -> None:
        """Raise ValueError if the set in a local folder is no longer the one that was opened.

        Costs one stat call for the manifest; shards at URLs are always fetched by the hash of their content.
        """
        status = self.store.manifest_status()
        if status == self._manifest_status:
            return
        try:
            found = self.store.manifest().identity if status is not None else "none"
        except FileNotFoundError:
            found = "none"
        if found != self.manifest.identity:
            raise ValueError(
                f"set {self.store} was made again or replaced while it was open (manifest"
                f" {self.manifest.identity[:12]}, now {found[:12]}): open it again"
            )
        self._manifest_status = status

    def _checked_file(self, split: str, shard: int, check: str) -> tuple[Path, Pin | None]:
        """Return the local path of a shard's file, compared with the manifest, and the object that keeps it there."""
        self.check_unchanged()
        entry = self.manifest.shards(split)[shard].files[self.file_format]
        path, pin = self.store.path(entry)
        if not path.exists():
            raise FileNotFoundError(f"shard {path} is missing; restore it, or make the set again")
        if check != "structure" and path.stat().st_size != entry.num_bytes:
            raise ValueError(
                f"shard {path} has {path.stat().st_size} bytes, its manifest says {entry.num_bytes}: it is truncated or"
                " was replaced; restore it, or make the set again"
            )
        if check == "hash" and not has_hash(path, entry.xxh3_64, checked_files_record(), lock=pin is None):
            raise ValueError(
                f"shard {path} is damaged or replaced: its xxh3 is not the manifest's; restore it, or make the set"
                " again"
            )
        return path, pin

    def __repr__(self) -> str:
        manifest = self.manifest
        rows = ", ".join(f"{manifest.num_rows(split):,} {split}" for split in manifest.splits)
        kind = f"rows of {self.row_tokens} {self.k}-mers"
        if manifest.packed:
            kind = f"blocks of {self.row_tokens:,} bases"
        return (
            f"<ShardSet {self.store}: {manifest.genome.name}, {manifest.genome.num_bases:,} bases\n"
            f" {rows} {kind}, {self.file_format}, {manifest.fingerprint[:16]}>"
        )

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_shards": {}}  # each process opens files itself

    @functools.cached_property
    def has_npmi(self) -> bool:
        """Whether the set has its NPMI table."""
        if isinstance(self.store, LocalStore):
            return (self.store.folder / NPMI_FILE).exists()
        try:
            return bool(self.npmi.counts)
        except FileNotFoundError:
            return False

    @functools.cached_property
    def npmi(self) -> NpmiTable:
        """The set's NPMI table; raises ValueError if the file has another table."""
        with self.store.file(NPMI_FILE) as path:
            table = NpmiTable.from_parquet(path)
        ranks = table.ranks(self.k).astype("<u4")
        if hashlib.sha256(ranks.tobytes()).hexdigest() != self.manifest.npmi.rank_sha256:
            raise ValueError(
                f"{self.store}/{NPMI_FILE} is of another set: its ranks of the {self.k}-mers do not match the manifest;"
                " restore it, or make the set again"
            )
        return table

    @functools.cached_property
    def ranks(self) -> np.ndarray:
        """The NPMI rank of every token id, uint16[4**k + 5] (uint32 from k = 8), 1 = best."""
        return self.npmi.ranks(self.k)

    def intervals(self, kind: str) -> np.ndarray:
        """Return the intervals of a kind, "gap" (not ACGT) or "soft" (lower case): (contig, start, end) int64[m, 3]."""
        table = self._intervals(kind)
        found = np.column_stack([table[name].to_numpy().astype(np.int64) for name in ("contig", "start", "end")])
        # a packed set has an interval for each letter: join those that touch
        begins = np.ones(len(found), bool)
        begins[1:] = (found[1:, 0] != found[:-1, 0]) | (found[1:, 1] != found[:-1, 2])
        last = np.append(begins[1:], True)[: len(found)]
        return np.column_stack([found[begins, :2], found[last, 2]])

    def soft_masked(self, contig: int, start: int, end: int) -> np.ndarray:
        """Return which bases of [start, end) of a contig are lower case in the FASTA, bool[end - start]."""
        contigs, starts, ends = self._soft
        first, last = np.searchsorted(contigs, [contig, contig + 1])
        first += np.searchsorted(ends[first:last], start, side="right")
        out = np.zeros(end - start, bool)
        for i in range(first, last):
            if starts[i] >= end:
                break
            out[max(starts[i] - start, 0) : ends[i] - start] = True
        return out

    @functools.cached_property
    def _soft(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        table = self._intervals("soft")
        return tuple(table[name].to_numpy() for name in ("contig", "start", "end"))

    def _intervals(self, kind: str) -> pa.Table:
        """Return the rows of a kind; raise ValueError if the file does not match the manifest."""
        with self.store.file(INTERVALS_FILE) as path:
            expected = self.manifest.intervals_sha256
            if expected and sha256_of(path) != expected:
                raise ValueError(
                    f"{self.store}/{INTERVALS_FILE} is damaged or of another set: its sha256 is not the manifest's;"
                    " restore it, or make the set again"
                )
            return pq.read_table(path, columns=["contig", "start", "end"], filters=[("kind", "=", kind)])

    def _empty(self, num_rows: int) -> Rows:
        return Rows(
            input_ids=np.empty((num_rows, self.row_tokens), self.manifest.token_dtype),
            num_tokens=np.empty(num_rows, np.uint16),
            contig=np.empty(num_rows, contig_dtype(len(self.contig_names))),
            start=np.empty(num_rows, np.int64),
        )
