"""Where the spans of a row go: random centres, and the four ways to lay spans by them.

Every random number of a row comes from its row key, in one stream per purpose (``fold(row_key, STREAM)``), so that the
corruption mode cannot move a span and a tie cannot move a centre. A laid span is four numbers: ``lo`` and ``hi``
(half-open token positions, clipped to the row), ``anchor`` (the token position it was laid around) and ``wide`` (1
when it reaches k-1 tokens to either side and so hides the whole k-mer). Spans stand in order of priority: a budget
keeps the first ones.
"""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.jit import jit
from gemsdata.kernels.keys import below, draw, fold
from gemsdata.kernels.random_streams import RowStream

CENTRES = np.uint64(RowStream.CENTRES)
CORRUPTION = np.uint64(RowStream.CORRUPTION)
TIES = np.uint64(RowStream.TIES)
LENGTHS = np.uint64(RowStream.LENGTHS)
TRIM = np.uint64(RowStream.TRIM)

WINDOW, LENGTH_RANGE, BEST_OF_WINDOW, BEST_OF_ROW = range(4)
"""Methods: a fixed window round each centre; a window of random length; genemask's; global's"""

GUIDE_BITS = 10
_GUIDE_SHIFT = np.uint64(64 - GUIDE_BITS)
_ONE = np.uint64(1)
_POSITION_BITS = 32
_POSITION = (1 << _POSITION_BITS) - 1
_SKIPPED = 1 << 60
_TAKEN = (1 << 62) - 1


@jit
def bernoulli_centres(key: np.uint64, num_tokens: int, tail: np.ndarray, guide: np.ndarray, centre: np.ndarray) -> int:
    """Write the tokens chosen independently with probability p, in order of position, to ``centre``; return how many.

    One draw per chosen token instead of one per token: the gap before the next one is the number of ``tail[g]`` =
    floor((1-p)**(g+1) * 2**64) above the draw (uint64, falling); ``guide[h]`` is the smallest gap of the draws whose
    top bits are ``h``, from where to count on.
    """
    key = fold(key, CENTRES)
    count = 0
    token_pos = -1
    while True:
        bits = draw(key, np.uint64(count))
        gap = int(guide[int(bits >> _GUIDE_SHIFT)])
        while gap < tail.size and bits < tail[gap]:
            gap += 1
        token_pos += gap + 1
        if token_pos >= num_tokens:
            return count
        centre[count] = token_pos
        count += 1


@jit
def shuffled_centres(key: np.uint64, num_tokens: int, first: int, last: int, centre: np.ndarray) -> None:
    """Continue a Fisher-Yates shuffle of the row's token positions in ``centre`` from place ``first`` up to ``last``.

    The first n places are n distinct uniform positions; with ``first`` = 0 the shuffle starts afresh.
    """
    key = fold(key, CENTRES)
    if first == 0:
        for t in range(num_tokens):
            centre[t] = t
    for i in range(first, last):
        j = i + np.int64(below(draw(key, np.uint64(i)), np.uint64(num_tokens - i)))
        chosen = centre[j]
        centre[j] = centre[i]
        centre[i] = chosen


@jit
def wins_tie(tie_key: np.uint64, a: int, b: int) -> bool:
    """Return whether token position ``a`` goes before ``b`` when their ranks are equal: the smaller draw does."""
    return draw(tie_key, np.uint64(a)) < draw(tie_key, np.uint64(b))


@jit
def lay(at: int, anchor: int, left: int, right: int, num_tokens: int, wide: int, spans: np.ndarray) -> None:
    """Write anchor-left .. anchor+right (inclusive), clipped to the row, to spans[at] = (lo, hi, anchor, wide)."""
    spans[at, 0] = max(0, anchor - left)
    spans[at, 1] = min(num_tokens, anchor + right + 1)
    spans[at, 2] = anchor
    spans[at, 3] = wide


@jit
def lay_windows(
    centre: np.ndarray, count: int, num_tokens: int, left: int, right: int, k: int, at: int, spans: np.ndarray
) -> int:
    """Lay centre-left .. centre+right around every centre."""
    wide = 1 if left == k - 1 and right == k - 1 else 0
    for i in range(count):
        lay(at + i, centre[i], left, right, num_tokens, wide, spans)
    return count


