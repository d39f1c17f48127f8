"""Sharding as idempotent steps: plan, encode part i, finalise.

``make_plan`` reads the FASTA once and leaves everything that the parts need in ``OUT/_work``. ``encode_part`` writes
one shard, on any machine that sees the folder and in any order. ``finalise`` checks that no part is missing and
publishes the manifest. Every file is published by rename, so a run that dies anywhere can be taken up where it
stopped; ``shard`` is the three in one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from gemsdata.files.hashing import HashedStream, xxh3_of
from gemsdata.files.progress import Progress, no_progress
from gemsdata.files.publish import publish, write_text
from gemsdata.genome.packed import PackedGenome
from gemsdata.genome.vocab import token_dtype
from gemsdata.kernels import kmer
from gemsdata.kernels.keys import key_of
from gemsdata.kernels.order import permute_range
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.shards import windows
from gemsdata.shards.arrow import ArrowWriter
from gemsdata.shards.manifest import (
    SPLITS,
    Manifest,
)
from gemsdata.shards.manifest_fields import Shard, ShardFile
from gemsdata.shards.options import FORMATS, ShardOptions
from gemsdata.shards.packed import PackedWriter, encode_blocks
from gemsdata.shards.plan import (
    Part,
    Plan,
    make_plan,
    open_plan,
)
from gemsdata.shards.resume import check_complete
from gemsdata.shards.schema import Rows, row_schema
from gemsdata.shards.webdataset import TarWriter
from gemsdata.shards.work_folder import (
    check_writable,
    finish_publishing,
    interrupted,
    is_complete,
    is_planned,
    locked,
    publish_set,
    remove_work,
    work_of,
)

__all__ = [
    "encode_part",
    "encode_parts",
    "finalise",
    "make_plan",
    "open_plan",
    "plan_only",
    "prepare_folder",
    "shard",
]


def shard(
    paths: Iterable[str | Path],
    out: str | Path,
    options: ShardOptions | None = None,
    *,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> tuple[Manifest, dict[str, Any]]:
    """Shard a genome into the folder ``out``; return the manifest and what the plan reports of the genome.

    ``workers`` threads encode: the kernels, the hashes and the writes release the GIL. 0 and 1 both encode in the
    calling thread. Raises ValueError or FileNotFoundError for a user's mistake, OSError when the disk is full
    (finished parts are kept then).
    """
    if workers < 0:
        raise ValueError(f"workers = {workers}; 0 or more are needed")
    folder, inputs, options = Path(out), [str(path) for path in paths], options or ShardOptions()
    if resume:
        prepare_folder(folder, resume=resume, overwrite=overwrite)
    if resume and is_complete(folder) and not is_planned(folder):
        return _already_complete(folder, inputs, options, progress)
    plan = plan_only(inputs, folder, options, resume=resume, overwrite=overwrite, progress=progress)
    with locked(folder):
        encode_parts(plan, plan.parts, workers=workers, progress=progress)
        return finalise(plan, check_hashes=False), plan.summary  # each part was just written, or just hashed


def plan_only(
    paths: Iterable[str | Path],
    out: str | Path,
    options: ShardOptions | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Plan:
    """Plan a shard set in the folder ``out`` and encode nothing; what fails leaves the folder as it was.

    A complete set in ``out`` that is to be overwritten stays as it is until the new one is finalised.
    """
    folder, inputs = Path(out), [str(path) for path in paths]
    existed = folder.exists()
    prepare_folder(folder, resume=resume, overwrite=overwrite)
    if resume and is_complete(folder) and not is_planned(folder):
        raise ValueError(f"{folder} is complete: nothing is left to plan; --overwrite replaces it")
    with locked(folder):
        try:
            return make_plan(inputs, folder, options or ShardOptions(), resume=resume, progress=progress)
        except BaseException:
            if not resume:
                remove_work(folder)
                if not existed:
                    with contextlib.suppress(OSError):
                        folder.rmdir()
            raise


def prepare_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Make ``folder`` ready to be written; raise ValueError when that would touch files that are not of a shard set.

    A publication that was interrupted is completed first.
    """
    check_writable(folder, resume=resume, overwrite=overwrite)
    if not is_complete(folder):
        try:
            work_of(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{folder} cannot be written: {error.strerror}; give another folder") from None
    if interrupted(folder):
        with locked(folder):
            finish_publishing(folder)


def encode_parts(plan: Plan, parts: list[Part], *, workers: int = 1, progress: Progress = no_progress) -> None:
    """Encode the parts that are not on disk yet, ``workers`` at a time.

    With two workers or more there are twice as many threads, so that while one half waits for the disk to flush the
    other half computes; a semaphore keeps the computing ones to ``workers``.
    """
    total = sum(part.num_rows for part in parts)
    computing = threading.Semaphore(max(workers, 1))

    def encode(part: Part) -> None:
        if finished_part(plan, part) is None:
            encode_part(plan, part, computing)
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

    ``computing`` is held while the rows are made and written, and not while the files are flushed to disk.
    """
    plan.part_file(part.split).mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as files:
        streams = {
            name: HashedStream(files.enter_context(publish(plan.part_file(part.path(name)))))
            for name in FORMATS[plan.options.format]
        }
        with computing or contextlib.nullcontext():
            num_tokens, content = _write_rows(plan, part, streams)
    shard = Shard(
        first_row=part.first_row,
        num_rows=part.num_rows,
        num_tokens=num_tokens,
        content_xxh3_64=content,
        files={
            name: ShardFile(path=part.path(name), num_bytes=stream.num_bytes, **stream.digests())
            for name, stream in streams.items()
        },
    )
    write_text(_entry_path(plan, part), json.dumps(dataclasses.asdict(shard)))
    return shard


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
    blocks = np.column_stack([cut.contig, cut.start, cut.num_tokens])[part.first_row : part.first_row + part.num_rows]
    writer = PackedWriter(stream, block_bases, len(plan.genome.names), _metadata(plan))
    content = xxhash.xxh3_64()
    for first in range(0, part.num_rows, plan.draft.block_rows):
        encoded = encode_blocks(plan.genome, blocks[first : first + plan.draft.block_rows], block_bases)
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
    """Return the manifest entry of a part whose files are on disk whole (by size, and by hash if asked), else None."""
    shard = _read_entry(plan, part)
    if shard is None:
        return None
    for entry in shard.files.values():
        path = plan.part_file(entry.path)
        if not path.exists() or path.stat().st_size != entry.num_bytes:
            return None
        if check_hashes and xxh3_of(path) != entry.xxh3_64:
            return None
    return shard


def finalise(plan: Plan, *, check_hashes: bool = True) -> Manifest:
    """Put the parts in their places, write the manifest and remove ``_work``.

    ``check_hashes`` reads every part and compares it with the hash that it was written with. Raises ValueError that
    names the parts which are missing or damaged.
    """
    splits: dict[str, list[Shard]] = {split: [] for split in SPLITS}
    missing: list[str] = []
    for part in plan.parts:
        shard = finished_part(plan, part, check_hashes=check_hashes)
        if shard is None:
            missing.append(part.name)
        else:
            splits[part.split].append(shard)
    if missing:
        raise ValueError(
            f"{plan.folder} lacks {len(missing)} of {len(plan.parts)} parts: {', '.join(missing)}; "
            "encode them, then finalise again"
        )
    manifest = dataclasses.replace(plan.draft, splits=splits).with_hashes()
    with locked(plan.folder):
        publish_set(plan.folder, manifest, plan.parts_folder)
    return manifest


def _already_complete(
    folder: Path, inputs: list[str], options: ShardOptions, progress: Progress
) -> tuple[Manifest, dict[str, Any]]:
    """Answer a resumed run whose set was complete before: compare input and options with it, and report."""
    manifest = Manifest.load(folder)
    check_complete(folder, manifest, inputs, options, progress)
    with locked(folder):
        remove_work(folder)
    genome = manifest.genome
    return manifest, {
        "contigs": len(manifest.contigs),
        "bases": genome.num_bases,
        "soft_masked": genome.num_soft_masked,
        "skipped": {"not ACGT": genome.num_not_acgt},
        "notes": ["the set was complete before; nothing was written"],
    }


def _writer(name: str, stream: HashedStream, plan: Plan) -> ArrowWriter | TarWriter:
    options = plan.options
    if name == "webdataset":
        compressed = options.format == "webdataset" and options.compression == "zstd"
        return TarWriter(stream, options.block_rows, compressed=compressed)
    schema = row_schema(options.k, options.row_tokens, len(plan.genome.names), options.rank_column)
    return ArrowWriter(stream, schema.with_metadata(_metadata(plan)), options.compression)


def _metadata(plan: Plan) -> dict[bytes, bytes]:
    """What a shard says of itself: enough to mask its rows without the rest of the set."""
    return {
        b"gemsdata.k": str(plan.options.k).encode(),
        b"gemsdata.genome_sha256": plan.genome.sha256.encode(),
        b"gemsdata.npmi_estimator": plan.draft.npmi.estimator.encode(),
        b"gemsdata.npmi_rank": plan.ranks.astype(plan.ranks.dtype.newbyteorder("<")).tobytes(),
    }


def _entry_path(plan: Plan, part: Part) -> Path:
    return plan.part_file(f"{part.name}.json")


def _read_entry(plan: Plan, part: Part) -> Shard | None:
    path = _entry_path(plan, part)
    if not path.exists():
        return None
    stored = json.loads(path.read_text())
    return Shard(**{**stored, "files": {name: ShardFile(**entry) for name, entry in stored["files"].items()}})
