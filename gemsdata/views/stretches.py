"""The parts of a packed genome from which the rows of a view are cut."""

from __future__ import annotations

import numpy as np

from gemsdata.shards.packed import split_stretches
from gemsdata.shards.shard_set import ShardSet
from gemsdata.views.options import ViewOptions
from gemsdata.views.regions import Contigs, check_each_leaves_a_row, read_bed


def find_stretches(
    shards: ShardSet, contigs: Contigs, options: ViewOptions, *, row_bases: int, token_bases: int
) -> dict[str, np.ndarray]:
    """Return for each split the stretches that rows are cut from, (contig, start, end) int64[m, 3], sorted.

    ``row_bases`` is the length of a full row, ``token_bases`` that of the shortest. Raises FileNotFoundError or
    ValueError for BED files that cannot be used, and rows that are longer than every stretch.
    """
    gaps = shards.intervals("gap")
    long = gaps[gaps[:, 2] - gaps[:, 1] >= row_bases] if options.unknown == "token" else gaps
    usable = {split: contigs.without(s, long) for split, s in split_stretches(shards.manifest).items()}
    usable = _in_regions(usable, contigs, options, token_bases)
    if options.exclude is not None:
        taken = contigs.merged(read_bed(options.exclude, contigs).intervals)
        usable = {split: contigs.without(stretches, taken) for split, stretches in usable.items()}
    if options.unknown == "token" and len(gaps):
        usable = {split: _trimmed(stretches, gaps, contigs.offset) for split, stretches in usable.items()}
    if options.row_bases is not None:
        _check_row_bases(usable, row_bases)
    return {split: s[s[:, 2] - s[:, 1] >= token_bases] for split, s in usable.items()}


def _in_regions(
    usable: dict[str, np.ndarray], contigs: Contigs, options: ViewOptions, token_bases: int
) -> dict[str, np.ndarray]:
    """Return the parts of stretches that lie in the regions of the options; raise ValueError for one without a row."""
    regions_file = options.single_regions()
    if regions_file is None:
        return usable
    bed = read_bed(regions_file, contigs)
    everything = np.concatenate(list(usable.values()))
    order = np.argsort(contigs.on_line(everything)[:, 0])
    check_each_leaves_a_row(bed, options.flank, contigs, everything[order], token_bases)
    regions = contigs.merged(bed.flanked(options.flank, contigs))
    return {split: contigs.within(stretches, regions) for split, stretches in usable.items()}


def _check_row_bases(usable: dict[str, np.ndarray], row_bases: int) -> None:
    longest = max((int((s[:, 2] - s[:, 1]).max()) for s in usable.values() if len(s)), default=0)
    if longest < row_bases:
        raise ValueError(
            f"row_bases = {row_bases:,} is longer than any stretch that rows may be cut from: the"
            f" longest has {longest:,} bases; give a smaller row_bases"
        )


def _trimmed(stretches: np.ndarray, gaps: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return stretches without the gaps that they begin or end with."""
    contig, start, end = stretches.T
    starts, ends = (offset[gaps[:, 0]] + gaps[:, column] for column in (1, 2))
    first, last = start + offset[contig], end + offset[contig]
    before = np.maximum(np.searchsorted(starts, first, side="right") - 1, 0)
    first = np.where((starts[before] <= first) & (ends[before] > first), ends[before], first)
    after = np.maximum(np.searchsorted(starts, last, side="left") - 1, 0)
    last = np.where((starts[after] < last) & (ends[after] >= last), starts[after], last)
    out = np.column_stack([contig, first - offset[contig], last - offset[contig]])
    return out[last > first]
