"""Encode the parts of a planned shard set, on any machine that sees the folder and in any order."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from gemsdata.files.checked_json import parse_checked, write_checked
from gemsdata.files.hashing import HashedStream, xxh3_of
from gemsdata.files.progress import Progress, no_progress
from gemsdata.files.publish import publish
from gemsdata.files.typed_json import from_json
from gemsdata.genome.packed import PackedGenome
from gemsdata.genome.vocab import token_dtype
from gemsdata.kernels import kmer
from gemsdata.kernels.keys import key_of
from gemsdata.kernels.order import permute_range
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.shards import windows
from gemsdata.shards.arrow import ArrowWriter
from gemsdata.shards.manifest import SPLITS, Manifest
from gemsdata.shards.manifest_fields import Shard, ShardFile
from gemsdata.shards.options import FORMATS
from gemsdata.shards.packed import PackedWriter, encode_blocks
from gemsdata.shards.plan import Part, Plan
from gemsdata.shards.schema import Rows, row_schema
from gemsdata.shards.webdataset import TarWriter


def encode_parts(
    plan: Plan,
    parts: list[Part],
    *,
    workers: int = 1,
    progress: Progress = no_progress,
    after: Callable[[Part], None] | None = None,
) -> None:
    """Encode the parts that are not on disk yet, ``workers`` at a time; ``after`` is called with each when it is there.

    With two or more workers, twice as many threads are started, so that half of them compute while the others wait for
    the disk; a semaphore limits the computing threads to ``workers``.
    """
    total = sum(part.num_rows for part in parts)
    computing = threading.Semaphore(max(workers, 1))

    def encode(part: Part) -> None:
        if finished_part(plan, part) is None:
            encode_part(plan, part, computing)
        if after is not None:
            after(part)
        progress("writing", part.num_rows, total)

    if workers < 2:
        for part in parts:
            encode(part)
        return
    with ThreadPoolExecutor(2 * workers, thread_name_prefix="encode") as pool:
        futures = [pool.submit(encode, part) for part in parts]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
    for future in done:
        future.result()


def encode_part(plan: Plan, part: Part, computing: AbstractContextManager[Any] | None = None) -> Shard:
    """Write the shard of one part in every format, publish it, then publish its entry of the manifest.

    ``computing`` is held while the rows are made and written, but not while the files are flushed to disk.
    """
    try:
        shard = _write_files(plan, part, computing)
        write_checked(entry_path(plan, part), dataclasses.asdict(shard))
    except FileNotFoundError:
        if plan.part_file(part.split).is_dir():
            raise
        raise ValueError(
            f"{plan.folder} was completed or planned again while {part.name} was encoded; this part was not written"
        ) from None
    return shard


def _write_files(plan: Plan, part: Part, computing: AbstractContextManager[Any] | None) -> Shard:
    """Write and publish the files of a part; return its entry of the manifest."""
    with contextlib.ExitStack() as files:
        streams = {
            name: HashedStream(files.enter_context(publish(plan.part_file(part.path(name)))))
            for name in FORMATS[plan.options.format]
        }
        with computing or contextlib.nullcontext():
            num_tokens, content = _write_rows(plan, part, streams)
    return Shard(
        first_row=part.first_row,
        num_rows=part.num_rows,
        num_tokens=num_tokens,
        content_xxh3_64=content,
        files={
            name: ShardFile(path=part.path(name), num_bytes=stream.num_bytes, **stream.digests())
            for name, stream in streams.items()
        },
    )


def _write_rows(plan: Plan, part: Part, streams: dict[str, HashedStream]) -> tuple[int, str]:
    """Write the rows of a part to its streams; return the number of tokens and the digest of the rows."""
    options, cut = plan.options, plan.windows[part.split]
    if options.packed:
        return _write_blocks(plan, part, streams["packed"])
    order = np.empty(part.num_rows, np.int64)
    order_key = key_of(options.seed, RandomStream.ROW_ORDER, SPLITS.index(part.split))
    permute_range(part.first_row, len(cut), np.uint64(order_key), order)
    writers = [_writer(name, stream, plan) for name, stream in streams.items()]
    content = xxhash.xxh3_64()
    num_tokens = 0
    for first in range(0, part.num_rows, options.block_rows):
        rows = encode_rows(plan.genome, cut, order[first : first + options.block_rows], options.k, options.row_tokens)
        ranks = plan.ranks[rows.input_ids] if options.rank_column else None
        for column in (rows.input_ids, rows.num_tokens, rows.contig, rows.start):
            content.update(column.data)
        num_tokens += int(rows.num_tokens.sum(dtype=np.int64))
        for writer in writers:
            writer.write(part.first_row + first, rows, ranks)
    for writer in writers:
        writer.close()
    return num_tokens, content.hexdigest()


def _write_blocks(plan: Plan, part: Part, stream: HashedStream) -> tuple[int, str]:
    """Write the blocks of a part of a packed set, in genome order; return its bases and the digest of the blocks."""
    cut, block_bases = plan.windows[part.split], plan.draft.row_tokens
    here = slice(part.first_row, part.first_row + part.num_rows)
    blocks = np.column_stack([cut.contig[here], cut.start[here], cut.num_tokens[here]])
    writer = PackedWriter(stream, block_bases, len(plan.genome.names), _metadata(plan))
    content = xxhash.xxh3_64()
    genome = plan.genome.mapped_anew()  # a part reads its own piece of the genome, so that memory holds few pieces
    for first in range(0, part.num_rows, plan.draft.block_rows):
        encoded = encode_blocks(genome, blocks[first : first + plan.draft.block_rows], block_bases)
        for column in (encoded.packed, encoded.num_bases, encoded.contig, encoded.start):
            content.update(column.data)
        writer.write(encoded)
    writer.close()
    return int(blocks[:, 2].sum()), content.hexdigest()


def encode_rows(genome: PackedGenome, cut: windows.Windows, window: np.ndarray, k: int, row_tokens: int) -> Rows:
    """Return the rows of the windows ``window`` int64[B] of a split."""
    contig, start, num_tokens = cut.contig[window], cut.start[window], cut.num_tokens[window]
    ids = np.empty((window.size, row_tokens), token_dtype(k))
    kmer.tokenize_rows(genome.packed, genome.base_offset[contig] + start, num_tokens, k, ids)
    return Rows(input_ids=ids, num_tokens=num_tokens, contig=contig, start=start)


def finished_part(plan: Plan, part: Part, *, check_hashes: bool = True) -> Shard | None:
    """Return the manifest entry of a part whose files are complete on disk (by size, optionally by hash), else None."""
    try:
        shard = parse_entry(plan, part, entry_path(plan, part).read_bytes())
    except FileNotFoundError:
        return None
    if shard is None:
        return None
    for file in shard.files.values():
        path = plan.part_file(file.path)
        if not path.exists() or path.stat().st_size != file.num_bytes:
            return None
        if check_hashes and xxh3_of(path) != file.xxh3_64:
            return None
    return shard


def parse_entry(plan: Plan, part: Part, text: bytes) -> Shard | None:
    """Return the manifest entry of a part from the content of its file; None when it is damaged or of another plan."""
    try:
        shard = from_json(Shard, parse_checked(text, part.name), part.name)
    except ValueError:
        return None
    wanted = (part.first_row, part.num_rows, {name: part.path(name) for name in FORMATS[plan.options.format]})
    found = (shard.first_row, shard.num_rows, {name: file.path for name, file in shard.files.items()})
    return shard if found == wanted else None


def complete_manifest(plan: Plan, shards: Iterable[Shard | None], place: str | Path) -> Manifest:
    """Return the manifest of a set from the entries of all its parts; raise ValueError that names missing parts.

    ``place`` is what messages call the folder of the set.
    """
    splits: dict[str, list[Shard]] = {split: [] for split in SPLITS}
    missing: list[str] = []
    for part, shard in zip(plan.parts, shards, strict=True):
        if shard is None:
            missing.append(part.name)
        else:
            splits[part.split].append(shard)
    if missing:
        raise ValueError(
            f"{place} lacks {len(missing)} of {len(plan.parts)} parts: {', '.join(missing)}; "
            "encode them, then finalise again"
        )
    return dataclasses.replace(plan.draft, splits=splits).with_hashes()


def _writer(name: str, stream: HashedStream, plan: Plan) -> ArrowWriter | TarWriter:
    options = plan.options
    if name == "webdataset":
        compressed = options.format == "webdataset" and options.compression == "zstd"
        return TarWriter(stream, options.block_rows, compressed=compressed)
    schema = row_schema(options.k, options.row_tokens, len(plan.genome.names), options.rank_column)
    return ArrowWriter(stream, schema.with_metadata(_metadata(plan)), options.compression)


def _metadata(plan: Plan) -> dict[bytes, bytes]:
    """Return the metadata of a shard: enough to mask its rows without the rest of the set."""
    return {
        b"gemsdata.k": str(plan.options.k).encode(),
        b"gemsdata.genome_sha256": plan.genome.sha256.encode(),
        b"gemsdata.npmi_estimator": plan.draft.npmi.estimator.encode(),
        b"gemsdata.npmi_rank": plan.ranks.astype(plan.ranks.dtype.newbyteorder("<")).tobytes(),
    }


def entry_path(plan: Plan, part: Part) -> Path:
    """Return the file of a part's entry of the manifest."""
    return plan.part_file(f"{part.name}.json")
