"""Where the spans of a row go: round random centres, or over the best-ranked n-grams.

A span is a choice of bases that are to be hidden, written as the tokens that touch them. It is four numbers: ``lo`` and
``hi`` (half-open token positions, clipped to the row), ``anchor`` (the place it was put by: an n-gram, a centre or a
token) and ``wide`` (1 when it hides a whole n-gram). Spans stand in order of priority: a budget keeps the first ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gemsdata.kernels.jit import jit, jit_inline
from gemsdata.kernels.keys import below, draw, fold
from gemsdata.kernels.layout import BLOCKED, Task, may_hide, token_span, tokens_over, uniform_tokens_over
from gemsdata.kernels.random_streams import RowStream
from gemsdata.kernels.sort import sort_order, wins_tie
from gemsdata.kernels.special_ids import NUM_SPECIAL

TIES = np.uint64(RowStream.TIES)
LENGTHS = np.uint64(RowStream.LENGTHS)

TOKEN, CENTRE_BASE, CENTRE_GRAM, LENGTH_RANGE, BEST_NEAR_CENTRE, BEST_OF_ROW = range(6)
"""Methods: the token at each centre; the base at it; the n-gram at it; bases of random number; genemask's; global's"""

NEVER = 2**31 - 1
"""rank of an n-gram that may not be hidden"""
NUM_BINS = 256
_SKIPPED, _TAKEN = 1, 2
_FEW = 64
_PLACE_BITS = 32
_PLACE = (1 << _PLACE_BITS) - 1


class Chooser(NamedTuple):
    """What spans are chosen by."""

    method: int
    first: int
    """LENGTH_RANGE: the least span; BEST_OF_ROW: n-grams to skip on either side of a chosen one"""
    second: int
    """LENGTH_RANGE: the greatest span; BEST_NEAR_CENTRE: with fewer wide spans than this all are wide"""
    n: int
    offset: int
    """the base of centre c is c + offset"""
    by_id: bool
    """the n-grams are the tokens: overlapping k-mers with k = n"""
    by_position: bool
    """the rank of n-gram g is ranks[g + 1], whatever stands there"""
    source: np.ndarray
    """token ids [B, L] with ``by_id``, else bases uint8[B, W]"""
    ranks: np.ndarray
    """by id; the last entry is the worst rank"""


CENTRE, ORDER, RANK, STATE, HISTOGRAM, MASKED = 0, 1, 4, 5, 6, 7
"""Rows of the work space int64[>= 8, >= places of a row]: centres; rank, choice, place (three rows); ranks; whether an
n-gram is skipped or taken; how many have a rank; a mask"""
NUM_WORK_ROWS = 8


@jit_inline
def num_places(task: Task) -> int:
    """Return among how many places centres are drawn."""
    if task.method == TOKEN:
        return task.num_tokens
    if task.offset > 0 or task.method == CENTRE_GRAM or task.method == BEST_OF_ROW:
        return task.num_grams
    return task.num_bases


@jit
def fill_ranks(task: Task, source: np.ndarray, ranks: np.ndarray, grams: tuple[int, int], rank: np.ndarray) -> None:
    """Write the ranks of n-grams ``grams`` = (first, last) to rank[0:last-first]."""
    first, last = grams
    if task.by_position:
        for g in range(first, last):
            rank[g - first] = ranks[min(g + 1, ranks.size - 1)]
    elif task.by_id:
        for g in range(first, last):
            rank[g - first] = ranks[source[task.row, g]]
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
def _forbid(task: Task, marks: np.ndarray, grams: tuple[int, int], rank: np.ndarray) -> None:
    """Set the rank of n-grams first .. last-1 that may not be hidden to NEVER."""
    for g in range(grams[0], grams[1]):
        if not may_hide(task, marks, g, g + task.n):
            rank[g - grams[0]] = NEVER


@jit
def write_span(
    task: Task, marks: np.ndarray, hidden: tuple[int, int], anchor: tuple[int, int], spans: np.ndarray, count: int
) -> int:
    """Write the tokens that touch the bases ``hidden`` = (first, end) to spans[count]; ``anchor`` = (place, wide).

    Returns the number of spans, which stays where a base may not be hidden.
    """
    if not may_hide(task, marks, hidden[0], hidden[1]):
        return count
    lo, hi = tokens_over(task, marks, hidden[0], hidden[1])
    spans[count, 0], spans[count, 1], spans[count, 2], spans[count, 3] = lo, hi, anchor[0], anchor[1]
    return count + 1


@jit
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
        if end <= first and task.offset == 0:  # fewer than n k-mers hide no base; a span hides one at least
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
    left out. Where no n-gram over the base may be hidden, the n-gram is -1.
    """
    n, row, rank = task.n, task.row, work[RANK]
    tie_key = fold(task.key, TIES)
    kept = which[2]
    for i in range(which[0], which[1]):
        c = work[CENTRE, i]
        b = c + task.offset
        if task.restricted and not may_hide(task, marks, b, b + 1):
            continue
        first, last = max(0, b - n + 1), min(task.num_grams, b + 1)
        if task.by_id:
            for g in range(first, last):
                rank[g - first] = ranks[source[row, g]]
        else:
            fill_ranks(task, source, ranks, (first, last), rank)
        if task.restricted:
            _forbid(task, marks, (first, last), rank)
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
def num_high_of(task: Task, count: int) -> int:
    """Return how many of GeneMask's centres hide a whole n-gram: the better half, or all when that is too few."""
    num_high = (count + 1) // 2
    return count if num_high < task.second else num_high


