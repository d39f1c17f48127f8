"""Exact budgets: keep the first spans, trimmed so that the row reaches its target in tokens or in hidden bases."""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.centres import shuffled_centres
from gemsdata.kernels.jit import jit, jit_inline
from gemsdata.kernels.keys import draw, fold
from gemsdata.kernels.layout import (
    FROZEN,
    START,
    Task,
    may_hide,
    newly_hidden,
    reach,
    smallest_gain,
    tokens_over,
    uniform_tokens_over,
)
from gemsdata.kernels.random_streams import RowStream
from gemsdata.kernels.shown import keep_shown
from gemsdata.kernels.sort import goes_before, push, sift_down, sort_order
from gemsdata.kernels.spans import (
    CENTRE,
    MASKED,
    NUM_WORK_ROWS,
    ORDER,
    TIES,
    num_high_of,
    num_places,
    place_high_and_low,
    rank_centres,
)

TRIM = np.uint64(RowStream.TRIM)
_ONE = np.uint64(1)
HIGH, LOW, SORTED, COVER, UNTRIMMED, CHANGES = (NUM_WORK_ROWS + i for i in (0, 1, 2, 5, 6, 7))
"""Further rows of the work space, for `place_halves_exactly`: heap of the entries that hide an n-gram, the worst at the
root; of the others, the best at the root; sorted entries (three rows); how many spans mask a token; what they mask;
spans to add and to remove"""
NUM_HALVES_ROWS = NUM_WORK_ROWS + 8


@jit
def start_masked(task: Task, marks: np.ndarray, masked: np.ndarray) -> int:
    """Clear the mask of a row in ``masked``, int64[T + 2 * reach]; return the index of its first token.

    It is 1 before and after the row, and at tokens that are never masked because they show nothing.
    """
    before = reach(task.token_bases, task.token_stride, task.varies)
    masked[:before] = 1
    masked[before + task.num_tokens : 2 * before + task.num_tokens] = 1
    masked[before : before + task.num_tokens] = 0
    if task.restricted:
        for t in range(task.num_tokens):
            masked[before + t] = marks[task.row, FROZEN, t]
    return before


@jit
def trim(task: Task, marks: np.ndarray, spans: np.ndarray, count: int, masked: np.ndarray) -> int:
    """Shorten spans[:count] in place so that together they mask (hide) no more than ``task.target``.

    Each span grows token by token, from its left or right end depending on a bit of the row key, up to the first token
    that would exceed the target. Returns how many spans are kept, or -1 if they do not reach the target (if tokens have
    several bases of their own: if one more token could still be masked). ``masked`` is scratch, int64[>= T + 2 *
    reach].
    """
    target, by_base = task.target, task.by_base
    from_right = (draw(fold(task.key, TRIM), np.uint64(0)) & _ONE) == _ONE
    before = start_masked(task, marks, masked)
    slack = smallest_gain(task, marks) - 1 if by_base else 0
    total = 0
    for j in range(count):
        if total == target:
            return j
        lo, hi = spans[j, 0], spans[j, 1]
        kept = 0
        while kept < hi - lo:
            t = hi - 1 - kept if from_right else lo + kept
            if masked[t + before] == 0:
                if not by_base:
                    gain = 1
                elif task.varies:
                    gain = int(marks[task.row, START, t + 1] - marks[task.row, START, t])
                else:
                    gain = newly_hidden(task, masked, t)
                if total + gain > target:
                    break
                masked[t + before] = 1
                total += gain
            kept += 1
            if total == target:
                break
        if from_right:
            spans[j, 0] = hi - kept
        else:
            spans[j, 1] = lo + kept
    return count if total + slack >= target else -1


