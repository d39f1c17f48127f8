"""Select the spans of rows of tokens, and the tokens and bases that they hide."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gemsdata.kernels.best_of_row import NUM_BINS, place_best_of_row
from gemsdata.kernels.budget import NUM_HALVES_ROWS, place_halves_exactly, trim
from gemsdata.kernels.centres import bernoulli_centres, shuffled_centres
from gemsdata.kernels.jit import jit, jit_inline
from gemsdata.kernels.layout import FROZEN, Layout, Task, reach
from gemsdata.kernels.shown import keep_shown
from gemsdata.kernels.spans import (
    BEST_NEAR_CENTRE,
    BEST_OF_ROW,
    CENTRE,
    MASKED,
    NUM_WORK_ROWS,
    Chooser,
    num_places,
    place_spans,
)


class Rows(NamedTuple):
    """The lengths of B rows, and the keys of their random numbers."""

    num_tokens: np.ndarray
    """int64[B]"""
    num_bases: np.ndarray
    """int64[B]"""
    keys: np.ndarray
    """uint64[B]"""


class Rate(NamedTuple):
    """The tables of `bernoulli_centres`."""

    tail: np.ndarray
    guide: np.ndarray


class Budget(NamedTuple):
    """The exact amount of each row to mask."""

    target: np.ndarray
    """int64[B]; empty: no budget, the number of spans is that of the Bernoulli centres"""
    by_base: bool
    """``target`` counts hidden bases, not masked tokens"""


class SpanList(NamedTuple):
    """The spans of B rows: spans[ends[i] : ends[i+1]] are those of row i, in order of priority."""

    ends: np.ndarray
    """int64[B+1]"""
    spans: np.ndarray
    """int32[>= number of spans, 4]: lo, hi, anchor, wide (see kernels.spans)"""


class Selection(NamedTuple):
    """Rows, and the settings by which their spans are selected."""

    chooser: Chooser
    layout: Layout
    rows: Rows
    rate: Rate
    budget: Budget


@jit_inline
def task_of(
    chooser: Chooser, layout: Layout, row: tuple[int, int, int], key: np.uint64, goal: tuple[bool, bool, int, int]
) -> Task:
    """Return the task of ``row`` = (row, tokens, bases); ``goal`` = (exact, by_base, target, wanted)."""
    i, num_tokens, num_bases = row
    exact, by_base, target, wanted = goal
    return Task(
        i,
        num_tokens,
        num_bases,
        max(0, num_bases - chooser.n + 1),
        key,
        layout.token_bases,
        layout.token_stride,
        layout.varies,
        layout.restricted,
        chooser.method,
        chooser.first,
        chooser.second,
        chooser.n,
        chooser.offset,
        chooser.by_id,
        chooser.by_position,
        exact,
        by_base,
        target,
        wanted,
    )


@jit_inline
def with_wanted(task: Task, wanted: int) -> Task:
    """Return the same task for another number of centres or n-grams."""
    return Task(
        task.row,
        task.num_tokens,
        task.num_bases,
        task.num_grams,
        task.key,
        task.token_bases,
        task.token_stride,
        task.varies,
        task.restricted,
        task.method,
        task.first,
        task.second,
        task.n,
        task.offset,
        task.by_id,
        task.by_position,
        task.exact,
        task.by_base,
        task.target,
        wanted,
    )


@jit
def select(how: Selection) -> SpanList:
    """Return the spans of every row. Without a budget, their number is that of Bernoulli centres."""
    chooser, layout, rows, budget = how.chooser, how.layout, how.rows, how.budget
    capacity = 1
    for i in range(rows.keys.size):
        capacity += max(rows.num_tokens[i], rows.num_bases[i])
    ends, all_spans = np.zeros(rows.keys.size + 1, np.int64), np.empty((capacity, 4), np.int32)
    marks, source, ranks = layout.marks, chooser.source, chooser.ranks
    target, keys = budget.target, rows.keys
    tail, guide = how.rate.tail, how.rate.guide
    exact = target.size > 0
    halves = exact and chooser.method == BEST_NEAR_CENTRE
    most = NUM_BINS + 1
    for i in range(keys.size):
        most = max(most, rows.num_tokens[i], rows.num_bases[i])
    most += 2 * reach(layout.token_bases, layout.token_stride, layout.varies)
    work = np.empty((NUM_HALVES_ROWS if halves else NUM_WORK_ROWS, most), np.int64)
    at = 0
    for i in range(keys.size):
        goal = (exact, budget.by_base, target[i] if exact else 0, 0)
        task = task_of(chooser, layout, (i, rows.num_tokens[i], rows.num_bases[i]), keys[i], goal)
        spans = all_spans[at:]
        if not exact:
            task = with_wanted(task, bernoulli_centres(keys[i], num_places(task), tail, guide, work[CENTRE]))
            if task.method == BEST_OF_ROW:
                placed = place_best_of_row(task, marks, source, ranks, work, spans)
            else:
                placed = place_spans(task, marks, source, ranks, work, spans)
            at += keep_shown(task, marks, spans, placed, work[MASKED]) if task.restricted else placed
        elif halves:
            at += place_halves_exactly(task, marks, source, ranks, work, spans)
        else:
            at += _place_exactly(task, marks, source, ranks, work, spans)
        ends[i + 1] = at
    return SpanList(ends, all_spans)


@jit
def _place_exactly(
    task: Task, marks: np.ndarray, source: np.ndarray, ranks: np.ndarray, work: np.ndarray, spans: np.ndarray
) -> int:
    """Write the spans of an increasing number of centres, until the first ones reach the target; return how many.

    The spans of fewer centres are a prefix of the spans of more, so the first ones that reach it are always the same.
    """
    places = num_places(task)
    drawn, count = 0, min(places, max(1, (task.target - task.n + 1) // (2 * task.n - 1)))
    while True:
        if task.method == BEST_OF_ROW:
            placed = place_best_of_row(with_wanted(task, count), marks, source, ranks, work, spans)
        else:
            shuffled_centres(task.key, places, drawn, count, work[CENTRE])
            drawn = count
            placed = place_spans(with_wanted(task, count), marks, source, ranks, work, spans)
        if task.restricted:
            placed = keep_shown(task, marks, spans, placed, work[MASKED])
        end = trim(task, marks, spans, placed, work[MASKED])
        if end >= 0:
            return end
        if count == places:
            return placed
        count = min(places, 2 * count)


@jit
def largest_id(ids: np.ndarray) -> int:
    """Return the largest of unsigned ids [B, L]; 0 if there are none."""
    if ids.size == 0:
        return 0
    largest = ids[0, 0]
    for i in range(ids.shape[0]):
        for t in range(ids.shape[1]):
            largest = max(largest, ids[i, t])
    return int(largest)


@jit
def paint(found: SpanList, layout: Layout, masked: np.ndarray) -> None:
    """Set masked[i, t] (bool[B, L], zeroed) for every token t inside a span of row i that may be masked."""
    ends, spans, marks, restricted = found.ends, found.spans, layout.marks, layout.restricted
    for i in range(ends.size - 1):
        for j in range(ends[i], ends[i + 1]):
            for t in range(spans[j, 0], spans[j, 1]):
                masked[i, t] = not restricted or marks[i, FROZEN, t] == 0


@jit
def select_and_paint(how: Selection, masked: np.ndarray) -> None:
    """Select spans and set the tokens that they mask, as `paint` does."""
    paint(select(how), how.layout, masked)


@jit
def hidden_bases(masked: np.ndarray, num_tokens: np.ndarray, k: int, hidden: np.ndarray) -> None:
    """Set hidden[i, b] (bool[B, L+k-1]) for each base b of row i that no unmasked k-mer shows; masked is bool[B, L]."""
    for i in range(masked.shape[0]):
        tokens = np.int64(num_tokens[i])
        shown_to = 0
        hidden[i, :] = False
        for t in range(tokens):
            if not masked[i, t]:
                hidden[i, shown_to:t] = True
                shown_to = t + k
        if tokens > 0:
            hidden[i, shown_to : tokens + k - 1] = True
