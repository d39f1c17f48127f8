"""Windows of the genome: segments, the validation split, and the schemes that cut segments into windows.

A *segment* is a maximal stretch of ACGT inside one split. A window never extends beyond its segment.

``fixed``    windows of L tokens (L + k - 1 bases) every L bases, so that each k-mer of a segment is a token of
exactly one row; the
             last window of a segment may be short. Neighbours share k - 1 bases.
``dnabert``  pieces that share no base: full-length with probability 0.5, else 5..510 bases, uniformly (Ji et al.
2021). A piece
             shorter than k bases has no token and gives no row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemsdata.files.npy_writer import NpyWriter, open_npy
from gemsdata.genome.packed import PackedGenome, complement
from gemsdata.genome.vocab import MAX_K
from gemsdata.kernels import kmer
from gemsdata.kernels.keys import key_of, keys_of
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.shards.schema import contig_dtype

DNABERT_SHORTEST_BASES = 5
DNABERT_LONGEST_BASES = 510
REGION_BASES = 1_000_000
_REGIONS_WANTED = 10
_PART_BASES = 1 << 26
"""of segments whose windows are cut at a time"""


@dataclass(frozen=True)
class Windows:
    """The windows of one split in genome order; arrays of the same length."""

    contig: np.ndarray
    """uint16 (uint32 beyond 65,536 contigs)"""
    start: np.ndarray
    """first base, 0-based in the contig, int64"""
    num_tokens: np.ndarray
    """uint16, 1..L"""

    def __len__(self) -> int:
        return len(self.start)


def window_files(split: str) -> dict[str, str]:
    """Return the names of the files that hold the windows of a split, by field of `Windows`."""
    return {name: f"{split}.{name}.npy" for name in ("contig", "start", "num_tokens")}


def write_windows(folder: Path, split: str, parts: Iterable[Windows]) -> Windows:
    """Write the windows of a split, in one or more parts, to .npy files in ``folder``; return them, mapped."""
    writers: dict[str, NpyWriter] = {}
    for part in parts:
        for name, file in window_files(split).items():
            values = getattr(part, name)
            if name not in writers:
                writers[name] = NpyWriter(folder / file, values.dtype)
            writers[name].append(values)
    for writer in writers.values():
        writer.close()
    return open_windows(folder, split)


def open_windows(folder: Path, split: str) -> Windows:
    """Map the windows that `write_windows` wrote."""
    return Windows(**{name: open_npy(folder / file) for name, file in window_files(split).items()})


def whole_contigs(genome: PackedGenome, names: list[str]) -> np.ndarray:
    """Return the named contigs as regions (contig, start, end) int64[m, 3]; raise ValueError for an unknown name."""
    index = {name: i for i, name in enumerate(genome.names)}
    unknown = [name for name in names if name not in index]
    if unknown:
        known = ", ".join(genome.names[:8]) + (", ..." if len(genome.names) > 8 else "")
        raise ValueError(f"validation contig {unknown[0]!r} is not in the genome; its contigs are {known}")
    chosen = sorted(index[name] for name in set(names))
    return np.array([(i, 0, genome.num_bases[i]) for i in chosen], np.int64).reshape(-1, 3)


def hashed_regions(genome: PackedGenome, fraction: float, row_bases: int, seed: int) -> np.ndarray:
    """Choose about ``fraction`` of the genome's ACGT bases as whole regions (contig, start, end), int64[m, 3], sorted.

    Regions lie on a grid of 1 Mb, or of a smaller step in a small genome, so that about ten of them make up the
    fraction; the step is smaller than one row only if the fraction is. Regions are taken in the order of a hash of
    (seed, contig, start) until they are as close to the fraction as whole regions can be.
    """
    acgt = genome.num_bases.sum() - (genome.gaps[:, 2] - genome.gaps[:, 1]).sum()
    wanted = fraction * acgt
    if wanted <= 0:
        return np.empty((0, 3), np.int64)
    step = int(min(REGION_BASES, max(wanted / _REGIONS_WANTED, min(row_bases, wanted), MAX_K)))
    cells = -(-genome.num_bases // step)
    contig = np.repeat(np.arange(len(cells)), cells)
    start = (np.arange(cells.sum()) - np.repeat(np.cumsum(cells) - cells, cells)) * step
    regions = np.column_stack([contig, start, np.minimum(start + step, genome.num_bases[contig])])
    order = np.argsort(keys_of((seed, RandomStream.VALID_REGION), regions[:, :2]), kind="stable")
    regions = regions[order]
    bases = regions[:, 2] - regions[:, 1] - _gap_bases(genome, regions)
    count = int(np.argmin(np.abs(np.concatenate([[0], np.cumsum(bases)]) - wanted)))
    chosen = regions[:count][bases[:count] > 0]
    return chosen[np.lexsort((chosen[:, 1], chosen[:, 0]))]


def segments(genome: PackedGenome, valid_regions: np.ndarray) -> dict[str, np.ndarray]:
    """Split the genome by ``valid_regions`` (contig, start, end) int64[m, 3], sorted, disjoint.

    Return the sorted segments (contig, start, end) int64[m, 3] of "train" and "valid"; each ACGT base is in exactly
    one.
    """
    offset, length = _line(genome)
    gaps = _on_line(genome.gaps, offset)
    ends = offset + genome.num_bases
    held_out = merge(_on_line(valid_regions, offset))
    out: dict[str, np.ndarray] = {}
    for split, barred in (("train", held_out), ("valid", complement(held_out, length))):
        # the line without the gaps, the other split and the borders of contigs
        everything = np.concatenate([gaps, barred, np.column_stack([ends, ends + 1])])
        pieces = complement(merge(everything[np.argsort(everything[:, 0], kind="stable")]), length)
        contig = np.searchsorted(offset, pieces[:, 0], side="right") - 1
        out[split] = np.column_stack([contig, pieces - offset[contig, None]])
    return out


def merge(intervals: np.ndarray) -> np.ndarray:
    """Join intervals int64[m, 2], sorted by start, that touch or overlap."""
    if len(intervals) == 0:
        return intervals.reshape(0, 2)
    ends = np.maximum.accumulate(intervals[:, 1])
    begins = np.concatenate([[True], intervals[1:, 0] > ends[:-1]])
    last = np.concatenate([begins[1:], [True]])
    return np.column_stack([intervals[begins, 0], ends[last]])


def in_parts(segments: np.ndarray, bases: int = _PART_BASES) -> Iterator[np.ndarray]:
    """Yield segments (contig, start, end) int64[m, 3] in parts of about ``bases`` bases, at least one part."""
    covered = np.cumsum(segments[:, 2] - segments[:, 1])
    last = int(covered[-1]) if len(covered) else 0
    edges = np.searchsorted(covered, np.arange(bases, last, bases), side="left") + 1
    yield from np.split(segments, np.unique(edges))


def cut(segments: np.ndarray, *, scheme: str, k: int, row_tokens: int, seed: int, num_contigs: int) -> Windows:
    """Cut segments (contig, start, end) into windows of at most ``row_tokens`` tokens."""
    if scheme == "fixed":
        return _cut_fixed(segments, k, row_tokens, num_contigs)
    return _cut_dnabert(segments, k, row_tokens, seed, num_contigs)


def _cut_fixed(segments: np.ndarray, k: int, row_tokens: int, num_contigs: int) -> Windows:
    tokens = np.maximum(segments[:, 2] - segments[:, 1] - k + 1, 0)
    rows = -(-tokens // row_tokens)
    segment = np.repeat(np.arange(len(segments)), rows)
    row_in_segment = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    return Windows(
        segments[segment, 0].astype(contig_dtype(num_contigs)),
        segments[segment, 1] + row_in_segment * row_tokens,
        np.minimum(tokens[segment] - row_in_segment * row_tokens, row_tokens).astype(np.uint16),
    )


def _cut_dnabert(segments: np.ndarray, k: int, row_tokens: int, seed: int, num_contigs: int) -> Windows:
    full_bases = row_tokens + k - 1
    longest = min(DNABERT_LONGEST_BASES, full_bases)
    buffer = np.empty((1024, 2), np.int64)
    contigs: list[np.ndarray] = []
    pieces: list[np.ndarray] = [np.empty((0, 2), np.int64)]
    for contig, start, end in segments.tolist():
        key = np.uint64(key_of(seed, RandomStream.PIECE_LENGTH, contig, start))
        found = kmer.cut_pieces(start, end, full_bases, DNABERT_SHORTEST_BASES, longest, key, buffer)
        if found > len(buffer):
            buffer = np.empty((2 * found, 2), np.int64)
            kmer.cut_pieces(start, end, full_bases, DNABERT_SHORTEST_BASES, longest, key, buffer)
        kept = buffer[:found][buffer[:found, 1] - buffer[:found, 0] >= k]
        pieces.append(kept.copy())
        contigs.append(np.full(len(kept), contig, contig_dtype(num_contigs)))
    all_pieces = np.concatenate(pieces)
    return Windows(
        np.concatenate([np.empty(0, contig_dtype(num_contigs)), *contigs]),
        all_pieces[:, 0].copy(),
        (all_pieces[:, 1] - all_pieces[:, 0] - k + 1).astype(np.uint16),
    )


def _gap_bases(genome: PackedGenome, regions: np.ndarray) -> np.ndarray:
    """Return the number of bases in each region (contig, start, end) that are not ACGT, int64[m]."""
    offset, _ = _line(genome)
    gaps = _on_line(genome.gaps, offset)
    covered = np.concatenate([[0], np.cumsum(gaps[:, 1] - gaps[:, 0])])

    def before(position: np.ndarray) -> np.ndarray:
        """Return the number of gap bases before each position of the line."""
        index = np.searchsorted(gaps[:, 0], position, side="right")
        over = np.where(index > 0, np.append(gaps[:, 1], 0)[index - 1] - position, 0)
        return covered[index] - np.maximum(over, 0)

    on_line = _on_line(regions, offset)
    return before(on_line[:, 1]) - before(on_line[:, 0])


def _line(genome: PackedGenome) -> tuple[np.ndarray, int]:
    """Place the contigs end to end on one axis, one position apart; return their starts, int64[C], and its length."""
    ends = np.cumsum(genome.num_bases + 1)
    return ends - genome.num_bases - 1, int(ends[-1])


def _on_line(intervals: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return intervals (contig, start, end) int64[m, 3] as (start, end) int64[m, 2] on the line."""
    return intervals[:, 1:] + offset[intervals[:, 0], None]