@jit
def place_high_and_low(task: Task, marks: np.ndarray, count: int, order: np.ndarray, spans: np.ndarray) -> int:
    """Write GeneMask's spans: the better centres hide the n-gram that they found, the others their own base."""
    num_high = num_high_of(task, count)
    simple = not (task.restricted or task.varies)
    placed = 0
    for i in range(count):
        gram, c = order[1, i], order[2, i]
        wide = i < num_high and gram >= 0
        anchor = gram if wide else c
        first = gram if wide else c + task.offset
        end = first + task.n if wide else first + 1
        if simple:
            lo, hi = uniform_tokens_over(task, first, end)
            spans[placed, 0], spans[placed, 1], spans[placed, 2], spans[placed, 3] = lo, hi, anchor, wide
            placed += 1
        else:
            placed = write_span(task, marks, (first, end), (anchor, np.int64(wide)), spans, placed)
    return placed


@jit
def place_best_of_row(
    task: Task, marks: np.ndarray, source: np.ndarray, ranks: np.ndarray, work: np.ndarray, spans: np.ndarray
) -> int:
    """Write spans over the ``task.wanted`` best-ranked n-grams of the row, best first; return how many.

    n-grams within ``task.first`` of one chosen before are skipped; once no other is left, stop, or (``task.exact``) go
    on with the skipped ones.

    Few are found by keeping the best so far. For many, a histogram of the ranks says down to which rank n-grams must be
    looked at; those are sorted, so that the cost is that of a few passes over the row. When skipping leaves too few,
    the next ranks follow, twice as many each time.
    """
    wanted, grams, skip = task.wanted, task.num_grams, task.first
    tie_key = fold(task.key, TIES)
    rank, order = work[RANK], work[ORDER : ORDER + 3]
    fill_ranks(task, source, ranks, (0, grams), rank)
    if task.restricted:
        _forbid(task, marks, (0, grams), rank)
    if skip > 0:
        work[STATE, :grams] = 0
    few = wanted if skip == 0 else wanted + wanted // 2 + 4
    chosen, placed = 0, 0
    if few <= _FEW:
        found = _best_few(rank[:grams], few, work[HISTOGRAM], order, tie_key)
        chosen, placed = _take(task, marks, found, (chosen, placed), work, spans)
        if found < few:
            wanted = chosen
    if chosen < wanted:
        shift = max(0, 2 * task.n - 8)
        _count_ranks(rank[:grams], shift, work[HISTOGRAM])
        first_bin, more = 0, wanted
        while chosen < wanted and first_bin <= NUM_BINS:
            last_bin, candidates = first_bin, 0
            while last_bin <= NUM_BINS and candidates < more:
                candidates += work[HISTOGRAM, last_bin]
                last_bin += 1
            limit = NEVER if last_bin > NUM_BINS else last_bin << shift
            found = _collect(rank[:grams], (first_bin << shift, limit), work[STATE], skip > 0, order)
            sort_order(order, found, tie_key)
            chosen, placed = _take(task, marks, found, (chosen, placed), work, spans)
            first_bin, more = last_bin, 2 * max(more, 8)
    if task.exact and skip > 0 and chosen < task.wanted:
        placed = _place_skipped(task, marks, chosen, placed, work, spans)
    return placed


