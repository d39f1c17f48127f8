"""Spans over the best-ranked n-grams of a row, for `global` and its variants.

Meanwhile, RANK of the work space holds the rank of every n-gram; `_SKIPPED` is added to ranks near a chosen n-gram, and
the chosen ones are set to `_TAKEN`, so that neither is found again.
"""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.jit import jit, jit_inline
from gemsdata.kernels.keys import fold
from gemsdata.kernels.layout import Task, uniform_tokens_over
from gemsdata.kernels.sort import sort_order, wins_tie
from gemsdata.kernels.spans import BINS, NEVER, ORDER, RANK, TIES, fill_ranks, forbid, write_span

NUM_BINS = 256
_SKIPPED = 1 << 32
_TAKEN = 1 << 33
_FEW = 64
_BLOCK = 32


@jit
def place_best_of_row(
    task: Task, marks: np.ndarray, source: np.ndarray, ranks: np.ndarray, work: np.ndarray, spans: np.ndarray
) -> int:
    """Write spans over the ``task.wanted`` best-ranked n-grams of the row, best first; return how many.

    n-grams within ``task.first`` of one chosen before are skipped; once no other is left, stop, or (``task.exact``) go
    on with the skipped ones.
    """
    wanted, grams = task.wanted, task.num_grams
    rank = work[RANK, :grams]
    fill_ranks(task, source, ranks, (0, grams), rank)
    if task.restricted:
        forbid(task, marks, (0, grams), rank)
    if wanted <= _FEW:
        chosen, placed = _place_few(task, marks, rank, work[BINS], spans)
    else:
        chosen, placed = _place_many(task, marks, rank, work, spans)
    if task.exact and task.first > 0 and chosen < wanted:
        placed = _place_skipped(task, marks, chosen, placed, work, spans)
    return placed


@jit_inline
def _place(task: Task, marks: np.ndarray, gram: int, rank: np.ndarray, spans: np.ndarray, placed: int) -> int:
    """Write the span over an n-gram and skip those near it; return the number of spans."""
    skip = task.first
    for near in range(max(0, gram - skip), min(rank.size, gram + skip + 1)):
        rank[near] += _SKIPPED if rank[near] < _SKIPPED else 0
    rank[gram] = _TAKEN
    if task.restricted or task.varies:
        return write_span(task, marks, (gram, gram + task.n), (gram, 1), spans, placed)
    lo, hi = uniform_tokens_over(task, gram, gram + task.n)
    spans[placed, 0], spans[placed, 1], spans[placed, 2], spans[placed, 3] = lo, hi, gram, 1
    return placed + 1


@jit_inline
def _least_of(rank: np.ndarray, block: int) -> int:
    """Return the best rank of a block."""
    least = _TAKEN
    values = rank[block * _BLOCK : (block + 1) * _BLOCK]
    for i in range(values.size):
        least = min(least, values[i])
    return least


@jit_inline
def _places_of(values: np.ndarray, wanted: int) -> tuple[int, int]:
    """Return how many values equal ``wanted``, and the sum of their indices: the index, if there is one."""
    count, places = 0, 0
    for i in range(values.size):
        count += values[i] == wanted
        places += i if values[i] == wanted else 0
    return count, places


@jit
def _winner(rank: np.ndarray, least: np.ndarray, best_rank: int, tie_key: np.uint64) -> int:
    """Return the n-gram that wins the tie among all n-grams of the best rank."""
    best = -1
    for block in range(least.size):
        if least[block] == best_rank:
            for g in range(block * _BLOCK, min(rank.size, (block + 1) * _BLOCK)):
                if rank[g] == best_rank and (best < 0 or wins_tie(tie_key, g, best)):
                    best = g
    return best