@jit
def lay_lengths(
    key: np.uint64, centre: np.ndarray, count: int, num_tokens: int, low: int, high: int, at: int, spans: np.ndarray
) -> int:
    """Lay low..high tokens (uniform, drawn by the centre's position) around every centre, an odd one to the right."""
    key = fold(key, LENGTHS)
    for i in range(count):
        length = low + np.int64(below(draw(key, np.uint64(centre[i])), np.uint64(high - low + 1)))
        left = (length - 1) // 2
        lay(at + i, centre[i], left, length - 1 - left, num_tokens, 0, spans)
    return count


@jit
def lay_best_of_windows(
    key: np.uint64,
    centre: np.ndarray,
    count: int,
    num_tokens: int,
    ids: np.ndarray,
    ranks: np.ndarray,
    k: int,
    min_high: int,
    order: np.ndarray,
    at: int,
    spans: np.ndarray,
) -> int:
    """Lay GeneMask's spans: wide round the best token near the better half of the centres, narrow round the others.

    Each centre takes the best-ranked of the k tokens that cover its base; the centres are sorted by that rank, best
    first. The better ceil(count/2) get the wide span (all of them when that is fewer than ``min_high``). ``order`` is
    scratch, int64[>= count, 3]: rank, best token position, centre.
    """
    key = fold(key, TIES)
    left, right = (k - 1) // 2, k // 2
    for i in range(count):
        c = centre[i]
        first, last = max(0, c - left), min(num_tokens, c + right + 1)
        best = first
        best_rank = np.int64(ranks[ids[first]])
        tied = False
        for t in range(first + 1, last):
            rank = np.int64(ranks[ids[t]])
            better = rank < best_rank
            tied = rank == best_rank or (tied and not better)
            best = t if better else best
            best_rank = rank if better else best_rank
        if tied:
            for t in range(best + 1, last):
                if ranks[ids[t]] == best_rank and wins_tie(key, t, best):
                    best = t
        j = i
        while j > 0 and (
            best_rank < order[j - 1, 0] or (best_rank == order[j - 1, 0] and wins_tie(key, c, order[j - 1, 2]))
        ):
            order[j, 0] = order[j - 1, 0]
            order[j, 1] = order[j - 1, 1]
            order[j, 2] = order[j - 1, 2]
            j -= 1
        order[j, 0] = best_rank
        order[j, 1] = best
        order[j, 2] = c
    num_high = (count + 1) // 2
    if num_high < min_high:
        num_high = count
    for i in range(num_high):
        lay(at + i, order[i, 1], k - 1, k - 1, num_tokens, 1, spans)
    for i in range(num_high, count):
        lay(at + i, order[i, 2], left, right, num_tokens, 0, spans)
    return count


@jit
def lay_best_of_row(
    key: np.uint64,
    count: int,
    num_tokens: int,
    ids: np.ndarray,
    ranks: np.ndarray,
    k: int,
    reach: int,
    to_the_end: bool,
    place: np.ndarray,
    at: int,
    spans: np.ndarray,
) -> int:
    """Lay wide spans round the ``count`` best-ranked tokens of the row, best first; return how many were laid.

    Tokens within ``reach`` positions of one chosen before are skipped; once no other is left, stop, or with
    ``to_the_end`` go on with the skipped ones. ``place`` is scratch, int64[>= num_tokens]: rank and position in one
    number, so that the minimum is the best token; skipped ones are raised above all others.
    """
    key = fold(key, TIES)
    for t in range(num_tokens):
        place[t] = (np.int64(ranks[ids[t]]) << _POSITION_BITS) | t
    for i in range(count):
        best = _TAKEN
        for t in range(num_tokens):
            best = min(best, place[t])
        if best == _TAKEN or (best >= _SKIPPED and not to_the_end):
            return i
        ties = 0
        for t in range(num_tokens):
            ties += place[t] >> _POSITION_BITS == best >> _POSITION_BITS
        best_pos = best & _POSITION
        if ties > 1:
            for t in range(best_pos + 1, num_tokens):
                if place[t] >> _POSITION_BITS == best >> _POSITION_BITS and wins_tie(key, t, best_pos):
                    best_pos = t
        lay(at + i, best_pos, k - 1, k - 1, num_tokens, 1, spans)
        for t in range(max(0, best_pos - reach), min(num_tokens, best_pos + reach + 1)):
            if place[t] < _SKIPPED:
                place[t] += _SKIPPED
        place[best_pos] = _TAKEN
    return count
