"""Write the rows of a view as a new shard set: Arrow or WebDataset shards of any tokens.

Parts are written to ``OUT/_work``, each by rename, and moved to their final names when all are complete, as for a set
that is made from a genome. The same view and options give the same bytes, for any number of workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from gemsdata.files.checked_json import read_checked, write_checked
from gemsdata.files.hashing import HashedStream, sha256_of, xxh3_of
from gemsdata.files.progress import Progress, no_progress
from gemsdata.files.publish import publish
from gemsdata.files.typed_json import from_json
from gemsdata.kernels.keys import key_of
from gemsdata.kernels.order import permute_range
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.shards.arrow import ArrowWriter
from gemsdata.shards.manifest import (
    COMPRESSIONS,
    INTERVALS_FILE,
    NPMI_FILE,
    SPLITS,
    TOKENIZER_FILES,
    VIEW_SCHEME,
    VIEW_VERSION,
    Manifest,
    vocabulary_of,
)
from gemsdata.shards.manifest_fields import Shard, ShardFile, TokenInfo, WindowInfo, shard_path
from gemsdata.shards.schema import Rows, contig_dtype, view_schema
from gemsdata.shards.webdataset import TarWriter
from gemsdata.shards.work_folder import check_writable, clear_work, finish_publishing, locked, publish_set, work_of
from gemsdata.views.options import ViewOptions
from gemsdata.views.tokens import HuggingFaceTokens

if TYPE_CHECKING:
    from gemsdata.views.view import View

FORMATS = {"arrow": ("arrow",), "webdataset": ("webdataset",), "both": ("arrow", "webdataset")}
MOST_ROW_TOKENS = 65535
_BLOCK_TOKENS = 1 << 19
_MOST_BLOCK_ROWS = 1024
_SHARD_TOKENS = 1 << 24


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """Options for writing the rows of a view."""

    format: str = "arrow"
    compression: str = "none"
    seed: int = 0
    """random key of the order of the rows"""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format {self.format!r} is unknown; rows of tokens are written as {', '.join(FORMATS)}")
        if self.compression not in COMPRESSIONS:
            raise ValueError(f"compression {self.compression!r} is unknown; choose one of {', '.join(COMPRESSIONS)}")
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed = {self.seed}; give an integer from 0 to 2**63 - 1")


@dataclass(frozen=True)
class _Part:
    """One shard to write: rows first_row .. first_row + num_rows - 1 of a split."""

    split: str
    index: int
    first_row: int
    num_rows: int


class _Writer:
    """Writes the rows of a view; `write_view` drives it."""

    def __init__(self, view: View, folder: Path, options: WriteOptions) -> None:
        self.view, self.folder, self.options = view, folder, options
        self.block_rows = min(max(_BLOCK_TOKENS // view.row_tokens, 1), _MOST_BLOCK_ROWS)
        self.row_ids = {split: _rows_to_write(view, split) for split in SPLITS}
        identity = json.dumps([view.fingerprint, dataclasses.asdict(options)])
        self.parts_folder = f"parts-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    def parts(self) -> Iterator[_Part]:
        """Yield every part, train first."""
        size = max(_SHARD_TOKENS // (self.view.row_tokens * self.block_rows), 1) * self.block_rows
        for split in SPLITS:
            num_rows = len(self.row_ids[split])
            for index, first in enumerate(range(0, num_rows, size)):
                yield _Part(split, index, first, min(size, num_rows - first))

    def write(self, part: _Part) -> Shard:
        """Write one part, unless it is already complete; return its entry of the manifest."""
        entry = self._path(f"{part.split}/{part.index:06d}.json")
        shard = self._finished(entry)
        if shard is None:
            shard = self._write_files(part)
            write_checked(entry, dataclasses.asdict(shard))
        return shard

    def _write_files(self, part: _Part) -> Shard:
        names = FORMATS[self.options.format]
        paths = {name: shard_path(part.split, part.index, name) for name in names}
        content, num_tokens = xxhash.xxh3_64(), 0
        self._path(part.split).mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as files:
            streams = {
                name: HashedStream(files.enter_context(publish(self._path(path)))) for name, path in paths.items()
            }
            writers = [self._writer(name, stream) for name, stream in streams.items()]
            for first, rows in self._blocks(part):
                for column in (rows.input_ids, rows.num_tokens, rows.contig, rows.start):
                    content.update(column.data)
                num_tokens += int(rows.num_tokens.sum(dtype=np.int64))
                for writer in writers:
                    writer.write(first, rows, None)
            for writer in writers:
                writer.close()
        return Shard(
            first_row=part.first_row,
            num_rows=part.num_rows,
            num_tokens=num_tokens,
            content_xxh3_64=content.hexdigest(),
            files={
                name: ShardFile(path=paths[name], num_bytes=stream.num_bytes, **stream.digests())
                for name, stream in streams.items()
            },
        )

    def _blocks(self, part: _Part) -> Iterator[tuple[int, Rows]]:
        """Yield (first row, rows) of each block of a part, in the shuffled order of the split."""
        ids = self.row_ids[part.split]
        order = np.empty(part.num_rows, np.int64)
        key = key_of(self.options.seed, RandomStream.ROW_ORDER, SPLITS.index(part.split))
        permute_range(part.first_row, len(ids), np.uint64(key), order)
        for first in range(0, part.num_rows, self.block_rows):
            yield part.first_row + first, self._rows(part.split, ids[order[first : first + self.block_rows]])

    def _rows(self, split: str, row_ids: np.ndarray) -> Rows:
        found = self.view.rows(row_ids, split=split)
        tokens = found.tokens
        if found.lost.any():
            raise ValueError(f"rows of {self.view.shards.store} cannot be read: {found.why_lost}")
        sizes = None
        if tokens.token_start is not None:
            sizes = np.diff(tokens.token_start, axis=1)
            if sizes.max(initial=0) > np.iinfo(np.uint8).max:
                raise ValueError(f"tokens {self.view.tokens.spec!r} of more than 255 bases cannot be written")
            sizes = sizes.astype(np.uint8)
        return Rows(
            input_ids=tokens.input_ids,
            num_tokens=tokens.num_tokens.astype(np.uint16),
            contig=found.contig.astype(contig_dtype(len(self.view.shards.contig_names))),
            start=np.ascontiguousarray(found.start),
            num_bases=tokens.num_bases.astype(np.uint32),
            token_bases=sizes,
        )

    def _writer(self, name: str, stream: HashedStream) -> ArrowWriter | TarWriter:
        if name == "webdataset":
            compressed = self.options.format == "webdataset" and self.options.compression == "zstd"
            return TarWriter(stream, self.block_rows, compressed=compressed)
        view = self.view
        schema = view_schema(
            view.vocabulary.id_dtype, view.row_tokens, len(view.shards.contig_names), view.tokens.varying
        )
        metadata = {
            b"gemsdata.tokens": view.tokens.identity.encode(),
            b"gemsdata.genome_sha256": view.shards.manifest.genome.sha256.encode(),
        }
        return ArrowWriter(stream, schema.with_metadata(metadata), self.options.compression)

    def manifest(self, shards: dict[str, list[Shard]]) -> Manifest:
        """Return the manifest of the complete set."""
        view, source = self.view, self.view.shards.manifest
        work = work_of(self.folder)
        files = [name for name in TOKENIZER_FILES if view.tokens.varying and (work / name).exists()]
        return dataclasses.replace(
            source,
            version=VIEW_VERSION,
            vocabulary=vocabulary_of(varying=view.tokens.varying),
            row_tokens=view.row_tokens,
            token_dtype=view.vocabulary.id_dtype.name,
            windows=WindowInfo(scheme=VIEW_SCHEME, full_bases=view.row_bases),
            seed=self.options.seed,
            formats=list(FORMATS[self.options.format]),
            codec="tokens",
            compression=self.options.compression,
            block_rows=self.block_rows,
            rank_column=False,
            tokens=TokenInfo(
                spec="tokenizer" if view.tokens.varying else view.tokens.identity,
                identity=view.tokens.identity,
                num_ids=view.vocabulary.size,
                unknown=view.options.unknown,
                view=view.fingerprint,
                files=files,
                files_sha256=[sha256_of(work / name) for name in files],
            ),
            splits=shards,
        ).with_hashes()

    def copy_small_files(self) -> None:
        """Write the set's other files: the NPMI table, the intervals and, for BPE, the tokenizer."""
        for name in (NPMI_FILE, INTERVALS_FILE):
            with self.view.shards.store.file(name) as path:
                _copy(path, work_of(self.folder) / name)
        if isinstance(self.view.tokens, HuggingFaceTokens):
            for name, content in self.view.tokens.files.items():
                with publish(work_of(self.folder) / name) as stream:
                    stream.write(content)

    def _path(self, path: str) -> Path:
        return work_of(self.folder) / self.parts_folder / path

    def _finished(self, entry: Path) -> Shard | None:
        """Return the entry of a part whose files are complete, else None."""
        try:
            shard = from_json(Shard, read_checked(entry), entry.name)
        except (FileNotFoundError, ValueError):
            return None
        for file in shard.files.values():
            path = self._path(file.path)
            if not path.exists() or xxh3_of(path) != file.xxh3_64:
                return None
        return shard


