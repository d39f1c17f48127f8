"""From rows of tokens to masked batches: select spans, then write inputs, labels and attention mask.

A few lines over the limit, because the types that both steps share stand in one file with them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gemsdata.kernels.best_of_row import NUM_BINS, place_best_of_row
from gemsdata.kernels.budget import NUM_HALVES_ROWS, place_halves_exactly, trim
from gemsdata.kernels.centres import bernoulli_centres, shuffled_centres
from gemsdata.kernels.jit import jit, jit_inline
from gemsdata.kernels.keys import below, draw, fold
from gemsdata.kernels.layout import FROZEN, Layout, Task, reach
from gemsdata.kernels.random_streams import RowStream
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

UNMASKED = -100
CORRUPTION = np.uint64(RowStream.CORRUPTION)
_S32 = np.uint64(32)
_LOW32 = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)
_TENTHS = np.uint64(10)
_NINTH = np.uint64(8)  # tenths 0..7 become [MASK], 8 a random token, 9 stays


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
    """How much of each row is to be masked."""

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
    """Rows, and all by which their spans are selected."""

    chooser: Chooser
    layout: Layout
    rows: Rows
    rate: Rate
    budget: Budget


class Corruption(NamedTuple):
    """What becomes of masked tokens."""

    by_run: bool
    """decide once for each run of masked tokens, not for each token"""
    first_random: int
    num_random: int
    random_ids: np.ndarray
    """uint32[n]: random replacements; where empty they are first_random .. first_random + num_random - 1"""
    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int


class Batch(NamedTuple):
    """Where a masked batch is written, all [B, L+2]."""

    input_ids: np.ndarray
    labels: np.ndarray
    attention_mask: np.ndarray


@jit_inline
def task_of(
    chooser: Chooser, layout: Layout, row: tuple[int, int, int], key: np.uint64, goal: tuple[bool, bool, int, int]
) -> Task:
    """Return what is to be done with ``row`` = (row, tokens, bases); ``goal`` = (exact, by_base, target, wanted)."""
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
    """Return the spans of every row. Without a budget there are as many as Bernoulli centres."""
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
    """Write the spans of ever more centres, until those that come first reach the target; return how many.

    The spans of fewer centres begin those of more, so the first ones that reach it are the same for any number.
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
def paint(found: SpanList, layout: Layout, masked: np.ndarray) -> None:
    """Set masked[i, t] (bool[B, L], zeroed) for every token t inside a span of row i that may be masked."""
    ends, spans, marks, restricted = found.ends, found.spans, layout.marks, layout.restricted
    for i in range(ends.size - 1):
        for j in range(ends[i], ends[i + 1]):
            for t in range(spans[j, 0], spans[j, 1]):
                masked[i, t] = not restricted or marks[i, FROZEN, t] == 0


@jit
def select_and_paint(how: Selection, masked: np.ndarray) -> None:
    """Select spans and set what they mask, as `paint` does."""
    paint(select(how), how.layout, masked)


@jit
def merge(spans: np.ndarray, order: np.ndarray, runs: np.ndarray) -> int:
    """Write the maximal runs of masked tokens of ``spans`` to runs[0:n, 0:2], by position; return n.

    Overlapping and adjacent spans make one run. ``order`` int64[>= spans] is scratch, ``runs`` int32[>= spans, 2].
    """
    size = spans.shape[0]
    for j in range(size):
        entry = np.int64(spans[j, 0]) << 32 | j
        if size > 64:
            order[j] = entry
            continue
        i = j
        while i > 0 and order[i - 1] > entry:
            order[i] = order[i - 1]
            i -= 1
        order[i] = entry
    if size > 64:
        order[:size].sort()
    count = 0
    for i in range(size):
        j = order[i] & 0xFFFFFFFF
        lo, hi = spans[j, 0], spans[j, 1]
        if lo == hi:
            continue
        if count > 0 and lo <= runs[count - 1, 1]:
            runs[count - 1, 1] = max(runs[count - 1, 1], hi)
        else:
            runs[count, 0], runs[count, 1] = lo, hi
            count += 1
    return count


@jit
def corrupt(ids: np.ndarray, rows: Rows, found: SpanList, layout: Layout, rule: Corruption, out: Batch) -> None:
    """Write [CLS] tokens [SEP] [PAD]..., labels and attention mask of every row.

    Masked token t gets the outcome of draw number t (``by_run``: the draw of the first token of its run of masked
    tokens); its random replacement comes from the low half of draw t.
    """
    input_ids, labels, attention_mask = out.input_ids, out.labels, out.attention_mask
    ends, spans, marks, restricted = found.ends, found.spans, layout.marks, layout.restricted
    most = 0
    for i in range(ends.size - 1):
        most = max(most, ends[i + 1] - ends[i])
    order, runs = np.empty(most, np.int64), np.empty((most, 2), np.int32)
    by_run = rule.by_run
    for i in range(ids.shape[0]):
        tokens = rows.num_tokens[i]
        key = fold(rows.keys[i], CORRUPTION)
        input_ids[i, 0] = rule.cls_id
        for t in range(tokens):
            input_ids[i, t + 1] = ids[i, t]
        input_ids[i, tokens + 1] = rule.sep_id
        input_ids[i, tokens + 2 :] = rule.pad_id
        labels[i, :] = UNMASKED
        attention_mask[i, : tokens + 2] = 1
        attention_mask[i, tokens + 2 :] = 0
        first = ends[i]
        count = merge(spans[first : ends[i + 1]], order, runs) if by_run else ends[i + 1] - first
        for j in range(count):
            lo, hi = spans[first + j, 0], spans[first + j, 1]
            if by_run:
                lo, hi = runs[j, 0], runs[j, 1]
            while lo < hi:
                end = hi
                if restricted:  # up to the next token that is never masked
                    while lo < hi and marks[i, FROZEN, lo] != 0:
                        lo += 1
                    end = lo
                    while end < hi and marks[i, FROZEN, end] == 0:
                        end += 1
                _corrupt_tokens(ids[i], (lo, end), key, rule, input_ids[i], labels[i])
                lo = end


@jit_inline
def _corrupt_tokens(
    ids: np.ndarray, run: tuple[int, int], key: np.uint64, rule: Corruption, input_ids: np.ndarray, labels: np.ndarray
) -> None:
    """Corrupt the consecutive masked tokens ``run`` = (first, end) of a row."""
    random_ids, size, listed = rule.random_ids, np.uint64(rule.num_random), rule.random_ids.size > 0
    by_run, first_random, mask_id = rule.by_run, rule.first_random, rule.mask_id
    run_tenth = below(draw(key, np.uint64(run[0])), _TENTHS) if by_run else _NINTH
    for t in range(np.uint64(run[0]), np.uint64(run[1])):  # an index that may be negative costs a comparison
        bits = draw(key, t)
        tenth = run_tenth if by_run else below(bits, _TENTHS)
        token_id = np.int64(ids[t])
        chosen = ((bits & _LOW32) * size) >> _S32
        random_id = np.int64(random_ids[chosen]) if listed else first_random + np.int64(chosen)
        labels[t + _ONE] = token_id
        seen_id = random_id if tenth == _NINTH else token_id
        input_ids[t + _ONE] = mask_id if tenth < _NINTH else seen_id


@jit
def select_and_corrupt(ids: np.ndarray, how: Selection, rule: Corruption, out: Batch) -> None:
    """Select spans and write the batch, as `corrupt` does: one call, since passing the arguments takes microseconds."""
    corrupt(ids, how.rows, select(how), how.layout, rule, out)


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
