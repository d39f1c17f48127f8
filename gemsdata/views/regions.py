"""Intervals of a genome: BED files, and intersections and differences of lists of intervals.

Intervals are (contig, start, end) int64[m, 3], 0-based, half-open, sorted and disjoint. A library (bioframe, pyranges)
would add pandas and more for four numpy functions.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemsdata.genome import decompress
from gemsdata.genome.packed import complement
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.windows import merge

_HEADERS = ("track", "browser")
_NAMES_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class BedText:
    """The content of a BED file that is not on this machine, such as that of a client."""

    name: str
    content: bytes
    """as in the file, not compressed"""

    def __str__(self) -> str:
        return self.name


Bed = str | Path | BedText


@dataclass(frozen=True, kw_only=True)
class Contigs:
    """The contigs of a genome end to end on one axis, one position apart."""

    names: Sequence[str]
    num_bases: np.ndarray
    """int64[C]"""

    @property
    def offset(self) -> np.ndarray:
        """Start of each contig on the line, int64[C]."""
        return np.cumsum(self.num_bases + 1) - self.num_bases - 1

    @property
    def line_bases(self) -> int:
        """Length of the line."""
        return int((self.num_bases + 1).sum())

    def whole(self) -> np.ndarray:
        """Return every contig as an interval."""
        index = np.flatnonzero(self.num_bases)
        return np.column_stack([index, np.zeros(len(index), np.int64), self.num_bases[index]])

    def on_line(self, intervals: np.ndarray) -> np.ndarray:
        """Return intervals as (start, end) int64[m, 2] on the line."""
        return intervals[:, 1:] + self.offset[intervals[:, 0], None]

    def off_line(self, intervals: np.ndarray) -> np.ndarray:
        """Return intervals of the line, each within one contig, as (contig, start, end)."""
        offset = self.offset
        contig = np.searchsorted(offset, intervals[:, 0], side="right") - 1
        return np.column_stack([contig, intervals - offset[contig, None]])

    def merged(self, intervals: np.ndarray) -> np.ndarray:
        """Return unsorted, possibly overlapping intervals as sorted and joined ones."""
        line = self.on_line(intervals)
        return self.off_line(merge(line[np.argsort(line[:, 0], kind="stable")]))

    def without(self, intervals: np.ndarray, *taken: np.ndarray) -> np.ndarray:
        """Return ``intervals`` minus each list of intervals in ``taken``."""
        outside = complement(self.on_line(intervals), self.line_bases)
        line = np.concatenate([outside, *(self.on_line(other) for other in taken)])
        line = merge(line[np.argsort(line[:, 0], kind="stable")])
        return self.off_line(complement(line, self.line_bases))

    def within(self, intervals: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the intersection of ``intervals`` and ``others``."""
        line = complement(self.on_line(others), self.line_bases)
        ends = self.offset + self.num_bases  # positions between contigs are in no interval
        line = np.concatenate(
            [line, complement(self.on_line(intervals), self.line_bases), np.column_stack([ends, ends + 1])]
        )
        line = merge(line[np.argsort(line[:, 0], kind="stable")])
        return self.off_line(complement(line, self.line_bases))


@dataclass(frozen=True, kw_only=True)
class BedRegions:
    """The intervals of a BED file in the file's order."""

    path: str
    intervals: np.ndarray
    """(contig, start, end) int64[m, 3] in the order of the file: neither sorted nor disjoint"""
    lines: np.ndarray
    """line number of each in the file, from 1, int64[m]"""

    def describe(self, index: int, contigs: Contigs) -> str:
        """Return the text that names an interval in messages."""
        contig, start, end = self.intervals[index].tolist()
        return f"{self.path}:{self.lines[index]}: region {contigs.names[contig]}:{start}-{end}"

    def flanked(self, flank: int, contigs: Contigs) -> np.ndarray:
        """Return the intervals extended by ``flank`` bases at either end and clipped to the contigs, [m, 3]."""
        contig, start, end = self.intervals.T
        return np.column_stack(
            [contig, np.maximum(start - flank, 0), np.minimum(end + flank, contigs.num_bases[contig])]
        )


