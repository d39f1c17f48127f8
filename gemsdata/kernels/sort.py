"""Sorting by NPMI rank with ties broken by random draws, in place, for few entries as well as for a million."""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.jit import jit, jit_inline
from gemsdata.kernels.keys import draw

_FEW = 24


@jit_inline
def wins_tie(tie_key: np.uint64, a: int, b: int) -> bool:
    """Return whether place ``a`` goes before ``b`` when their ranks are equal: the smaller draw does."""
    return draw(tie_key, np.uint64(a)) < draw(tie_key, np.uint64(b))


@jit_inline
def goes_before(order: np.ndarray, i: int, j: int, tie_key: np.uint64) -> bool:
    """Return whether entry i goes before entry j of ``order``, int64[3, P]: rank, choice, place."""
    first, second = order[0, i], order[0, j]
    return first < second or (first == second and wins_tie(tie_key, order[2, i], order[2, j]))


@jit_inline
def _swap(order: np.ndarray, i: int, j: int) -> None:
    for column in range(3):
        kept = order[column, i]
        order[column, i] = order[column, j]
        order[column, j] = kept


@jit
def sort_order(order: np.ndarray, count: int, tie_key: np.uint64) -> None:
    """Sort order[:, :count] by rank, ties by the draw of the place."""
    if count <= _FEW:
        insertion_sort(order, 0, count, tie_key)
    else:
        _quicksort(order, count, tie_key)


@jit
def _quicksort(order: np.ndarray, count: int, tie_key: np.uint64) -> None:
    """Sort order[:, :count]; short ranges by insertion."""
    stack = np.empty((128, 2), np.int64)
    stack[0, 0], stack[0, 1] = 0, count
    depth = 1
    while depth > 0:
        depth -= 1
        first, end = stack[depth, 0], stack[depth, 1]
        while end - first > _FEW:
            middle = (first + end) // 2  # the median of three becomes the pivot, at ``first``
            if goes_before(order, middle, first, tie_key):
                _swap(order, middle, first)
            if goes_before(order, end - 1, first, tie_key):
                _swap(order, end - 1, first)
            if goes_before(order, end - 1, middle, tie_key):
                _swap(order, end - 1, middle)
            _swap(order, first, middle)
            i, j = first, end
            while True:
                i += 1
                while i < end and goes_before(order, i, first, tie_key):
                    i += 1
                j -= 1
                while goes_before(order, first, j, tie_key):
                    j -= 1
                if i >= j:
                    break
                _swap(order, i, j)
            _swap(order, first, j)
            if j - first < end - j - 1:  # the longer part waits, so that the stack stays short
                stack[depth, 0], stack[depth, 1] = j + 1, end
                end = j
            else:
                stack[depth, 0], stack[depth, 1] = first, j
                first = j + 1
            depth += 1
        insertion_sort(order, first, end, tie_key)


@jit
def insertion_sort(order: np.ndarray, first: int, end: int, tie_key: np.uint64) -> None:
    """Sort order[:, first:end] by rank, ties by the draw of the place."""
    for i in range(first + 1, end):
        rank, choice, place = order[0, i], order[1, i], order[2, i]
        j = i
        while j > first and (
            rank < order[0, j - 1] or (rank == order[0, j - 1] and wins_tie(tie_key, place, order[2, j - 1]))
        ):
            for column in range(3):
                order[column, j] = order[column, j - 1]
            j -= 1
        order[0, j], order[1, j], order[2, j] = rank, choice, place


@jit
def sift_down(heap: np.ndarray, size: int, order: np.ndarray, best_first: bool, tie_key: np.uint64) -> None:
    """Restore a heap of entry numbers after its root was replaced; the root is the best entry, or the worst."""
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            return
        if child + 1 < size and goes_before(order, heap[child + 1], heap[child], tie_key) == best_first:
            child += 1
        if goes_before(order, heap[child], heap[i], tie_key) != best_first:
            return
        kept = heap[i]
        heap[i] = heap[child]
        heap[child] = kept
        i = child


@jit
def push(heap: np.ndarray, size: int, entry: int, order: np.ndarray, best_first: bool, tie_key: np.uint64) -> None:
    """Add an entry number to a heap of ``size``."""
    i = size
    heap[i] = entry
    while i > 0:
        parent = (i - 1) // 2
        if goes_before(order, heap[i], heap[parent], tie_key) != best_first:
            return
        kept = heap[i]
        heap[i] = heap[parent]
        heap[parent] = kept
        i = parent