@jit
def place_halves_exactly(
    task: Task, marks: np.ndarray, source: np.ndarray, ranks: np.ndarray, work: np.ndarray, spans: np.ndarray
) -> int:
    """Write GeneMask's spans for the smallest number of centres that reaches the target, trimmed; return how many.

    More centres do not always mask more, because the better half grows only with every second one; so all numbers that
    may be enough are tried in turn. The mask of the untrimmed spans is updated incrementally: a new centre, and the one
    that changes halves because of it, cost a few tokens each.
    """
    order, tie_key = work[ORDER : ORDER + 3], fold(task.key, TIES)
    high, low = work[HIGH], work[LOW]
    start_masked(task, marks, work[UNTRIMMED])
    work[COVER, : task.num_tokens] = 0
    slack = smallest_gain(task, marks) - 1 if task.by_base else 0
    places = num_places(task)
    start = min(_too_few_centres(task), places - 1)
    kept, num_high, total, placed = 0, 0, 0, 0
    if start > 0:
        shuffled_centres(task.key, places, 0, start, work[CENTRE])
        kept = rank_centres(task, marks, source, ranks, work, (0, start, 0))
        num_high, total = _begin_halves(task, marks, kept, work)
    num_low = kept - num_high
    for count in range(max(0, start), places):
        shuffled_centres(task.key, places, count, count + 1, work[CENTRE])
        entry = kept
        kept = rank_centres(task, marks, source, ranks, work, (count, count + 1, kept))
        changes = 0
        if kept > entry:
            goes_high = num_high > 0 and goes_before(order, entry, high[0], tie_key)
            if goes_high:
                push(high, num_high, entry, order, False, tie_key)
                num_high += 1
            else:
                push(low, num_low, entry, order, True, tie_key)
                num_low += 1
            work[CHANGES, 0], work[CHANGES, 1], changes = 2 * entry + goes_high, 1, 2
        wanted = num_high_of(task, kept)
        while num_high > wanted:
            entry = high[0]
            num_high -= 1
            high[0] = high[num_high]
            sift_down(high, num_high, order, False, tie_key)
            push(low, num_low, entry, order, True, tie_key)
            num_low += 1
            work[CHANGES, changes], work[CHANGES, changes + 1] = 2 * entry, 1
            work[CHANGES, changes + 2], work[CHANGES, changes + 3] = 2 * entry + 1, -1
            changes += 4
        while num_high < wanted:
            entry = low[0]
            num_low -= 1
            low[0] = low[num_low]
            sift_down(low, num_low, order, True, tie_key)
            push(high, num_high, entry, order, False, tie_key)
            num_high += 1
            work[CHANGES, changes], work[CHANGES, changes + 1] = 2 * entry + 1, 1
            work[CHANGES, changes + 2], work[CHANGES, changes + 3] = 2 * entry, -1
            changes += 4
        total += _cover(task, marks, changes, work)
        if total + slack >= task.target or count == places - 1:
            work[SORTED : SORTED + 3, :kept] = order[:, :kept]
            sort_order(work[SORTED : SORTED + 3], kept, tie_key)
            placed = place_high_and_low(task, marks, kept, work[SORTED : SORTED + 3], spans)
            if task.restricted:
                placed = keep_shown(task, marks, spans, placed, work[MASKED])
            end = trim(task, marks, spans, placed, work[MASKED])
            if end >= 0:
                return end
    return placed


@jit_inline
def _too_few_centres(task: Task) -> int:
    """Return a number of centres that certainly do not reach the target; 0 if no such number is known.

    Over overlapping n-grams, a span masks at most 2n - 1 tokens, and c tokens hide at most c bases, but for n - 1 bases
    of a whole row.
    """
    if task.restricted or task.varies or task.token_bases != task.n or task.token_stride != 1:
        return 0
    return (task.target - task.n + 1) // (2 * task.n - 1) - 1


@jit
def _begin_halves(task: Task, marks: np.ndarray, kept: int, work: np.ndarray) -> tuple[int, int]:
    """Sort the first ``kept`` entries into the two heaps and cover them; return (entries that hide n-grams, amount)."""
    sort_order(work[ORDER : ORDER + 3], kept, fold(task.key, TIES))
    high, low = work[HIGH], work[LOW]
    num_high = num_high_of(task, kept)
    for entry in range(kept):  # a sorted list is a heap
        is_high = entry < num_high
        if is_high:
            high[num_high - 1 - entry] = entry
        else:
            low[entry - num_high] = entry
        work[CHANGES, 2 * entry], work[CHANGES, 2 * entry + 1] = 2 * entry + is_high, 1
    return num_high, _cover(task, marks, 2 * kept, work)


@jit
def _cover(task: Task, marks: np.ndarray, num_changes: int, work: np.ndarray) -> int:
    """Add and remove spans of entries; return the increase of the masked amount.

    The changes are pairs in work[CHANGES]: 2 * entry + whether it hides its n-gram; 1 to add the span, or -1.
    """
    before = reach(task.token_bases, task.token_stride, task.varies)
    masked, cover = work[UNTRIMMED], work[COVER]
    total = 0
    for j in range(0, num_changes, 2):
        entry, step = work[CHANGES, j] >> 1, work[CHANGES, j + 1]
        gram = work[ORDER + 1, entry]
        wide = work[CHANGES, j] & 1 == 1 and gram >= 0
        first = gram if wide else work[ORDER + 2, entry] + task.offset
        end = first + task.n if wide else first + 1
        if task.restricted and not may_hide(task, marks, first, end):
            continue
        if task.varies:
            lo, hi = tokens_over(task, marks, first, end)
        else:
            lo, hi = uniform_tokens_over(task, first, end)
        for t in range(lo, hi):
            covered = cover[t]
            cover[t] = covered + step
            changed = covered == (0 if step > 0 else 1)
            if not changed or (task.restricted and marks[task.row, FROZEN, t] != 0):
                continue
            masked[before + t] = 0
            if not task.by_base:
                gain = 1
            elif task.varies:
                gain = int(marks[task.row, START, t + 1] - marks[task.row, START, t])
            else:
                gain = newly_hidden(task, masked, t)
            masked[before + t] = np.int64(step > 0)
            total += step * gain
    return total
