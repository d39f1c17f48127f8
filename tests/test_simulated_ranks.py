"""The simulation of large runs finds the shares of all ranks exact, and would find it if they were not."""

from __future__ import annotations

import pytest

from bench.simulate_ranks import ROWS_OF_A_RANK, simulate
from gemsdata.stream.order import Order
from gemsdata.stream.permutation import Permutation
from gemsdata.stream.world import World

pytestmark = pytest.mark.once


def order_of(num_ranks: int, num_steps: int, remainder: str = "wrap") -> Order:
    batch = ROWS_OF_A_RANK * num_ranks
    return Order(
        permutation=Permutation(num_rows=batch * (num_steps - 1) + 13, seed=1), global_batch=batch, remainder=remainder
    )


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("num_ranks", "num_steps", "remainder"), [(1000, 4, "wrap"), (1000, 3, "pad"), (10_000, 1, "wrap")]
)
def test_every_row_is_given_once_whatever_the_number_of_ranks(num_ranks, num_steps, remainder):
    order = order_of(num_ranks, num_steps, remainder)
    result = simulate(order, num_ranks, resumes=1)
    assert result.holds
    assert (result.num_steps, result.missing, result.repeated) == (num_steps, 0, 0)


def test_shares_that_are_not_exact_are_counted(monkeypatch):
    def overlapping(self, count):
        found = rank_slice(self, count)
        return range(found.start, min(found.stop + (self.rank == 0), count))

    rank_slice = World.rank_slice
    monkeypatch.setattr(World, "rank_slice", overlapping)
    result = simulate(order_of(3, 4), 3, resumes=4)
    assert not result.holds
    assert result.repeated > 0
    assert result.resumed_wrong > 0
