"""The rows of a set of stored tokens that a view has: all, or those in regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gemsdata.files.progress import Progress, no_progress
from gemsdata.shards.manifest import SPLITS
from gemsdata.shards.shard_set import ShardSet
from gemsdata.views.options import ViewOptions
from gemsdata.views.regions import BedRegions, Contigs, read_bed
from gemsdata.views.windows import Located


@dataclass(frozen=True, kw_only=True)
class StoredWindows:
    """The rows of one split, the same in every epoch."""

    stored_rows: int
    """rows of the split in the set"""
    kept: np.ndarray | None = None
    """numbers of the view's rows in the set, int64[n], increasing; None: all rows"""

    def __len__(self) -> int:
        return self.stored_rows if self.kept is None else len(self.kept)

    def identity(self) -> bytes:
        """Return the bytes that identify the choice of rows in a fingerprint."""
        return b"all" if self.kept is None else self.kept.astype("<i8").tobytes()

    def stored(self, rows: np.ndarray) -> np.ndarray:
        """Return the numbers of the view's rows in the set, int64[B]; negative ones are unchanged."""
        if self.kept is None:
            return np.asarray(rows, np.int64)
        return np.where(rows < 0, rows, self.kept[np.maximum(rows, 0)])


def select_rows(shards: ShardSet, contigs: Contigs, options: ViewOptions) -> dict[str, StoredWindows]:
    """Return the rows of each split that lie in the regions and overlap no excluded interval.

    With regions, the positions of all rows are read once: 24 bytes per row in memory; at a URL every shard is fetched.
    Raises ValueError that names the first region in which no row of any split lies.
    """
    if options.regions is None and options.exclude is None:
        return {split: StoredWindows(stored_rows=shards.num_rows(split)) for split in SPLITS}
    lines = {split: _on_line(shards, split, contigs) for split in SPLITS}
    keep = {split: np.ones(len(line), bool) for split, line in lines.items()}
    regions_file = options.single_regions()
    if regions_file is not None:
        bed = read_bed(regions_file, contigs)
        _check_each_holds_a_row(bed, options.flank, contigs, np.concatenate(list(lines.values())))
        regions = contigs.on_line(contigs.merged(bed.flanked(options.flank, contigs)))
        for split, line in lines.items():
            last = np.searchsorted(regions[:, 0], line[:, 0], side="right") - 1
            keep[split] &= (last >= 0) & (regions[np.maximum(last, 0), 1] >= line[:, 1])
    if options.exclude is not None:
        taken = contigs.on_line(contigs.merged(read_bed(options.exclude, contigs).intervals))
        for split, line in lines.items():
            first = np.searchsorted(taken[:, 1], line[:, 0], side="right")
            keep[split] &= np.append(taken[:, 0], np.iinfo(np.int64).max)[first] >= line[:, 1]
    return {
        split: StoredWindows(stored_rows=len(keep[split]), kept=np.flatnonzero(keep[split]).astype(np.int64))
        for split in SPLITS
    }


def stored_places(shards: ShardSet, split: str, progress: Progress = no_progress) -> Located:
    """Return the position of every row of a split, in the order of the set."""
    total = shards.num_rows(split)
    parts = [np.empty((3, 0), np.int64)]
    index = shards.row_index(split)
    for shard in range(len(shards.manifest.shards(split))):
        opened = shards.open_shard(split, shard, num_cached=0)
        for block in range(len(index.blocks(shard))):
            rows = opened.block(block)
            parts.append(np.stack([rows.contig.astype(np.int64), rows.start, rows.covered_bases(shards.k)]))
            progress("reading rows", len(rows), total)
    contig, start, num_bases = np.concatenate(parts, axis=1)
    return Located(contig=contig, start=start, num_bases=num_bases)


def _on_line(shards: ShardSet, split: str, contigs: Contigs) -> np.ndarray:
    """Return the positions of the rows of a split on the line of the contigs, (start, end) int64[n, 2]."""
    places = stored_places(shards, split)
    start = contigs.offset[places.contig] + places.start
    return np.column_stack([start, start + places.num_bases])


def _check_each_holds_a_row(bed: BedRegions, flank: int, contigs: Contigs, rows: np.ndarray) -> None:
    regions = contigs.on_line(bed.flanked(flank, contigs))
    order = np.argsort(rows[:, 0], kind="stable")
    starts = rows[order, 0]
    shortest_end = np.append(np.minimum.accumulate(rows[order, 1][::-1])[::-1], np.iinfo(np.int64).max)
    holds = shortest_end[np.searchsorted(starts, regions[:, 0])] <= regions[:, 1]
    if not holds.all():
        worst = int(np.flatnonzero(~holds)[0])
        raise ValueError(
            f"{bed.describe(worst, contigs)} leaves no row: no stored row lies within it; give a larger flank, or a"
            " packed set, whose rows are cut inside the regions"
        )
