"""Check a shard set, and every row of it against its FASTA, along a slow path of its own.

The FASTA is read line by line in Python (the writer uses htslib), tokens come from numpy arithmetic on one byte a
base (the writer unpacks two bits in a kernel), windows from a loop over runs, counts from ``bincount`` at every
order, PMI from listing segmentations.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xxhash

from gemsdata.files.progress import Progress, no_progress
from gemsdata.genome.vocab import BASES, NUM_SPECIAL, kmer_of_value, num_kmers
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.arrow import ArrowShard
from gemsdata.shards.manifest import NPMI_FILE, Manifest, Shard
from gemsdata.shards.schema import Rows
from gemsdata.shards.verify.error import Difference
from gemsdata.shards.verify.npmi import check_counts, check_scores
from gemsdata.shards.verify.reference import OTHER, SOFT_BIT, PlainBases, expected_windows, read_bases
from gemsdata.shards.webdataset import TarShard

__all__ = ["Difference", "Verdict", "verify"]

_READERS: dict[str, type[ArrowShard] | type[TarShard]] = {"arrow": ArrowShard, "webdataset": TarShard}


@dataclass
class Verdict:
    """What was checked and held."""

    num_files: int = 0
    num_rows: int = 0
    num_tokens: int = 0
    against_fasta: bool = False
    checks: list[str] = field(default_factory=list)


def verify(out: str | Path, fasta: Sequence[str] = (), progress: Progress = no_progress) -> Verdict:
    """Check the shard set in ``out``: files, hashes, counts; with ``fasta`` also every row, window, count and rank.

    Returns what was checked. Raises Difference at the first thing that is not as it should be, and FileNotFoundError
    or ValueError when ``out`` is no shard set or ``fasta`` cannot be read.
    """
    folder = Path(out)
    manifest = Manifest.load(folder)
    table = NpmiTable.from_parquet(folder / NPMI_FILE)
    ranks = table.ranks(manifest.k)
    verdict = Verdict()
    _check_npmi_file(folder, manifest, ranks)
    verdict.checks.append("npmi.parquet and the ranks have the hashes of the manifest")
    with tempfile.TemporaryDirectory(prefix="gemsdata-verify-") as scratch:
        bases = read_bases(fasta, Path(scratch) / "bases.bin") if fasta else None
        if bases is not None:
            _check_contigs(manifest, bases)
            verdict.against_fasta = True
        for split in manifest.splits:
            placed = _check_rows(folder, manifest, split, ranks, bases, verdict, progress)
            if bases is not None:
                _check_coverage(manifest, split, bases, placed)
        verdict.checks.append("every shard has the rows, size, xxh3, sha256 and padding that it should have")
        if bases is not None:
            verdict.checks.append("every token, position and rank is what the FASTA says")
            verdict.checks.append("each eligible window is there once, none spans a gap or two splits")
            verdict.checks.append(check_counts(manifest, table, bases, folder / NPMI_FILE))
            verdict.checks.append(check_scores(manifest, table, folder / NPMI_FILE))
    return verdict


def _check_npmi_file(folder: Path, manifest: Manifest, ranks: np.ndarray) -> None:
    if _sha256(folder / NPMI_FILE) != manifest.npmi["sha256"]:
        raise Difference(f"{NPMI_FILE}: its sha256 is not the manifest's")
    if hashlib.sha256(ranks.astype("<u4").tobytes()).hexdigest() != manifest.npmi["rank_sha256"]:
        raise Difference(f"{NPMI_FILE}: its ranks of the {manifest.k}-mers are not the manifest's")


def _check_rows(
    folder: Path,
    manifest: Manifest,
    split: str,
    ranks: np.ndarray,
    bases: PlainBases | None,
    verdict: Verdict,
    progress: Progress,
) -> np.ndarray:
    """Check all shards of a split; return where its rows lie: (contig, start, num_tokens) int64[n, 3] in row order."""
    total = sum(manifest.num_rows(name) for name in manifest.splits)
    places: list[np.ndarray] = [np.empty((0, 3), np.int64)]
    first_row = 0
    for shard in manifest.shards(split):
        if shard.first_row != first_row:
            raise Difference(f"{split}: a shard begins at row {shard.first_row}, not {first_row}")
        for file_format, file in shard.files.items():
            where = file.path
            path = folder / file.path
            if not path.exists():
                raise Difference(f"{where} is missing")
            _check_bytes(path, where, file.num_bytes, file.xxh3_64, file.sha256)
            reader = _open(path, file_format, where)
            content = xxhash.xxh3_64()
            shard_places: list[np.ndarray] = []
            row = first_row
            for index in range(reader.num_blocks):
                rows = reader.block(index)
                _check_padding(rows, manifest, where, row)
                if bases is not None:
                    _check_tokens(rows, manifest, bases, where, row)
                for column in (rows.input_ids, rows.num_tokens, rows.contig, rows.start):
                    content.update(np.ascontiguousarray(column).data)
                shard_places.append(np.column_stack([rows.contig, rows.start, rows.num_tokens]).astype(np.int64))
                row += len(rows)
            _check_shard_totals(shard, where, row - first_row, shard_places, content.hexdigest())
            _check_rank_column(path, file_format, manifest, ranks, where)
            verdict.num_files += 1
        places += shard_places
        first_row += shard.num_rows
        verdict.num_rows += shard.num_rows
        verdict.num_tokens += shard.num_tokens
        progress("checking", shard.num_rows, total)
    return np.concatenate(places)


def _check_bytes(path: Path, where: str, num_bytes: int, xxh3: str, sha256: str) -> None:
    if path.stat().st_size != num_bytes:
        raise Difference(f"{where} has {path.stat().st_size} bytes; the manifest says {num_bytes}")
    fast, slow = xxhash.xxh3_64(), hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            fast.update(block)
            slow.update(block)
    if fast.hexdigest() != xxh3 or slow.hexdigest() != sha256:
        raise Difference(f"{where}: its content was changed (the hash is not the manifest's)")


def _open(path: Path, file_format: str, where: str) -> ArrowShard | TarShard:
    try:
        return _READERS[file_format](path)
    except ValueError as error:
        raise Difference(f"{where}: {error}") from None


def _check_shard_totals(shard: Shard, where: str, num_rows: int, places: list[np.ndarray], content: str) -> None:
    num_tokens = sum(int(place[:, 2].sum()) for place in places)
    if (num_rows, num_tokens) != (shard.num_rows, shard.num_tokens):
        raise Difference(
            f"{where} holds {num_rows} rows and {num_tokens} tokens; the manifest says {shard.num_rows} "
            f"and {shard.num_tokens}"
        )
    if content != shard.content_xxh3_64:
        raise Difference(f"{where}: its rows are not the ones that the manifest hashed")


def _check_padding(rows: Rows, manifest: Manifest, where: str, first_row: int) -> None:
    token_pos = np.arange(manifest.row_tokens)
    real = token_pos < rows.num_tokens[:, None]
    highest = NUM_SPECIAL + num_kmers(manifest.k) - 1
    wrong = np.where(real, (rows.input_ids < NUM_SPECIAL) | (rows.input_ids > highest), rows.input_ids != 0)
    wrong |= (rows.num_tokens == 0)[:, None]
    if wrong.any():
        row, position = np.argwhere(wrong)[0].tolist()
        raise Difference(
            f"{where} row {first_row + row} token {position}: id {rows.input_ids[row, position]} is out of place "
            f"in a row of {rows.num_tokens[row]} tokens"
        )


def _check_tokens(rows: Rows, manifest: Manifest, bases: PlainBases, where: str, first_row: int) -> None:
    """Compare a block with tokens made of one byte a base by numpy arithmetic."""
    k, num_tokens = manifest.k, rows.num_tokens.astype(np.int64)
    lengths = np.array(bases.lengths, np.int64)
    contig = rows.contig.astype(np.int64)
    outside = (contig >= len(lengths)) | (rows.start < 0)
    outside |= rows.start + num_tokens + k - 1 > lengths[np.minimum(contig, len(lengths) - 1)]
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise Difference(
            f"{where} row {first_row + row}: contig {contig[row]} base {rows.start[row]} is outside the FASTA"
        )
    base_pos = (np.array(bases.offsets, np.int64)[contig] + rows.start)[:, None] + np.arange(
        manifest.row_tokens + k - 1
    )
    codes = bases.codes[np.minimum(base_pos, len(bases.codes) - 1)] & ~np.uint8(SOFT_BIT)
    expected = np.zeros(rows.input_ids.shape, np.int64)
    broken = np.zeros(rows.input_ids.shape, bool)
    for j in range(k):
        column = codes[:, j : j + manifest.row_tokens]
        expected = 4 * expected + column
        broken |= column == OTHER
    expected += NUM_SPECIAL
    real = np.arange(manifest.row_tokens) < num_tokens[:, None]
    wrong = real & (broken | (expected != rows.input_ids))
    if wrong.any():
        row, position = np.argwhere(wrong)[0].tolist()
        name = bases.names[contig[row]]
        base = int(rows.start[row]) + position
        found = int(rows.input_ids[row, position])
        letters = "".join((*BASES, "N")[code] for code in codes[row, position : position + k])
        raise Difference(
            f"{where} row {first_row + row} token {position}: {kmer_of_value(found - NUM_SPECIAL, k)} (id {found}), "
            f"but {name}:{base} in the FASTA reads {letters}"
        )


def _check_rank_column(path: Path, file_format: str, manifest: Manifest, ranks: np.ndarray, where: str) -> None:
    """Check the ranks that an Arrow shard carries: in its metadata, and in its column where it has one."""
    if file_format != "arrow":
        return
    shard = ArrowShard(path)
    carried = np.frombuffer(shard.metadata[b"gemsdata.npmi_rank"], ranks.dtype.newbyteorder("<"))
    if not np.array_equal(carried, ranks):
        raise Difference(f"{where}: the ranks in its metadata are not those of {NPMI_FILE}")
    if manifest.rank_column:
        for index in range(shard.num_blocks):
            column = shard.column(index, "npmi_rank")
            if not np.array_equal(column, ranks[shard.block(index).input_ids]):
                raise Difference(f"{where} block {index}: npmi_rank is not the rank of input_ids")


def _check_contigs(manifest: Manifest, bases: PlainBases) -> None:
    for index, contig in enumerate(manifest.contigs):
        if index >= len(bases.names):
            raise Difference(f"contig {contig['name']} is not in the FASTA")
        found = (bases.names[index], bases.lengths[index])
        if found != (contig["name"], contig["num_bases"]):
            raise Difference(
                f"contig {index} is {contig['name']} of {contig['num_bases']} bases in the set, "
                f"{found[0]} of {found[1]} in the FASTA"
            )
    if len(bases.names) > len(manifest.contigs):
        raise Difference(f"contig {bases.names[len(manifest.contigs)]} of the FASTA is not in the set")


def _check_coverage(manifest: Manifest, split: str, bases: PlainBases, placed: np.ndarray) -> None:
    """Check that the rows lie where a loop over the runs of ACGT puts them: each window once, and no other."""
    expected = np.array(list(expected_windows(manifest, split, bases)), np.int64).reshape(-1, 3)
    placed = placed[np.lexsort((placed[:, 1], placed[:, 0]))]
    shared = min(len(expected), len(placed))
    differs = np.flatnonzero((expected[:shared] != placed[:shared]).any(axis=1))
    if differs.size:
        here, wanted = placed[differs[0]], expected[differs[0]]
        raise Difference(
            f"{split}: window {_window_text(here, bases)} stands where {_window_text(wanted, bases)} should"
        )
    if len(expected) != len(placed):
        raise Difference(f"{split}: {len(placed)} windows where there should be {len(expected)}")


def _window_text(window: np.ndarray, bases: PlainBases) -> str:
    contig, start, num_tokens = window.tolist()
    return f"{bases.names[contig]}:{start} of {num_tokens} tokens"


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
