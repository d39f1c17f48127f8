"""Verification of the rows of shards: blocks read by Arrow or tarfile, tokens made from one byte per base."""

from __future__ import annotations

import hashlib
import tarfile
import tokenize
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from gemsdata.genome.vocab import BASES, NUM_SPECIAL, kmer_of_value, num_kmers
from gemsdata.shards.arrow_sizes import check_sizes
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.manifest_fields import Shard, ShardFile
from gemsdata.shards.member import MOST_COLUMN_BYTES, column_bytes, parse_name, read_array
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.reference import OTHER, ReferenceGenome

_COLUMNS = ("input_ids", "num_tokens", "contig", "start")
_ROWS_AT_ONCE = 1024
_MOST_UINT16 = 65536

Block = dict[str, np.ndarray]


def check_shard(
    folder: Path, manifest: Manifest, where: str, shard: Shard, ranks: np.ndarray, genome: ReferenceGenome | None
) -> np.ndarray:
    """Check every file of a shard; return the positions of its rows: (contig, start, num_tokens), int64[num_rows, 3].

    ``where`` is the split and the number of the shard, ``ranks`` [4**k + 5] are from the set's NPMI table. Without
    ``genome`` the tokens are compared with the hashes of the manifest only. Raises VerificationError.
    """
    places = np.empty((0, 3), np.int64)
    if sorted(shard.files) != sorted(manifest.formats):
        raise VerificationError(f"{where} has files of {sorted(shard.files)}; the manifest has {manifest.formats}")
    for file_format, file in shard.files.items():
        expected_path = f"{where}{'.arrow' if file_format == 'arrow' else '.tar'}"
        if file.path != expected_path:
            raise VerificationError(f"the manifest lists {file.path} where {expected_path} is expected")
        check_bytes(folder / file.path, file)
        content = xxhash.xxh3_64()
        found: list[np.ndarray] = []
        row = shard.first_row
        most_bytes = column_bytes(manifest.block_rows, manifest.row_tokens, manifest.token_dtype)
        for block in read_blocks(folder / file.path, file.path, file_format, most_bytes):
            _check_columns(block, manifest, file.path, row, last_row=shard.first_row + shard.num_rows)
            for first in range(0, len(block["start"]), _ROWS_AT_ONCE):
                rows = {name: column[first : first + _ROWS_AT_ONCE] for name, column in block.items()}
                _check_padding(rows, manifest, file.path, row + first)
                if genome is not None:
                    _check_tokens(rows, manifest, genome, file.path, row + first)
                if manifest.rank_column and not np.array_equal(rows["npmi_rank"], ranks[rows["input_ids"]]):
                    raise VerificationError(f"{file.path} row {row + first}: npmi_rank is not the rank of input_ids")
            for name in _COLUMNS:
                content.update(np.ascontiguousarray(block[name]).data)
            found.append(np.column_stack([block["contig"], block["start"], block["num_tokens"]]).astype(np.int64))
            row += len(block["start"])
        places = np.concatenate([np.empty((0, 3), np.int64), *found])
        _check_totals(shard, file.path, places, content.hexdigest())
        if file_format == "arrow":
            _check_arrow_header(folder / file.path, file.path, manifest, ranks)
    return places


def check_bytes(path: Path, file: ShardFile) -> None:
    """Raise VerificationError if the size or the hashes of a file differ from the manifest."""
    if path.stat().st_size != file.num_bytes:
        raise VerificationError(f"{file.path} has {path.stat().st_size} bytes; the manifest says {file.num_bytes}")
    fast, slow = xxhash.xxh3_64(), hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            fast.update(block)
            slow.update(block)
    if (fast.hexdigest(), slow.hexdigest()) != (file.xxh3_64, file.sha256):
        raise VerificationError(f"{file.path}: its content was changed (the hash differs from the manifest)")


def read_blocks(path: Path, where: str, file_format: str, most_bytes: int = MOST_COLUMN_BYTES) -> Iterator[Block]:
    """Yield the blocks of a shard as {column: array}; ``where`` is its name in messages.

    Raises VerificationError for one that is damaged, or that expands to more than ``most_bytes`` a column.
    """
    read = _arrow_blocks if file_format == "arrow" else _tar_blocks
    try:
        yield from read(path, where, most_bytes)
    except (
        pa.ArrowException,
        tarfile.TarError,
        tokenize.TokenError,
        SyntaxError,
        OSError,
        ValueError,
        EOFError,
        MemoryError,
    ) as error:
        reason = " ".join(str(error).split())
        raise VerificationError(f"{where} is not a complete {file_format} shard: {reason}") from None


def _arrow_blocks(path: Path, where: str, most_bytes: int) -> Iterator[Block]:
    """Yield the record batches of an Arrow file."""
    with pa.memory_map(str(path)) as file:
        whole = file.read_buffer()
    check_sizes(whole, most_bytes)
    reader = pa.ipc.open_file(pa.BufferReader(whole))
    for index in range(reader.num_record_batches):
        batch = reader.get_batch(index)
        batch.validate(full=True)
        block: Block = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if column.null_count:
                raise VerificationError(f"{where} block {index}: column {name} has nulls")
            is_list = pa.types.is_fixed_size_list(column.type)
            values = (column.flatten() if is_list else column).to_numpy(zero_copy_only=False)
            block[name] = values.reshape(len(column), column.type.list_size) if is_list else values
        yield block


