"""The layout of the rows of a set: the validation regions, and the window of each row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemsdata.genome.packed import PackedGenome
from gemsdata.shards import windows
from gemsdata.shards.manifest import PACKED_SCHEME, SPLITS
from gemsdata.shards.manifest_fields import WindowInfo
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.packed import blocks_per_batch, choose_block_bases, cut_blocks, stretches_of


@dataclass(frozen=True)
class RowLayout:
    """The positions of the rows of each split in the genome."""

    valid_regions: np.ndarray
    """(contig, start, end) of the held-out regions, int64[m, 3], sorted"""
    segments: dict[str, np.ndarray]
    """(contig, start, end) of the maximal stretches of ACGT of each split, int64[m, 3]"""
    windows: dict[str, windows.Windows]
    """in a packed set, its blocks; their ``num_tokens`` is the number of bases"""
    fields: dict[str, Any]
    """manifest fields that follow from the options and, in a packed set, from the genome"""


def lay_out_rows(genome: PackedGenome, options: ShardOptions, folder: Path) -> RowLayout:
    """Choose the validation regions and cut the windows of every split; raise ValueError without a training row."""
    regions = _valid_regions(genome, options)
    segments = windows.segments(genome, regions)
    fields = options.manifest_fields()
    if options.packed:
        stretches = stretches_of(genome.num_bases, regions)
        block_bases = choose_block_bases(np.concatenate([s[:, 2] - s[:, 1] for s in stretches.values()]))
        parts = {split: _packed_blocks(stretches[split], block_bases) for split in SPLITS}
        scheme = WindowInfo(scheme=PACKED_SCHEME, full_bases=block_bases)
        fields |= {"row_tokens": block_bases, "block_rows": blocks_per_batch(block_bases), "windows": scheme}
    else:
        parts = {split: _cut(segments[split], options, len(genome.names)) for split in SPLITS}
    cut = {split: windows.write_windows(folder, split, parts[split]) for split in SPLITS}
    if len(cut["train"]) == 0:
        longest = max((int((s[:, 2] - s[:, 1]).max()) for s in segments.values() if len(s)), default=0)
        raise ValueError(
            f"no training row: the longest run of ACGT has {longest} bases and a row needs {options.k} at least; "
            "give longer contigs, a smaller -k or a smaller validation set"
        )
    return RowLayout(regions, segments, cut, fields)


def _valid_regions(genome: PackedGenome, options: ShardOptions) -> np.ndarray:
    if options.valid_contigs:
        return windows.whole_contigs(genome, list(options.valid_contigs))
    row_bases = options.row_tokens + options.k - 1
    return windows.hashed_regions(genome, options.valid_fraction, row_bases, options.seed)


def _cut(segments: np.ndarray, options: ShardOptions, num_contigs: int) -> Iterator[windows.Windows]:
    for part in windows.in_parts(segments):
        yield windows.cut(
            part,
            scheme=options.scheme,
            k=options.k,
            row_tokens=options.row_tokens,
            seed=options.seed,
            num_contigs=num_contigs,
        )


def _packed_blocks(stretches: np.ndarray, block_bases: int) -> Iterator[windows.Windows]:
    for part in windows.in_parts(stretches):
        yield _blocks(part, block_bases)


def _blocks(stretches: np.ndarray, block_bases: int) -> windows.Windows:
    contig, start, num_bases = cut_blocks(stretches, block_bases)[0].T
    return windows.Windows(contig.copy(), start.copy(), num_bases.copy())
