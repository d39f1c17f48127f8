"""Verification of packed shards: blocks read by Arrow, bases unpacked by numpy and compared as one byte per base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from gemsdata.genome.vocab import BASES
from gemsdata.shards.arrow_sizes import check_sizes
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.manifest_fields import Shard
from gemsdata.shards.member import column_bytes
from gemsdata.shards.packed import packed_schema
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.reference import OTHER, ReferenceGenome
from gemsdata.shards.verify.rows import check_bytes

_COLUMNS = ("packed", "num_bases", "contig", "start")


def check_packed_shard(
    folder: Path, manifest: Manifest, where: str, shard: Shard, genome: ReferenceGenome | None
) -> np.ndarray:
    """Check the file of a shard; return the positions of its blocks: (contig, start, num_bases), int64[num_rows, 3].

    ``where`` is the split and the number of the shard. Without ``genome`` the bases are compared with the hashes of the
    manifest only. Raises VerificationError.
    """
    file = shard.files["packed"]
    if file.path != f"{where}.arrow":
        raise VerificationError(f"the manifest lists {file.path} where {where}.arrow is expected")
    check_bytes(folder / file.path, file)
    content = xxhash.xxh3_64()
    places = [np.empty((0, 3), np.int64)]
    schema = packed_schema(manifest.row_tokens, len(manifest.contigs))
    try:
        with pa.memory_map(str(folder / file.path)) as mapped:
            whole = mapped.read_buffer()
        check_sizes(whole, column_bytes(manifest.block_rows, manifest.row_tokens, manifest.token_dtype))
        reader = pa.ipc.open_file(pa.BufferReader(whole))
        if not reader.schema.equals(schema):
            raise VerificationError(f"{file.path}: its columns are not blocks of {manifest.row_tokens} bases")
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise VerificationError(f"{file.path} cannot be read: {' '.join(str(error).split())}") from None
    row = shard.first_row
    for index, batch in enumerate(batches):
        if index < len(batches) - 1 and len(batch) != manifest.block_rows:
            raise VerificationError(f"{file.path}: batch {index} has {len(batch)} blocks, not {manifest.block_rows}")
        columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in ("contig", "start", "num_bases")}
        packed = np.frombuffer(b"".join(batch.column("packed").to_pylist()), np.uint8).reshape(len(batch), -1)
        for i in range(len(batch)):
            place = tuple(int(columns[name][i]) for name in ("contig", "start", "num_bases"))
            _check_block(packed[i], place, manifest, genome, f"{file.path} row {row + i}")
        for name in _COLUMNS:
            content.update(np.ascontiguousarray(packed if name == "packed" else columns[name]).data)
        places.append(np.column_stack(list(columns.values())).astype(np.int64))
        row += len(batch)
    found = np.concatenate(places)
    if (len(found), int(found[:, 2].sum())) != (shard.num_rows, shard.num_tokens):
        raise VerificationError(
            f"{file.path} has {len(found)} blocks of {found[:, 2].sum()} bases; the manifest differs"
        )
    if content.hexdigest() != shard.content_xxh3_64:
        raise VerificationError(f"{file.path}: the digest of its blocks is not the manifest's")
    return found


def expected_blocks(manifest: Manifest, split: str) -> np.ndarray:
    """Return the blocks (contig, start, num_bases) int64[n, 3] of a split by a loop over its parts of contigs."""
    held_out: dict[int, list[tuple[int, int]]] = {}
    for contig, start, end in manifest.validation.regions:
        held_out.setdefault(contig, []).append((start, end))
    blocks: list[tuple[int, int, int]] = []
    for contig, entry in enumerate(manifest.contigs):
        regions = sorted(held_out.get(contig, []))
        parts = regions
        if split == "train":
            edges = [0, *(edge for region in regions for edge in region), entry.num_bases]
            parts = list(zip(edges[::2], edges[1::2], strict=True))
        for first, last in parts:
            for start in range(first, last, manifest.row_tokens):
                blocks.append((contig, start, min(manifest.row_tokens, last - start)))
    return np.array(blocks, np.int64).reshape(-1, 3)


def _check_block(
    packed: np.ndarray, place: tuple[int, ...], manifest: Manifest, genome: ReferenceGenome | None, where: str
) -> None:
    """Check the bases of a block, and that it is 0 beyond them."""
    contig, start, num_bases = place
    if not 0 < num_bases <= manifest.row_tokens or contig >= len(manifest.contigs):
        raise VerificationError(f"{where}: contig {contig} with {num_bases} bases is not a valid block")
    digits = np.empty((packed.size, 4), np.uint8)
    for j in range(4):
        digits[:, j] = packed >> (6 - 2 * j) & 3
    bases = digits.ravel()
    if bases[num_bases:].any():
        raise VerificationError(f"{where}: not 0 beyond its {num_bases} bases")
    if genome is None:
        return
    codes = genome.contig(contig)[start : start + num_bases] & 7
    wanted = np.where(codes == OTHER, 0, codes)
    if len(wanted) != num_bases or not np.array_equal(wanted, bases[:num_bases]):
        differs = int(np.flatnonzero(wanted != bases[: len(wanted)])[0]) if len(wanted) == num_bases else len(wanted)
        raise VerificationError(
            f"{where}: base {start + differs} of {genome.names[contig]} is {BASES[bases[differs]]}, which the FASTA"
            " does not have there"
        )
