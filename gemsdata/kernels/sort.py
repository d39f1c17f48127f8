"""In-place sorting by NPMI rank with ties broken by random draws, fast for few entries and for a million."""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.jit import jit, jit_inline
from gemsdata.kernels.keys import draw

_FEW = 24
_ENTRY_BITS = 7
_MANY = 1 << _ENTRY_BITS
_DIGIT_BITS = 8
_MOST_BITS = 31


@jit_inline
def wins_tie(tie_key: np.uint64, a: int, b: int) -> bool:
    """Return whether place ``a`` goes before place ``b`` of the same rank: the one with the smaller draw does."""
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
    elif count < _MANY:
        _sort_by_entries(order, count, tie_key)
    elif not _radix_sort(order, count, tie_key):
        quicksort(order, 0, count, tie_key)


@jit
def _sort_by_entries(order: np.ndarray, count: int, tie_key: np.uint64) -> None:
    """Sort order[:, :count], at most _MANY entries: the place of each is the number of those before it.

    That takes count**2 comparisons, but of numbers that hold rank and entry, several at a time and without a branch.
    """
    entries, values, places = np.empty(_MANY, np.int64), np.empty(_MANY, np.int64), np.empty(_MANY, np.int64)
    for i in range(count):
        entries[i] = order[0, i] << _ENTRY_BITS | i
    for i in range(count):
        entry, before = entries[i], np.int64(0)
        for j in range(count):
            before += np.int64(entries[j] < entry)
        places[i] = before
    for column in range(3):
        for i in range(count):
            values[places[i]] = order[column, i]
        order[column, :count] = values[:count]
    _sort_runs(order, count, tie_key)


@jit
def _sort_runs(order: np.ndarray, count: int, tie_key: np.uint64) -> None:
    """Sort each run of equal ranks of order[:, :count], which is sorted by rank, by draws."""
    first = 0
    for i in range(1, count + 1):
        if i < count and order[0, i] == order[0, first]:
            continue
        if i - first > 1:
            quicksort(order, first, i, tie_key)
        first = i


@jit
def _radix_sort(order: np.ndarray, count: int, tie_key: np.uint64) -> bool:
    """Sort order[:, :count] by the digits of the ranks, then each run of equal ranks by draws; 3 times a quicksort.

    Returns False, without sorting, if the ranks differ so much that rank and entry do not fit one integer.
    """
    least, most = order[0, 0], order[0, 0]
    for i in range(count):
        least, most = min(least, order[0, i]), max(most, order[0, i])
    if (most - least) >> _MOST_BITS > 0:
        return False
    entries, sorted_entries = np.empty(count, np.int64), np.empty(count, np.int64)
    for i in range(count):
        entries[i] = (order[0, i] - least) << 32 | i
    ends = np.empty(1 << _DIGIT_BITS, np.int64)
    for shift in range(32, 64, _DIGIT_BITS):
        if (most - least) >> (shift - 32) == 0:
            break
        ends[:] = 0
        for i in range(count):
            ends[(entries[i] >> shift) & 255] += 1
        before = np.int64(0)
        for digit in range(ends.size):
            here = ends[digit]
            ends[digit] = before
            before += here
        for i in range(count):
            digit = (entries[i] >> shift) & 255
            sorted_entries[ends[digit]] = entries[i]
            ends[digit] += 1
        entries, sorted_entries = sorted_entries, entries
    values = sorted_entries
    for column in range(1, 3):
        for i in range(count):
            values[i] = order[column, entries[i] & 0xFFFFFFFF]
        order[column, :count] = values
    for i in range(count):
        order[0, i] = (entries[i] >> 32) + least
    _sort_runs(order, count, tie_key)
    return True


@jit
def quicksort(order: np.ndarray, begin: int, stop: int, tie_key: np.uint64) -> None:
    """Sort order[:, begin:stop]; short ranges by insertion."""
    stack = np.empty((128, 2), np.int64)
    stack[0, 0], stack[0, 1] = begin, stop
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
            if j - first < end - j - 1:  # the longer part goes on the stack, so that the stack stays short
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
