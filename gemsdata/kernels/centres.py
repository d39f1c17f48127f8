"""Random centres of spans: independent with a given probability, or the first places of a shuffle.

Every random number of a row comes from its row key, in one stream per purpose (``fold(row_key, STREAM)``), so that the
corruption mode does not change the spans, and a tie does not change the centres.
"""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.jit import jit
from gemsdata.kernels.keys import below, draw, fold
from gemsdata.kernels.random_streams import RowStream

CENTRES = np.uint64(RowStream.CENTRES)
GUIDE_BITS = 10
_GUIDE_SHIFT = np.uint64(64 - GUIDE_BITS)


@jit
def bernoulli_centres(key: np.uint64, num_places: int, tail: np.ndarray, guide: np.ndarray, centre: np.ndarray) -> int:
    """Write the places chosen independently with probability p, in order, to ``centre``; return how many.

    There is one draw per chosen place, not per place: the gap before the next one is the number of entries ``tail[g]``
    = floor((1-p)**(g+1) * 2**64) above the draw (uint64, decreasing); ``guide[h]`` is the smallest gap of draws whose
    top bits are ``h``, where the search begins.
    """
    key = fold(key, CENTRES)
    count = 0
    place = -1
    while True:
        bits = draw(key, np.uint64(count))
        gap = int(guide[int(bits >> _GUIDE_SHIFT)])
        while gap < tail.size and bits < tail[gap]:
            gap += 1
        place += gap + 1
        if place >= num_places:
            return count
        centre[count] = place
        count += 1


@jit
def shuffled_centres(key: np.uint64, num_places: int, first: int, last: int, centre: np.ndarray) -> None:
    """Continue a Fisher-Yates shuffle of the row's places in ``centre`` from position ``first`` up to ``last``.

    The first n positions are n distinct uniform places; with ``first`` = 0 the shuffle starts afresh.
    """
    key = fold(key, CENTRES)
    if first == 0:
        for place in range(num_places):
            centre[place] = place
    for i in range(first, last):
        j = i + np.int64(below(draw(key, np.uint64(i)), np.uint64(num_places - i)))
        chosen = centre[j]
        centre[j] = centre[i]
        centre[i] = chosen