@jit
def _best_few(rank: np.ndarray, few: int, best: np.ndarray, order: np.ndarray, tie_key: np.uint64) -> int:
    """Write the ``few`` best n-grams, sorted, to ``order``; return how many there are.

    ``best`` is scratch, int64[few].
    """
    found = 0
    worst = NEVER - 1
    for g in range(rank.size if few > 0 else 0):
        if rank[g] > worst:
            continue
        if found == few:
            if rank[g] == worst and not wins_tie(tie_key, g, best[found - 1] & _PLACE):
                continue
            found -= 1
        j, entry = found, rank[g] << _PLACE_BITS | g
        while j > 0 and (
            rank[g] < best[j - 1] >> _PLACE_BITS
            or (rank[g] == best[j - 1] >> _PLACE_BITS and wins_tie(tie_key, g, best[j - 1] & _PLACE))
        ):
            best[j] = best[j - 1]
            j -= 1
        best[j] = entry
        found += 1
        if found == few:
            worst = best[found - 1] >> _PLACE_BITS
    for i in range(found):
        g = best[i] & _PLACE
        order[0, i], order[1, i], order[2, i] = best[i] >> _PLACE_BITS, g, g
    return found


@jit
def _count_ranks(rank: np.ndarray, shift: int, histogram: np.ndarray) -> None:
    """Count the ranks, shifted right by ``shift``; those beyond NUM_BINS share the last bin."""
    histogram[: NUM_BINS + 1] = 0
    for g in range(rank.size):
        if rank[g] != NEVER:
            histogram[min(NUM_BINS, rank[g] >> shift)] += 1


@jit
def _collect(rank: np.ndarray, ranks: tuple[int, int], state: np.ndarray, skipping: bool, order: np.ndarray) -> int:
    """Write the n-grams with a rank of ``ranks`` = (least, limit), half-open, to ``order``; return how many."""
    least, limit = ranks
    found = 0
    for g in range(rank.size):
        if least <= rank[g] < limit and not (skipping and state[g] != 0):
            order[0, found], order[1, found], order[2, found] = rank[g], g, g
            found += 1
    return found


@jit
def _take(
    task: Task, marks: np.ndarray, found: int, so_far: tuple[int, int], work: np.ndarray, spans: np.ndarray
) -> tuple[int, int]:
    """Write the spans of the first entries of the order that are not skipped; return (n-grams chosen, spans)."""
    chosen, placed = so_far
    skip, state = task.first, work[STATE]
    for i in range(found):
        if chosen == task.wanted:
            break
        g = work[ORDER + 1, i]
        if skip > 0:
            if state[g] != 0:
                continue
            for near in range(max(0, g - skip), min(task.num_grams, g + skip + 1)):
                state[near] = max(state[near], _SKIPPED)
            state[g] = _TAKEN
        if task.restricted or task.varies:
            placed = write_span(task, marks, (g, g + task.n), (g, 1), spans, placed)
        else:
            lo, hi = uniform_tokens_over(task, g, g + task.n)
            spans[placed, 0], spans[placed, 1], spans[placed, 2], spans[placed, 3] = lo, hi, g, 1
            placed += 1
        chosen += 1
    return chosen, placed


@jit
def _place_skipped(task: Task, marks: np.ndarray, chosen: int, placed: int, work: np.ndarray, spans: np.ndarray) -> int:
    """Write spans over the best of the skipped n-grams, after the chosen ones; return the number of spans."""
    rank, order, state = work[RANK], work[ORDER : ORDER + 3], work[STATE]
    found = 0
    for g in range(task.num_grams):
        if state[g] == _SKIPPED and rank[g] != NEVER:
            order[0, found], order[1, found], order[2, found] = rank[g], g, g
            found += 1
    sort_order(order, found, fold(task.key, TIES))
    for i in range(min(found, task.wanted - chosen)):
        g = order[1, i]
        placed = write_span(task, marks, (g, g + task.n), (g, 1), spans, placed)
    return placed