def contigs_of(shards: ShardSet) -> Contigs:
    """Return the contigs of a shard set."""
    lengths = np.array([contig.num_bases for contig in shards.manifest.contigs], np.int64)
    return Contigs(names=shards.contig_names, num_bases=lengths)


def read_bed(bed: Bed, contigs: Contigs) -> BedRegions:
    """Read a BED file, plain or compressed, or its content.

    Raises FileNotFoundError if it does not exist, and ValueError with the line number for an unknown contig and for an
    interval that is inverted, empty or beyond its contig's end; also for a file without intervals.
    """
    path = str(bed)
    index = {name: i for i, name in enumerate(contigs.names)}
    rows: list[tuple[int, int, int]] = []
    lines: list[int] = []
    for number, (name, start, end) in _bed_lines(bed_text(bed)):
        where = f"{path}:{number}: region {name if name.isprintable() else ascii(name)}:{start}-{end}"
        if name not in index:
            known = ", ".join(contigs.names[:_NAMES_SHOWN]) + (", ..." if len(contigs.names) > _NAMES_SHOWN else "")
            raise ValueError(f"{where} is on a contig that the genome does not have; its contigs are {known}")
        length = int(contigs.num_bases[index[name]])
        if not 0 <= start < end:
            raise ValueError(f"{where} is empty or inverted; BED intervals are 0-based and half-open, start < end")
        if end > length:
            raise ValueError(f"{where} ends beyond {name}, which has {length} bases; is it of another assembly?")
        rows.append((index[name], start, end))
        lines.append(number)
    if not rows:
        raise ValueError(f"{path} holds no interval; give a BED file with contig, start and end on each line")
    return BedRegions(path=path, intervals=np.array(rows, np.int64), lines=np.array(lines, np.int64))


def check_each_leaves_a_row(
    bed: BedRegions, flank: int, contigs: Contigs, stretches: np.ndarray, token_bases: int
) -> None:
    """Raise ValueError that names the first region in which no stretch holds a token.

    ``stretches`` are those of all splits: a region in another split is not an error.
    """
    usable = contigs.on_line(stretches)
    usable = usable[usable[:, 1] - usable[:, 0] >= token_bases]
    regions = contigs.on_line(bed.flanked(flank, contigs))
    first = np.searchsorted(usable[:, 1], regions[:, 0] + token_bases)  # the first that ends far enough right
    reach = np.append(usable[:, 0], np.iinfo(np.int64).max)[first]
    fits = np.maximum(reach, regions[:, 0]) + token_bases <= regions[:, 1]
    if not fits.all():
        worst = int(np.flatnonzero(~fits)[0])
        raise ValueError(
            f"{bed.describe(worst, contigs)} leaves no row: it holds no run of {token_bases} bases that rows may have;"
            " remove it, or give a larger flank"
        )


def bed_text(bed: Bed) -> BedText:
    """Return the content of a BED file, plain or compressed; raise FileNotFoundError if it does not exist."""
    if isinstance(bed, BedText):
        return bed
    if not Path(bed).exists():
        raise FileNotFoundError(f"{bed}: no such file; a BED file of regions is needed")
    with open(bed, "rb") as stream:
        return BedText(name=str(bed), content=decompress.whole(stream, str(bed)))


def _bed_lines(bed: BedText) -> Iterator[tuple[int, tuple[str, int, int]]]:
    """Yield (line number, (contig, start, end)) of a BED file."""
    with io.TextIOWrapper(io.BytesIO(bed.content), "utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#") or line.split(None, 1)[0] in _HEADERS:
                continue
            fields = line.split("\t") if "\t" in line else line.split()
            try:
                yield number, (fields[0], int(fields[1]), int(fields[2]))
            except (IndexError, ValueError):
                raise ValueError(
                    f"{bed}:{number}: {line.strip()[:60]!r} is not a BED line; contig, start and end are needed"
                ) from None