@jit
def _place_few(
    task: Task, marks: np.ndarray, rank: np.ndarray, least: np.ndarray, spans: np.ndarray
) -> tuple[int, int]:
    """Write spans one by one, each over the best n-gram left; return (n-grams chosen, spans).

    ``least`` keeps the best rank of every block, so that choosing an n-gram scans all blocks but only a few n-grams.
    """
    skip, tie_key = task.first, fold(task.key, TIES)
    num_blocks = (rank.size + _BLOCK - 1) // _BLOCK
    for block in range(num_blocks):
        least[block] = _least_of(rank, block)
    placed = 0
    for chosen in range(task.wanted):
        best_rank = NEVER
        for block in range(num_blocks):
            best_rank = min(best_rank, least[block])
        if best_rank == NEVER:
            return chosen, placed
        num_equal, block = _places_of(least[:num_blocks], best_rank)
        if num_equal == 1:
            num_equal, place = _places_of(rank[block * _BLOCK : (block + 1) * _BLOCK], best_rank)
            best = block * _BLOCK + place
        if num_equal > 1:
            best = _winner(rank, least[:num_blocks], best_rank, tie_key)
        placed = _place(task, marks, best, rank, spans, placed)
        for block in range(max(0, best - skip) // _BLOCK, min(rank.size - 1, best + skip) // _BLOCK + 1):
            least[block] = _least_of(rank, block)
    return task.wanted, placed


@jit
def _place_many(
    task: Task, marks: np.ndarray, rank: np.ndarray, work: np.ndarray, spans: np.ndarray
) -> tuple[int, int]:
    """Write spans over the best n-grams, sorted; return (n-grams chosen, spans).

    A histogram of the ranks gives the rank down to which n-grams are needed; those are sorted, so that the cost is a
    few passes over the row. If skipping leaves too few, the next ranks follow, twice as many each time.
    """
    tie_key, order, histogram = fold(task.key, TIES), work[ORDER : ORDER + 3], work[BINS]
    shift = max(0, 2 * task.n - 8)
    _count_ranks(rank, shift, histogram)
    chosen, placed = 0, 0
    first_bin, more = 0, task.wanted
    while chosen < task.wanted and first_bin <= NUM_BINS:
        last_bin, candidates = first_bin, 0
        while last_bin <= NUM_BINS and candidates < more:
            candidates += histogram[last_bin]
            last_bin += 1
        limit = NEVER if last_bin > NUM_BINS else last_bin << shift
        found = _collect(rank, first_bin << shift, limit, order)
        sort_order(order, found, tie_key)
        for i in range(found):
            if chosen == task.wanted:
                break
            gram = order[1, i]
            if rank[gram] < _SKIPPED:
                placed = _place(task, marks, gram, rank, spans, placed)
                chosen += 1
        first_bin, more = last_bin, 2 * max(more, 8)
    return chosen, placed


@jit
def _count_ranks(rank: np.ndarray, shift: int, histogram: np.ndarray) -> None:
    """Count the ranks, shifted right by ``shift``; those beyond NUM_BINS share the last bin."""
    histogram[: NUM_BINS + 1] = 0
    for g in range(rank.size):
        if rank[g] != NEVER:
            histogram[min(NUM_BINS, rank[g] >> shift)] += 1


@jit
def _collect(rank: np.ndarray, first: int, limit: int, order: np.ndarray) -> int:
    """Write the n-grams with a rank of first .. limit-1 to ``order``; return how many."""
    found = 0
    for g in range(rank.size):
        if first <= rank[g] < limit:
            order[0, found], order[1, found], order[2, found] = rank[g], g, g
            found += 1
    return found


@jit
def _place_skipped(task: Task, marks: np.ndarray, chosen: int, placed: int, work: np.ndarray, spans: np.ndarray) -> int:
    """Write spans over the best of the skipped n-grams, after the chosen ones; return the number of spans."""
    rank, order = work[RANK, : task.num_grams], work[ORDER : ORDER + 3]
    found = _collect(rank, _SKIPPED, _SKIPPED + NEVER, order)
    sort_order(order, found, fold(task.key, TIES))
    for i in range(min(found, task.wanted - chosen)):
        g = order[1, i]
        placed = write_span(task, marks, (g, g + task.n), (g, 1), spans, placed)
    return placed
