"""Annotations of bases in a view: which may be masked, and their loss weights."""

from __future__ import annotations

import functools

import numpy as np

from gemsdata.kernels.bases import mark
from gemsdata.shards.shard_set import ShardSet
from gemsdata.views.options import ViewOptions
from gemsdata.views.regions import Contigs
from gemsdata.views.track import Track
from gemsdata.views.windows import Located


class Annotation:
    """Soft-masked intervals of a shard set, or a track, as flags and weights of the bases of rows."""

    def __init__(self, shards: ShardSet, contigs: Contigs, options: ViewOptions, track: Track | None) -> None:
        self._shards, self._contigs, self._options, self._track = shards, contigs, options, track

    @property
    def restricts(self) -> bool:
        """Whether some bases may not be masked."""
        return not self._options.mask_soft_masked

    def maskable(self, rows: Located, num_bases: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return which of the first num_bases[i] (int64[B]) bases of rows may be masked, bool[B, W]; None: all."""
        if not self.restricts:
            return None
        out = np.ones(shape, np.bool_)
        self._mark_soft(rows, num_bases, False, out)
        return out

    def weights(self, rows: Located, num_bases: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return the weight of each base of rows, float32[B, W]; None if the view has no weights."""
        if not self._options.weighted:
            return None
        out = np.ones(shape, np.float32)
        if self._track is not None:
            self._track.weights(rows.contig, rows.start, num_bases, out)
        else:
            self._mark_soft(rows, num_bases, np.float32(self._options.loss_weight_soft_masked), out)
        return out

    def _mark_soft(self, rows: Located, num_bases: np.ndarray, value: object, out: np.ndarray) -> None:
        starts, ends = self._soft
        mark(starts, ends, self._contigs.offset[rows.contig] + rows.start, num_bases, value, out)

    @functools.cached_property
    def _soft(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends of soft-masked intervals on the line of the contigs, int64[m] each."""
        line = self._contigs.on_line(self._shards.intervals("soft"))
        return line[:, 0].copy(), line[:, 1].copy()
