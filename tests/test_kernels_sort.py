"""Sorting kernels against Python's own sort."""

from __future__ import annotations

import numpy as np
import pytest

from gemsdata.kernels.sort import push, quicksort, sift_down, sort_order
from tests.naive_masking import draw

KEY = 12345
BEYOND = 3


def order_of(ranks: list[int], beyond: int = -7) -> np.ndarray:
    """Return int64[3, n + BEYOND] of rank, choice and place; the last columns belong to nobody."""
    places = np.random.default_rng(0).permutation(3 * len(ranks) + 1)[: len(ranks)]
    order = np.full((3, len(ranks) + BEYOND), beyond, np.int64)
    order[:, : len(ranks)] = ranks, np.arange(len(ranks)), places
    return order


def sorted_entries(order: np.ndarray, count: int) -> list[list[int]]:
    return sorted(order[:, :count].T.tolist(), key=lambda entry: (entry[0], draw(KEY, entry[2])))


def by_pivots(order: np.ndarray, count: int, tie_key: np.uint64) -> None:
    quicksort(order, 0, count, tie_key)


def check(ranks: list[int], sort=sort_order) -> None:
    for beyond in (-(10**6), 10**6):
        order = order_of(ranks, beyond)
        wanted = sorted_entries(order, len(ranks))
        sort(order, len(ranks), np.uint64(KEY))
        assert order[:, : len(ranks)].T.tolist() == wanted
        assert (order[:, len(ranks) :] == beyond).all()


@pytest.mark.parametrize("num_ranks", [1, 4, 256, 257, 70_000])
@pytest.mark.parametrize("count", [0, 1, 2, 23, 24, 25, 26, 27, 49, 75, 127, 128, 160, 600])
def test_entries_are_sorted_by_rank_and_draw(count: int, num_ranks: int) -> None:
    ranks = np.random.default_rng(count).integers(0, num_ranks, count).tolist()
    check(ranks)
    check(sorted(ranks))
    check(sorted(ranks, reverse=True))


@pytest.mark.parametrize("first", [0, 1 << 32])
@pytest.mark.parametrize("far", [(1 << 31) - 1, 1 << 31, 1 << 40])
def test_ranks_may_lie_far_apart(first: int, far: int) -> None:
    check([first + number % 97 * (far // 96 - number % 3) for number in range(200)])


def test_the_least_pivots_do_not_fill_the_stack() -> None:
    """The median of three is the second least entry, time after time, so that all but two remain in the right part."""
    count = 520
    at, ranks = list(range(count)), [0] * count
    for first in range(0, count, 2):
        middle = (first + count) // 2
        ranks[at[first]], ranks[at[middle]] = first, first + 1
        at[middle] = at[first + 1]
    assert sorted(ranks) == list(range(count))
    check(ranks, by_pivots)


def test_the_greatest_pivots_do_not_fill_the_stack() -> None:
    """The median of three is the second greatest entry, so that all but two remain in the left part."""
    count, few = 520, 20
    at, ranks = list(range(count)), [0] * count
    for end in range(count, few, -2):
        ranks[at[end - 1]], ranks[at[end // 2]] = end - 1, end - 2
        at[end // 2], at[0] = at[0], at[end - 2]
    for place in range(few):
        ranks[at[place]] = place
    assert sorted(ranks) == list(range(count))
    check(ranks, by_pivots)


@pytest.mark.parametrize("best_first", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 20])
def test_a_heap_gives_its_entries_in_order(count: int, best_first: bool) -> None:
    order = order_of(np.random.default_rng(count).integers(0, 5, count).tolist())
    heap = np.full(count + 1, -7, np.int64)
    for entry in range(count):
        push(heap, entry, entry, order, best_first, np.uint64(KEY))
    found = []
    for size in range(count - 1, -1, -1):
        found.append(order[:, heap[0]].tolist())
        heap[0] = heap[size]
        sift_down(heap, size, order, best_first, np.uint64(KEY))
    wanted = sorted_entries(order, count)
    assert found == (wanted if best_first else wanted[::-1])
    assert heap[count] == -7
