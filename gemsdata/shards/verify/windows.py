"""The windows and validation regions that a set should have, derived again from the genome for verification."""

from __future__ import annotations

import array
import itertools
from collections.abc import Iterator

import numpy as np

from gemsdata.kernels.random_streams import RandomStream
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.reference import OTHER, ReferenceGenome

_REGION_BASES, _REGIONS_WANTED, _SMALLEST_REGION_BASES = 1_000_000, 10, 12
"""from the format specification, not imported from the writer, whose errors would then go unnoticed"""
_WRAP = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


_PACKED_ROW_TOKENS = 510
"""a packed set holds out the regions of a set with rows of the default length"""


def expected_regions(manifest: Manifest, genome: ReferenceGenome) -> list[tuple[int, int, int]]:
    """Return the regions (contig, start, end) that the manifest's contigs or fraction hold out for validation."""
    names = frozenset(manifest.validation.contigs or ())
    if names:
        return [
            (index, 0, num_bases)
            for index, num_bases in enumerate(genome.num_bases.tolist())
            if genome.names[index] in names
        ]
    gaps = genome.gaps()
    num_acgt = int(genome.num_bases.sum() - (gaps[:, 2] - gaps[:, 1]).sum())
    assert manifest.validation.fraction is not None
    wanted = manifest.validation.fraction * num_acgt
    if wanted <= 0:
        return []
    row_bases = (_PACKED_ROW_TOKENS if manifest.packed else manifest.row_tokens) + manifest.k - 1
    smallest = max(wanted / _REGIONS_WANTED, min(row_bases, wanted), _SMALLEST_REGION_BASES)
    step = int(min(_REGION_BASES, smallest))
    cells = []
    for index, num_bases in enumerate(genome.num_bases.tolist()):
        seed_key = _key_of(manifest.seed, RandomStream.VALID_REGION, index)
        for start in range(0, num_bases, step):
            cells.append((_fold(seed_key, start), index, start, min(start + step, num_bases)))
    cells.sort(key=lambda cell: cell[0])
    taken = 0
    best, best_count = wanted, 0
    acgt_of_cell = []
    for count, (_, index, start, end) in enumerate(cells, start=1):
        acgt_of_cell.append(int(np.count_nonzero(genome.contig(index)[start:end] & 7 != OTHER)))
        taken += acgt_of_cell[-1]
        if abs(taken - wanted) < best:
            best, best_count = abs(taken - wanted), count
        if taken >= wanted:
            break
    chosen = zip(cells[:best_count], acgt_of_cell, strict=False)
    return sorted((index, start, end) for (_, index, start, end), bases in chosen if bases)


def expected_windows(manifest: Manifest, split: str, genome: ReferenceGenome) -> np.ndarray:
    """Return (contig, start, num_tokens) of every window of a split in genome order, int64[n, 3]."""
    regions = np.array(manifest.validation.regions, np.int64).reshape(-1, 3)
    if len(regions) and (regions.min() < 0 or regions[:, 0].max() >= len(genome.names)):
        raise VerificationError("a validation region of the manifest lies outside the genome")
    regions = regions[:, 1:] + genome.offset[regions[:, 0], None]

    def eligible(first: int, codes: np.ndarray) -> np.ndarray:
        held_out = np.zeros(len(codes), bool)
        for start, end in regions[(regions[:, 1] > first) & (regions[:, 0] < first + len(codes))].tolist():
            held_out[max(start - first, 0) : end - first] = True
        return (codes & 7 != OTHER) & (held_out == (split == "valid"))

    windows = array.array("q")
    k, row_tokens = manifest.k, manifest.row_tokens
    for contig, start, end in genome.runs(eligible).tolist():
        if manifest.windows.scheme == "fixed":
            for first in range(start, end - k + 1, row_tokens):
                windows.extend((contig, first, min(row_tokens, end - k + 1 - first)))
        else:
            for first, last in _dnabert_pieces(manifest, contig, start, end):
                if last - first >= k:
                    windows.extend((contig, first, last - first - k + 1))
    return np.array(windows, np.int64).reshape(-1, 3)


def _dnabert_pieces(manifest: Manifest, contig: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    shortest, longest = manifest.windows.shortest_bases, manifest.windows.longest_bases
    assert shortest is not None
    assert longest is not None
    key = _key_of(manifest.seed, RandomStream.PIECE_LENGTH, contig, start)
    position = start
    for piece in itertools.count():
        if position >= end:
            return
        length = manifest.windows.full_bases
        if splitmix(key, 2 * piece) >> 63:
            length = shortest + ((splitmix(key, 2 * piece + 1) >> 32) * (longest - shortest + 1) >> 32)
        yield position, min(position + length, end)
        position += length


def splitmix(key: int, counter: int) -> int:
    """Return output number ``counter`` of splitmix64 seeded by ``key``, in Python integers."""
    return _mix((key + (counter + 1) * _GOLDEN) & _WRAP)


def _key_of(*words: int) -> int:
    key = 0
    for word in words:
        key = _fold(key, word)
    return key


def _fold(key: int, word: int) -> int:
    return _mix(((key ^ _mix((word + _GOLDEN) & _WRAP)) + _GOLDEN) & _WRAP)


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WRAP
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WRAP
    return x ^ (x >> 31)
