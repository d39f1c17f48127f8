"""Which shards later batches need, so that readers of sets at URLs fetch them meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from gemsdata.stream.mixture import Mixture
from gemsdata.stream.order import Order
from gemsdata.stream.row_reader import RowReader
from gemsdata.stream.world import World

_STEPS_AT_ONCE = 16
_MOST_STEPS = 4096
"""how far it looks ahead"""


class LookAhead:
    """Goes through the steps after the current one, and asks readers to fetch their shards while they have room."""

    def __init__(self, readers: Sequence[RowReader], order: Order | Mixture, world: World) -> None:
        self._readers, self._order, self._world = readers, order, world
        self._step = -1
        self._next = 0

    def begin(self, step: int) -> None:
        """Look at some steps after ``step``, which is about to be read."""
        if not any(reader.fetches_ahead for reader in self._readers):
            return
        stride = step - self._step if 0 <= self._step < step else 1  # a worker process has every so many-th step
        self._step = step
        if not step < self._next <= step + _MOST_STEPS * stride:
            self._next = step + stride
        for _ in range(_STEPS_AT_ONCE):
            if self._next > step + _MOST_STEPS * stride or not all(reader.fetches_ahead for reader in self._readers):
                return
            for group in self._order.row_groups(self._next, self._world):
                self._readers[group.source].fetch_ahead(group.epoch, group.row_ids)
            self._next += stride