def write_view(
    view: View,
    out: str | Path,
    options: WriteOptions,
    *,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Manifest:
    """Write the rows of epoch 0 of a view to the folder ``out`` as a shard set; return its manifest.

    Raises ValueError for a view that cannot be written, and for a folder that must not be overwritten.
    """
    _check(view)
    folder = Path(out)
    check_writable(folder, resume=resume, overwrite=overwrite)
    with locked(folder):
        finish_publishing(folder)
        check_writable(folder, resume=resume, overwrite=overwrite)  # check again, now that the folder is locked
        if not resume:
            clear_work(folder)
        writer = _Writer(view, folder, options)
        writer.copy_small_files()
        parts = list(writer.parts())
        total = sum(part.num_rows for part in parts)
        shards: dict[str, list[Shard]] = {split: [] for split in SPLITS}
        with ThreadPoolExecutor(max(workers, 1), thread_name_prefix="write") as pool:
            for part, shard in zip(parts, pool.map(writer.write, parts), strict=True):
                shards[part.split].append(shard)
                progress("writing", part.num_rows, total)
        manifest = writer.manifest(shards)
        publish_set(folder, manifest, writer.parts_folder)
    return manifest


def check_writable_options(options: ViewOptions) -> None:
    """Raise ValueError for options of a view that are not stored in its rows."""
    for name in ("loss_weight_soft_masked", "mask_soft_masked", "track"):
        if name in options.changed():
            raise ValueError(f"{name} is not stored in written rows: give it when the written set is read")


def _check(view: View) -> None:
    check_writable_options(view.options)
    if view.row_tokens > MOST_ROW_TOKENS:
        raise ValueError(
            f"rows of {view.row_tokens:,} tokens cannot be written, {MOST_ROW_TOKENS:,} are the most; read longer"
            " rows from a packed set"
        )
    if view.tokens.varying and view.options.unknown == "token":
        raise ValueError(f"rows of {view.tokens.spec!r} with unknown tokens cannot be written; give unknown = 'break'")


def _rows_to_write(view: View, split: str) -> np.ndarray:
    """Return the rows of epoch 0 with something to predict, int64[n]."""
    row_ids = np.arange(view.num_rows(split))
    if view.options.unknown != "token":
        return row_ids
    kept = [np.empty(0, np.int64)]
    step = max(_BLOCK_TOKENS // view.row_bases, 1)
    for first in range(0, len(row_ids), step):
        here = row_ids[first : first + step]
        kept.append(here[view.holds_own_rows(here, split)])
    return np.concatenate(kept)


def _copy(source: Path, target: Path) -> None:
    with publish(target) as stream:
        stream.write(source.read_bytes())
