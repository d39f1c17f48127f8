"""Placement of the spans of a row: around random centres, or over the best-ranked n-grams.

A span is a range of bases to hide, stored as the tokens that touch them. It has four numbers: ``lo`` and ``hi``
(half-open token positions, clipped to the row), ``anchor`` (its position: an n-gram, a centre or a token) and ``wide``
(1 if it hides a whole n-gram). Spans are in order of priority: a budget keeps the first ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gemsdata.kernels.jit import jit, jit_inline
from gemsdata.kernels.keys import below, draw, fold
from gemsdata.kernels.layout import (
    BLOCKED,
    START,
    Task,
    may_hide,
    token_span,
    tokens_over,
    uniform_tokens_over,
)
from gemsdata.kernels.random_streams import RowStream
from gemsdata.kernels.sort import sort_order, wins_tie
from gemsdata.kernels.special_ids import NUM_SPECIAL

TIES = np.uint64(RowStream.TIES)
LENGTHS = np.uint64(RowStream.LENGTHS)

TOKEN, CENTRE_BASE, CENTRE_GRAM, LENGTH_RANGE, BEST_NEAR_CENTRE, BEST_OF_ROW = range(6)
"""Methods: the token at each centre; the base at it; the n-gram at it; bases of random number; genemask's; global's"""

NEVER = 2**31 - 1
"""rank of an n-gram that may not be hidden"""


class Chooser(NamedTuple):
    """Settings by which spans are chosen."""

    method: int
    first: int
    """LENGTH_RANGE: the shortest span; BEST_OF_ROW: n-grams to skip on either side of a chosen one"""
    second: int
    """LENGTH_RANGE: the longest span; BEST_NEAR_CENTRE: if there would be fewer wide spans than this, all are wide"""
    n: int
    offset: int
    """the base of centre c is c + offset"""
    by_id: bool
    """``source`` has the ids of the n-grams"""
    by_position: bool
    """the ids of the n-grams depend on their positions alone: ``source`` has one row"""
    source: np.ndarray
    """ids of the n-grams [B, L] or [1, L] with ``by_id``, else bases uint8[B, W]"""
    ranks: np.ndarray
    """ranks by id; the last entry is the worst rank"""


CENTRE, ORDER, RANK, BINS, MASKED = 0, 1, 4, 5, 6
"""Rows of the work space int64[>= 7, >= places of a row]: centres; rank, choice, place (three rows); ranks; best ranks
of blocks, or how many n-grams have a rank; a mask"""
NUM_WORK_ROWS = 7


@jit_inline
def num_places(task: Task) -> int:
    """Return the number of places among which centres are drawn."""
    if task.method == TOKEN:
        return task.num_tokens
    if task.offset > 0 or task.method == CENTRE_GRAM or task.method == BEST_OF_ROW:
        return task.num_grams
    return task.num_bases


@jit
def fill_ranks(task: Task, source: np.ndarray, ranks: np.ndarray, grams: tuple[int, int], rank: np.ndarray) -> None:
    """Write the ranks of n-grams ``grams`` = (first, last) to rank[0:last-first]."""
    first, last = grams
    if task.by_id:
        row = 0 if task.by_position else task.row
        for g in range(first, last):
            rank[g - first] = ranks[source[row, g]]
    elif first < last:
        n = task.n
        low = (1 << (2 * n)) - 1
        value = np.int64(0)
        for b in range(first, first + n - 1):
            value = (value << 2) | np.int64(source[task.row, b] & 3)
        for g in range(first, last):
            value = ((value << 2) | np.int64(source[task.row, g + n - 1] & 3)) & low
            rank[g - first] = ranks[value + NUM_SPECIAL]


@jit
def forbid(task: Task, marks: np.ndarray, grams: tuple[int, int], rank: np.ndarray) -> None:
    """Set the rank of n-grams first .. last-1 that may not be hidden to NEVER."""
    for g in range(grams[0], grams[1]):
        if not may_hide(task, marks, g, g + task.n):
            rank[g - grams[0]] = NEVER


@jit
def write_span(
    task: Task, marks: np.ndarray, hidden: tuple[int, int], anchor: tuple[int, int], spans: np.ndarray, count: int
) -> int:
    """Write the tokens that touch the bases ``hidden`` = (first, end) to spans[count]; ``anchor`` = (place, wide).

    Returns the number of spans, unchanged if one of the bases may not be hidden.
    """
    if not may_hide(task, marks, hidden[0], hidden[1]):
        return count
    lo, hi = tokens_over(task, marks, hidden[0], hidden[1])
    spans[count, 0], spans[count, 1], spans[count, 2], spans[count, 3] = lo, hi, anchor[0], anchor[1]
    return count + 1


@jit_inline
def place_spans(
    task: Task, marks: np.ndarray, source: np.ndarray, ranks: np.ndarray, work: np.ndarray, spans: np.ndarray
) -> int:
    """Write the spans of the first ``task.wanted`` centres to ``spans``, the most important first; return how many."""
    if task.method == BEST_NEAR_CENTRE:
        kept = rank_centres(task, marks, source, ranks, work, (0, task.wanted, 0))
        order = work[ORDER : ORDER + 3]
        sort_order(order, kept, fold(task.key, TIES))
        return place_high_and_low(task, marks, kept, order, spans)
    placed = 0
    simple = not (task.restricted or task.varies)
    for i in range(task.wanted):
        c = work[CENTRE, i]
        if task.method == TOKEN:
            if task.restricted and not _may_mask(task, marks, c):
                continue
            spans[placed, 0], spans[placed, 1], spans[placed, 2], spans[placed, 3] = c, c + 1, c, 0
            placed += 1
            continue
        first, end = _bases_at(task, c)
        wide = 1 if task.method == CENTRE_GRAM else 0
        if simple:
            lo, hi = uniform_tokens_over(task, first, end)
            spans[placed, 0], spans[placed, 1], spans[placed, 2], spans[placed, 3] = lo, hi, c, wide
            placed += 1
        else:
            placed = write_span(task, marks, (first, end), (c, wide), spans, placed)
    return placed


@jit_inline
def _bases_at(task: Task, c: int) -> tuple[int, int]:
    """Return the half-open range of bases that a centre hides: its base, its n-gram, or a random number of bases."""
    b = c + task.offset
    first, end = b, b + 1
    if task.method == CENTRE_GRAM:
        first, end = c, c + task.n
    elif task.method == LENGTH_RANGE:
        bits = draw(fold(task.key, LENGTHS), np.uint64(c))
        length = task.first + int(below(bits, np.uint64(task.second - task.first + 1)))
        first = b - task.n // 2 + task.n - 1 - (length - 1) // 2
        end = first + length - task.n + 1
        if end <= first and task.offset == 0:  # fewer than n k-mers hide no base, but a span hides at least one
            first, end = b, b + 1
    return first, end


@jit
def _may_mask(task: Task, marks: np.ndarray, token_pos: int) -> bool:
    """Return whether all bases of a token may be hidden."""
    first, end = token_span(task, marks, token_pos)
    return marks[task.row, BLOCKED, end] == marks[task.row, BLOCKED, first]


@jit
def rank_centres(
    task: Task, marks: np.ndarray, source: np.ndarray, ranks: np.ndarray, work: np.ndarray, which: tuple[int, int, int]
) -> int:
    """Write (rank, n-gram, centre) of the best-ranked n-gram over each centre's base to the order; return its length.

    ``which`` = (first centre, last centre, length of the order so far). Centres at bases that may not be hidden are
    left out. If no n-gram over the base may be hidden, the n-gram is -1.
    """
    row = 0 if task.by_position else task.row
    if task.by_id and not task.restricted and task.num_grams > 0:
        return _rank_centres_by_id(task, source[row], ranks, work, which)
    if not task.restricted:
        return _rank_centres_by_base(task, source[row], ranks, work, which)
    n, rank = task.n, work[RANK]
    tie_key = fold(task.key, TIES)
    kept = which[2]
    for i in range(which[0], which[1]):
        c = work[CENTRE, i]
        b = c + task.offset
        if task.restricted and not may_hide(task, marks, b, b + 1):
            continue
        first, last = max(0, b - n + 1), min(task.num_grams, b + 1)
        fill_ranks(task, source, ranks, (first, last), rank)
        if task.restricted:
            forbid(task, marks, (first, last), rank)
        best_rank, best = NEVER, -1
        tied = False
        for j in range(last - first):
            better = rank[j] < best_rank
            tied = rank[j] == best_rank or (tied and not better)
            best = first + j if better else best
            best_rank = rank[j] if better else best_rank
        if tied and best >= 0:
            for g in range(best + 1, last):
                if rank[g - first] == best_rank and wins_tie(tie_key, g, best):
                    best = g
        work[ORDER, kept], work[ORDER + 1, kept], work[ORDER + 2, kept] = best_rank, best, c
        kept += 1
    return kept


@jit_inline
def _rank_centres_by_id(
    task: Task, token_ids: np.ndarray, ranks: np.ndarray, work: np.ndarray, which: tuple[int, int, int]
) -> int:
    """Do the same where ``source`` has the ids of the n-grams and all may be hidden, without storing their ranks."""
    centre, order = work[CENTRE, which[0] : which[1]], work[ORDER : ORDER + 3, which[2] :]
    tie_key, before = fold(task.key, TIES), task.n - 1 - task.offset
    for i in range(centre.size):  # from 0: an index that may be negative costs a comparison
        c = centre[i]
        first, last = max(0, c - before), min(task.num_grams, c + task.offset + 1)
        best, best_rank = first, np.int64(ranks[token_ids[first]])
        tied = False
        for g in range(first + 1, last):
            rank = np.int64(ranks[token_ids[g]])
            better = rank < best_rank
            tied = rank == best_rank or (tied and not better)
            best = g if better else best
            best_rank = rank if better else best_rank
        if tied:
            for g in range(best + 1, last):
                if ranks[token_ids[g]] == best_rank and wins_tie(tie_key, g, best):
                    best = g
        order[0, i], order[1, i], order[2, i] = best_rank, best, c
    return which[2] + centre.size


@jit_inline
def _rank_centres_by_base(
    task: Task, bases: np.ndarray, ranks: np.ndarray, work: np.ndarray, which: tuple[int, int, int]
) -> int:
    """Do the same where all bases may be hidden, without writing the ranks of n-grams down."""
    centre, order = work[CENTRE, which[0] : which[1]], work[ORDER : ORDER + 3, which[2] :]
    n, tie_key = task.n, fold(task.key, TIES)
    low = (1 << (2 * n)) - 1
    for i in range(centre.size):
        c = centre[i]
        b = c + task.offset
        first, last = max(0, b - n + 1), min(task.num_grams, b + 1)
        word = np.int64(0)  # the bases of these n-grams, up to 23 of two bits
        for j in range(first, last + n - 1 if first < last else first):
            word = (word << 2) | np.int64(bases[j] & 3)
        best, best_rank, tied = -1, np.int64(NEVER), False
        for g in range(first, last):
            rank = np.int64(ranks[((word >> (2 * (last - 1 - g))) & low) + NUM_SPECIAL])
            better = rank < best_rank
            tied = rank == best_rank or (tied and not better)
            best = g if better else best
            best_rank = rank if better else best_rank
        if tied:
            for g in range(best + 1, last):
                rank = np.int64(ranks[((word >> (2 * (last - 1 - g))) & low) + NUM_SPECIAL])
                if rank == best_rank and wins_tie(tie_key, g, best):
                    best = g
        order[0, i], order[1, i], order[2, i] = best_rank, best, c
    return which[2] + centre.size


@jit_inline
def num_high_of(task: Task, count: int) -> int:
    """Return how many of GeneMask's centres hide a whole n-gram: the better half, or all if that is too few."""
    num_high = (count + 1) // 2
    return count if num_high < task.second else num_high


