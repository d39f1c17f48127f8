"""Quality of a row order: distances between consecutive rows, compared with a uniform shuffle.

Neighbouring windows of a genome are similar, so a batch of neighbours carries less information than its size suggests.
The distance between two rows is the distance of their first bases in the concatenated contigs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gemsdata.files.progress import Progress, no_progress
from gemsdata.shards.shard_set import ShardSet
from gemsdata.stream.permutation import Permutation
from gemsdata.views.view import View, open_view

NEAR_BASES = 10_000


@dataclass(frozen=True, kw_only=True)
class ShuffleQuality:
    """Distances between consecutive rows in one order of the rows of a split."""

    order: str
    mean_bases: float
    """mean distance between consecutive rows, in bases"""
    near_share: float
    """share of pairs of consecutive rows less than NEAR_BASES apart"""
    ideal_mean_bases: float
    """mean distance between two random rows of the split, in bases"""
    ideal_near_share: float

    @property
    def ratio(self) -> float:
        """Mean distance relative to a uniform shuffle: 1 is ideal, 0 is genome order."""
        return self.mean_bases / self.ideal_mean_bases if self.ideal_mean_bases else 1.0


def shuffle_quality(
    shards: ShardSet | View,
    *,
    split: str = "train",
    shuffle: bool | int = True,
    seed: int = 0,
    epoch: int = 0,
    progress: Progress = no_progress,
) -> list[ShuffleQuality]:
    """Return the quality of three orders: an epoch of the stream, the rows by number, and the rows in genome order.

    ``shuffle`` is that of `gemsdata.build_loader`. Rows of a packed set are numbered along the genome.
    """
    view = open_view(shards)
    positions = row_positions(view, split, epoch, progress)
    if positions.size < 2:
        raise ValueError(f"split {split!r} has {positions.size} rows; at least two are needed")
    stream = np.empty(positions.size, np.int64)
    Permutation(num_rows=positions.size, seed=seed, shuffle=shuffle).rows(epoch, 0, stream)
    name = "stream" if shuffle is True else f"stream, windows of {shuffle}" if shuffle else "stream, not shuffled"
    along = np.sort(positions)
    ideal = ideal_mean_distance(along), ideal_near_share(along, NEAR_BASES)
    return [
        _quality(name, positions[stream], *ideal),
        _quality("by row number" if view.packed else "as stored", positions, *ideal),
        _quality("along the genome", along, *ideal),
    ]


def row_positions(view: View, split: str, epoch: int = 0, progress: Progress = no_progress) -> np.ndarray:
    """Return the position of the first base of every row in the concatenated contigs, int64[num_rows]."""
    offset = np.concatenate([[0], np.cumsum(view.contigs.num_bases)])
    places = view.places(split, epoch=epoch, progress=progress)
    positions: np.ndarray = offset[places.contig] + places.start
    return positions


def ideal_mean_distance(along: np.ndarray) -> float:
    """Return the mean distance of two distinct entries of sorted positions, int64[n]."""
    n = along.size
    weights = 2.0 * np.arange(n) - (n - 1)
    return float((weights * along).sum() / (n * (n - 1) / 2))


def ideal_near_share(along: np.ndarray, near: int) -> float:
    """Return the share of pairs of distinct sorted positions, int64[n], that are less than ``near`` apart."""
    n = along.size
    followers = np.searchsorted(along, along + near, side="left") - np.arange(n) - 1
    return float(followers.sum() / (n * (n - 1) / 2))


def _quality(name: str, positions: np.ndarray, ideal_mean: float, ideal_near: float) -> ShuffleQuality:
    distances = np.abs(np.diff(positions))
    return ShuffleQuality(
        order=name,
        mean_bases=float(distances.mean()),
        near_share=float((distances < NEAR_BASES).mean()),
        ideal_mean_bases=ideal_mean,
        ideal_near_share=ideal_near,
    )
