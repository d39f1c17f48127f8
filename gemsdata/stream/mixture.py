"""Batches mixed from several shard sets by weight: exact proportions, no randomness, any step in O(1).

The slots of the stream repeat a pattern of ``period`` places, in which set i occurs exactly ``share[i]`` times, spread
as evenly as whole numbers allow (each place goes to the set that is furthest behind its weight, as in Megatron's
blended dataset). Each set is a separate endless stream, epoch after epoch, read in order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemsdata.stream.permutation import Permutation, RowGroup

if TYPE_CHECKING:
    from gemsdata.stream.world import World

PARTS = 1000
"""Weights are rounded to multiples of 1 / PARTS of their sum"""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The batches of several shard sets; has the methods of `order.Order`."""

    permutations: tuple[Permutation, ...]
    weights: tuple[float, ...]
    global_batch: int

    def __post_init__(self) -> None:
        if self.global_batch < 1:
            raise ValueError(f"global_batch = {self.global_batch}; give 1 or more")
        if len(self.weights) != len(self.permutations):
            raise ValueError(f"{len(self.weights)} weights for {len(self.permutations)} shard sets; give one for each")
        shares(self.weights)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches until every row of every set has been shown at least once."""
        return self.num_steps(1)

    def num_steps(self, num_epochs: int) -> int:
        """Return the number of batches that show every set at least ``num_epochs`` times."""
        share, pattern, _ = self._pattern
        needed = 0
        for source, permutation in enumerate(self.permutations):
            cycles, last = divmod(num_epochs * permutation.num_rows - 1, share[source])
            places = np.flatnonzero(pattern == source)
            needed = max(needed, cycles * pattern.size + int(places[last]) + 1)
        return -(-needed // self.global_batch)

    def epoch(self, step: int) -> int:
        """Return how often every set has been completed before global batch ``step``."""
        share, pattern, _ = self._pattern
        cycles, place = divmod(step * self.global_batch, pattern.size)
        return min(
            (cycles * share[source] + int(np.count_nonzero(pattern[:place] == source))) // permutation.num_rows
            for source, permutation in enumerate(self.permutations)
        )

    def row_groups(self, step: int, world: World) -> list[RowGroup]:
        """Return the rows of a rank's batch ``step``: all its slots, grouped by set and epoch."""
        share, pattern, before = self._pattern
        mine = world.rank_slice(self.global_batch)
        first = step * self.global_batch + mine.start
        cycle, place = np.divmod(np.arange(len(mine)) + first % pattern.size, pattern.size)
        cycle += first // pattern.size
        groups = []
        for source, permutation in enumerate(self.permutations):
            slots = np.flatnonzero(pattern[place] == source)
            if slots.size:
                start = int(cycle[slots[0]]) * share[source] + int(before[place[slots[0]]])
                groups += [
                    RowGroup(source=source, epoch=epoch, slots=slots[offset : offset + row_ids.size], row_ids=row_ids)
                    for epoch, offset, row_ids in permutation.row_groups(start, slots.size)
                ]
        return groups

    @functools.cached_property
    def _pattern(self) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
        """Return (share of each set, set at each place, number of earlier places with that set)."""
        share = shares(self.weights)
        period = sum(share)
        pattern, before = np.empty(period, np.int64), np.empty(period, np.int64)
        taken = [0] * len(share)
        for place in range(period):
            behind = [(place + 1) * part - period * count for part, count in zip(share, taken, strict=True)]
            source = behind.index(max(behind))
            pattern[place], before[place] = source, taken[source]
            taken[source] += 1
        return share, pattern, before


def shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Return the weights as small whole numbers: multiples of 1 / PARTS of their sum, by largest remainder."""
    if not weights or not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(f"weights = {list(weights)}; give positive numbers")
    exact = [PARTS * weight / math.fsum(weights) for weight in weights]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in by_remainder[: PARTS - sum(parts)]:
        parts[i] += 1
    if min(parts) == 0:
        raise ValueError(f"weights = {list(weights)}: the smallest is below 1/{PARTS} of their sum; omit that set")
    divisor = math.gcd(*parts)
    return tuple(part // divisor for part in parts)