@jit_inline
def place_high_and_low(task: Task, marks: np.ndarray, count: int, order: np.ndarray, spans: np.ndarray) -> int:
    """Write GeneMask's spans: the better centres hide their n-gram, the others their own base.

    ``order`` is sorted; its ranks are overwritten.
    """
    num_high = num_high_of(task, count)
    if task.varies and not task.restricted:
        _place_varying(task, marks[task.row, START], (count, num_high), order, spans)
        return count
    placed = 0
    for i in range(count):
        gram, c = order[1, i], order[2, i]
        wide = i < num_high and gram >= 0
        anchor = gram if wide else c
        first = gram if wide else c + task.offset
        end = first + task.n if wide else first + 1
        if task.restricted:
            placed = write_span(task, marks, (first, end), (anchor, np.int64(wide)), spans, placed)
        else:
            lo, hi = uniform_tokens_over(task, first, end)
            spans[placed, 0], spans[placed, 1], spans[placed, 2], spans[placed, 3] = lo, hi, anchor, wide
            placed += 1
    return placed


@jit_inline
def _place_varying(
    task: Task, start: np.ndarray, counts: tuple[int, int], order: np.ndarray, spans: np.ndarray
) -> None:
    """Do the same where tokens vary in length and all may be masked; ``counts`` = (centres, those of the better half).

    All spans are searched for in step, as in `varying_tokens_over`: a processor overlaps searches that do not depend on
    each other.
    """
    count, num_high = counts
    first, place = order[2], order[0]
    for i in range(count):
        wide = i < num_high and order[1, i] >= 0
        anchor = order[1, i] if wide else order[2, i]
        spans[i, 2], spans[i, 3] = anchor, wide
        first[i] = anchor if wide else anchor + task.offset
        place[i] = 0
    size = task.num_tokens
    while size > 1:
        half = size >> 1
        for i in range(count):
            place[i] += half * np.int64(start[np.uint64(place[i] + half)] <= first[i])
        size -= half
    for i in range(count):
        end = first[i] + (task.n if spans[i, 3] else 1)
        hi = place[i]
        while hi < task.num_tokens and start[hi] < end:
            hi += 1
        spans[i, 0], spans[i, 1] = place[i], hi
