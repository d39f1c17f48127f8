"""Kernels that choose the spans of a row against naive twins, called directly."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from gemsdata.genome.vocab import NUM_SPECIAL
from gemsdata.kernels import budget, centres, corrupt, spans
from gemsdata.kernels.layout import BLOCKED, Layout, Task, row_task
from gemsdata.kernels.random_streams import RowStream
from gemsdata.kernels.sort import sort_order
from gemsdata.masking.selection import ids_by_position
from tests.naive_masking import draw, fold

N = 3
NO_MARKS = np.empty((0, 0, 0), np.int32)
CANARY = -77


def task_of(num_bases: int, *, key: int = 5, token_bases: int = N, stride: int = 1, **options) -> Task:
    num_tokens = (num_bases - token_bases) // stride + 1
    task = row_task(Layout(token_bases, stride, False, False, NO_MARKS), 0, num_tokens, num_bases)
    return task._replace(key=np.uint64(key), num_grams=num_bases - N + 1, n=N, **options)


def rank_table(seed: int = 0, worst: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, worst, 4**N + NUM_SPECIAL + 1)


@pytest.mark.parametrize("how", ["by_bases", "by_id", "by_position"])
def test_the_ranks_of_a_range_of_ngrams_are_written_and_nothing_else(how):
    bases = np.random.default_rng(1).integers(0, 4, (1, 30)).astype(np.uint8)
    ids = [5 + int(bases[0, g]) * 16 + int(bases[0, g + 1]) * 4 + int(bases[0, g + 2]) for g in range(28)]
    ranks = rank_table(worst=1000)
    wanted = {
        "by_bases": [ranks[value] for value in ids],
        "by_id": [ranks[value] for value in ids],
        "by_position": [ranks[g + 1] for g in range(28)],
    }[how]
    source = {"by_bases": bases, "by_id": np.array([ids], np.uint16), "by_position": ids_by_position(28, N)}[how]
    task = task_of(30, by_id=how != "by_bases", by_position=how == "by_position")
    task = task._replace(row=1 if how == "by_position" else 0)
    for first, last in ((0, 28), (4, 9), (20, 28), (6, 6)):
        rank = np.full(40, CANARY)
        spans.fill_ranks(task, source, ranks, (first, last), rank)
        assert rank.tolist() == wanted[first:last] + [CANARY] * (40 - last + first)


def test_positions_beyond_the_ranks_have_the_last_one():
    assert ids_by_position(80, N).dtype == np.uint16
    assert ids_by_position(80, N).tolist() == [[*range(1, 4**N + 5), *[4**N + 5] * (80 - 4**N - 4)]]


def test_ngrams_that_may_not_be_hidden_are_never_chosen():
    blocked = np.zeros(31, np.int32)
    blocked[11:] = 1  # base 10
    marks = np.zeros((1, 3, 31), np.int32)
    marks[0, BLOCKED] = blocked
    rank = np.arange(20)
    task = task_of(30, token_bases=1, restricted=True)
    spans.forbid(task, marks, (5, 20), rank)
    assert rank.tolist() == [spans.NEVER if 8 <= g + 5 <= 10 else g for g in range(15)] + list(range(15, 20))


def test_a_gap_is_the_number_of_powers_above_the_draw():
    """A draw that equals a power is not below it."""
    key, guide = 3, np.zeros(1 << centres.GUIDE_BITS, np.int64)
    bits = draw(fold(key, RowStream.CENTRES), 0)
    for more, gap in (([0], 0), ([1], 1), ([1, 0], 1), ([2, 1], 2), ([-1], 0)):
        powers = [bits + number for number in more]
        centre = np.full(4, CANARY)
        assert centres.bernoulli_centres(np.uint64(key), gap + 1, np.array(powers, np.uint64), guide, centre) == 1
        assert centre.tolist() == [gap, CANARY, CANARY, CANARY]


def fewest_centres(task: Task, source: np.ndarray, ranks: np.ndarray) -> list[list[int]]:
    """Try ever more centres from the beginning, until their spans reach the target."""
    places = spans.num_places(task)
    out = np.empty((places, 4), np.int32)
    placed = 0
    for count in range(1, places + 1):
        work = np.full((spans.NUM_WORK_ROWS, 300), CANARY)
        centres.shuffled_centres(task.key, places, 0, count, work[spans.CENTRE])
        kept = spans.rank_centres(task, NO_MARKS, source, ranks, work, (0, count, 0))
        order = work[spans.ORDER : spans.ORDER + 3]
        sort_order(order, kept, np.uint64(fold(int(task.key), RowStream.TIES)))
        placed = spans.place_high_and_low(task, NO_MARKS, kept, order, out)
        end = budget.trim(task, NO_MARKS, out, placed, work[spans.MASKED])
        if end >= 0:
            return out[:end].tolist()
    return out[:placed].tolist()


@pytest.mark.skipif(not numba.config.DISABLE_JIT, reason="takes seconds to compile for these few calls")
@pytest.mark.parametrize("fill", [0, CANARY])
@pytest.mark.parametrize("all_wide_below", [0, 5])
@pytest.mark.parametrize("by_base", [True, False])
@pytest.mark.parametrize("target", [1, 13, 31])
def test_halves_take_the_fewest_centres_whatever_the_work_space_held(target, by_base, all_wide_below, fill):
    source = np.random.default_rng(2).integers(0, 2, (1, 60)).astype(np.uint8)
    ranks = rank_table()
    for key in range(3):
        task = task_of(60, key=key, method=spans.BEST_NEAR_CENTRE, second=all_wide_below, offset=1)
        task = task._replace(exact=True, by_base=by_base, target=target)
        work = np.full((budget.NUM_HALVES_ROWS, 300), fill)
        out = np.empty((60, 4), np.int32)
        count = budget.place_halves_exactly(task, NO_MARKS, source, ranks, work, out)
        assert out[:count].tolist() == fewest_centres(task, source, ranks)


def test_runs_of_spans_are_those_of_the_set_of_their_tokens():
    rng = np.random.default_rng(0)
    for count in (0, 1, 5, 64, 65, 90):
        low = rng.integers(0, 4 * count + 1, count)
        found = np.stack([low, low + rng.integers(0, 4, count)], axis=1).astype(np.int32)
        tokens = sorted({t for lo, hi in found.tolist() for t in range(lo, hi)})
        begins = [t for t in tokens if t - 1 not in tokens]
        ends = [t + 1 for t in tokens if t + 1 not in tokens]
        runs = np.full((count + 1, 2), CANARY, np.int32)
        size = corrupt.merge(found, np.empty(count, np.int64), runs)
        assert runs[:size].tolist() == [list(run) for run in zip(begins, ends, strict=True)]