def _check_arrow_header(path: Path, where: str, manifest: Manifest, ranks: np.ndarray) -> None:
    """Check the metadata of an Arrow shard, and whether its buffers are compressed."""
    with pa.memory_map(str(path)) as file:
        whole = file.read_buffer()
    reader = pa.ipc.open_file(pa.BufferReader(whole))
    expected = {
        b"gemsdata.k": str(manifest.k).encode(),
        b"gemsdata.genome_sha256": manifest.genome.sha256.encode(),
        b"gemsdata.npmi_estimator": manifest.npmi.estimator.encode(),
        b"gemsdata.npmi_rank": ranks.astype(ranks.dtype.newbyteorder("<")).tobytes(),
    }
    for key, value in expected.items():
        if (reader.schema.metadata or {}).get(key) != value:
            raise VerificationError(f"{where}: {key.decode()} in its metadata differs from the set")
    for index in range(reader.num_record_batches):
        address = reader.get_batch(index).column("start").buffers()[1].address
        is_mapped = whole.address <= address < whole.address + whole.size
        if is_mapped != (manifest.compression == "none"):
            raise VerificationError(f"{where} block {index}: its compression is not {manifest.compression}")


def _tar_blocks(path: Path, where: str, most_bytes: int) -> Iterator[Block]:
    """Yield the samples of a tar: members in sequence that share the key before the first dot."""
    block: Block = {}
    key = None
    with tarfile.open(path, mode="r:") as tar:
        for member in tar:
            own_key, column, compressed = parse_name(member)
            stream = tar.extractfile(member)
            assert stream is not None, "a plain file"
            if key not in (None, own_key):
                yield block
                block = {}
            key = own_key
            block[column] = read_array(stream.read(), compressed=compressed, most_bytes=most_bytes)
    if block:
        yield block


def _check_columns(block: Block, manifest: Manifest, where: str, row: int, last_row: int) -> None:
    """Check names, dtypes and shapes of the columns of the block that begins at ``row``."""
    wanted = {
        "input_ids": manifest.token_dtype,
        "num_tokens": "uint16",
        "contig": "uint16" if len(manifest.contigs) <= _MOST_UINT16 else "uint32",
        "start": "int64",
    }
    if manifest.rank_column:
        wanted["npmi_rank"] = manifest.token_dtype
    if list(block) != list(wanted):
        raise VerificationError(f"{where} row {row}: its columns are {', '.join(block)}; wanted: {', '.join(wanted)}")
    num_rows = min(manifest.block_rows, last_row - row)
    for name, dtype in wanted.items():
        shape = (num_rows, manifest.row_tokens) if name in ("input_ids", "npmi_rank") else (num_rows,)
        if block[name].dtype != np.dtype(dtype) or block[name].shape != shape:
            found = f"{block[name].dtype} {block[name].shape}"
            raise VerificationError(f"{where} row {row}: {name} is {found}; the manifest says {dtype} {shape}")


def _check_totals(shard: Shard, where: str, places: np.ndarray, content: str) -> None:
    found = len(places), int(places[:, 2].sum())
    if found != (shard.num_rows, shard.num_tokens):
        raise VerificationError(
            f"{where} holds {found[0]} rows and {found[1]} tokens; the manifest says {shard.num_rows} "
            f"and {shard.num_tokens}"
        )
    if content != shard.content_xxh3_64:
        raise VerificationError(f"{where}: the digest of its rows differs from the manifest")


def _check_padding(rows: Block, manifest: Manifest, where: str, first_row: int) -> None:
    token_pos = np.arange(manifest.row_tokens)
    ids, num_tokens = rows["input_ids"], rows["num_tokens"]
    real = token_pos < num_tokens[:, None]
    highest = NUM_SPECIAL + num_kmers(manifest.k) - 1
    wrong = np.where(real, (ids < NUM_SPECIAL) | (ids > highest), ids != 0)
    wrong |= ((num_tokens == 0) | (num_tokens > manifest.row_tokens))[:, None]
    if wrong.any():
        row, position = np.argwhere(wrong)[0].tolist()
        raise VerificationError(
            f"{where} row {first_row + row} token {position}: id {ids[row, position]} is out of place "
            f"in a row of {num_tokens[row]} tokens"
        )


def _check_tokens(rows: Block, manifest: Manifest, genome: ReferenceGenome, where: str, first_row: int) -> None:
    """Compare rows with tokens that numpy makes from one byte per base."""
    k = manifest.k
    num_tokens, contig, start = (rows[name].astype(np.int64) for name in ("num_tokens", "contig", "start"))
    known = np.minimum(contig, len(genome.names) - 1)
    outside = (contig != known) | (start < 0) | (start + num_tokens + k - 1 > genome.num_bases[known])
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise VerificationError(
            f"{where} row {first_row + row}: contig {contig[row]} base {start[row]} is outside the FASTA"
        )
    position = (genome.offset[contig] + start)[:, None] + np.arange(manifest.row_tokens + k - 1)
    codes = genome.codes[np.minimum(position, len(genome.codes) - 1)] & 7
    expected = np.zeros(rows["input_ids"].shape, np.int64)
    broken = np.zeros(rows["input_ids"].shape, bool)
    for j in range(k):
        column = codes[:, j : j + manifest.row_tokens]
        expected = 4 * expected + column
        broken |= column == OTHER
    expected += NUM_SPECIAL
    real = np.arange(manifest.row_tokens) < num_tokens[:, None]
    wrong = real & (broken | (expected != rows["input_ids"]))
    if wrong.any():
        row, token_pos = np.argwhere(wrong)[0].tolist()
        found = int(rows["input_ids"][row, token_pos])
        letters = "".join((*BASES, "N")[code] for code in codes[row, token_pos : token_pos + k])
        raise VerificationError(
            f"{where} row {first_row + row} token {token_pos}: {kmer_of_value(found - NUM_SPECIAL, k)} (id {found}), "
            f"but {genome.names[contig[row]]}:{start[row] + token_pos} in the FASTA reads {letters}"
        )
