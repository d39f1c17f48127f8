"""Simulate the rows of every rank of a large run, and the time that computing them takes.

    python -m bench.simulate_ranks --write

For 1,000 and 10,000 ranks, every rank's rows of every step of an epoch are computed as a loader computes them, and

* no row is missing from the epoch and none occurs twice (a bit for each row);
* a rank has the same number of rows at each step as any other, to one;
* ranks that begin at a random step, as after a restart with another number of ranks, have the rows of that step.

The time that one rank takes for its rows of a step is measured for 1, 1,000 and 10,000 ranks with the same batch of a
rank: it does not depend on their number.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import click
import numpy as np

from bench.table import SCALE, markdown, write_section
from gemsdata.stream.order import Order
from gemsdata.stream.permutation import Permutation
from gemsdata.stream.world import World

ROWS_OF_A_RANK = 32
NUM_ROWS = 3_000_000_017
"""rows of the set whose ranks are timed: a prime, because real sets have no special number of rows"""
_TIMED_STEPS = 300


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """One epoch of all ranks."""

    num_ranks: int
    num_rows: int
    num_steps: int
    missing: int
    """number of rows that no rank had"""
    repeated: int
    """number of rows that occurred twice"""
    uneven: int
    """number of steps at which ranks differ by more than one row"""
    resumed: int
    """number of random steps resumed with another number of ranks"""
    resumed_wrong: int
    """number of these steps at which the ranks together had other rows"""

    @property
    def holds(self) -> bool:
        """Whether the rows of all ranks were exact."""
        return not (self.missing or self.repeated or self.uneven or self.resumed_wrong)


def global_rows(order: Order, step: int, num_ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of all ranks at a step, int64[G], and how many each rank has, int64[num_ranks]."""
    rows, counts = [], []
    for rank in range(num_ranks):
        groups = order.row_groups(step, World(rank=rank, num_ranks=num_ranks))
        rows += [group.row_ids for group in groups]
        counts.append(sum(group.row_ids.size for group in groups))
    return np.concatenate(rows), np.array(counts)


def simulate(order: Order, num_ranks: int, *, resumes: int, seed: int = 0) -> Simulated:
    """Compute an epoch of all ranks, and some steps of other numbers of ranks."""
    seen = np.zeros(order.permutation.num_rows, np.uint8)
    uneven = 0
    for step in range(order.steps_per_epoch):
        rows, counts = global_rows(order, step, num_ranks)
        rows = rows[rows >= 0]
        if order.remainder == "wrap":  # the last batch continues with the next epoch
            rows = rows[: order.permutation.num_rows - step * order.global_batch]
        np.add.at(seen, rows, 1)
        uneven += int(counts.max() - counts.min() > 1)
    random = np.random.default_rng(seed)
    wrong = 0
    for step in random.integers(0, 1 << 30, resumes).tolist():
        other = int(random.integers(2, max(num_ranks, 2) + 1))
        expected = global_rows(order, step, 1)[0]
        wrong += not np.array_equal(global_rows(order, step, other)[0], expected)
    return Simulated(
        num_ranks=num_ranks,
        num_rows=seen.size,
        num_steps=order.steps_per_epoch,
        missing=int((seen == 0).sum()),
        repeated=int((seen > 1).sum()),
        uneven=uneven,
        resumed=resumes,
        resumed_wrong=wrong,
    )


def seconds_of_a_rank(num_ranks: int) -> float:
    """Return the median time in which one rank computes its rows of a step."""
    order = Order(permutation=Permutation(num_rows=NUM_ROWS, seed=0), global_batch=ROWS_OF_A_RANK * num_ranks)
    world = World(rank=num_ranks // 2, num_ranks=num_ranks)
    times = []
    for step in np.random.default_rng(0).integers(0, 1 << 30, _TIMED_STEPS).tolist():
        begin = time.perf_counter()
        order.row_groups(step, world)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


@click.command()
@click.option("--ranks", multiple=True, type=int, default=(1000, 10_000), show_default=True)
@click.option("--steps", default=20, show_default=True, help="Steps of an epoch that is simulated.")
@click.option("--write", is_flag=True, help="Write the table into docs/scale.md.")
def main(ranks: tuple[int, ...], steps: int, write: bool) -> None:
    """Simulate the ranks of large runs; exit with status 1 if the rows of a rank are not exact."""
    seconds_of_a_rank(1)  # compiles
    alone = seconds_of_a_rank(1)
    rows, holds = [], True
    for num_ranks in ranks:
        batch = ROWS_OF_A_RANK * num_ranks
        order = Order(permutation=Permutation(num_rows=batch * (steps - 1) + 13, seed=1), global_batch=batch)
        result = simulate(order, num_ranks, resumes=5)
        holds = holds and result.holds
        seconds = seconds_of_a_rank(num_ranks)
        rows.append(
            [
                f"{num_ranks:,}",
                f"{result.num_rows:,}",
                f"{result.num_steps:,}",
                str(result.missing),
                str(result.repeated),
                f"{result.resumed - result.resumed_wrong} of {result.resumed}",
                f"{seconds * 1e6:.0f}",
                f"{seconds / alone:.2f}",
            ]
        )
    header = ["ranks", "rows", "steps", "rows missed", "rows repeated", "resumed steps that are equal"]
    text = markdown([*header, "µs of a rank for a step", "times that of a single rank"], rows)
    click.echo(text)
    if write:
        write_section("ranks", text, SCALE)
    raise SystemExit(0 if holds else 1)


if __name__ == "__main__":
    main()
