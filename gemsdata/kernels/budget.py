"""Exact budgets: keep the first spans, trimmed so that the row reaches its target in tokens or in hidden bases."""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.jit import jit
from gemsdata.kernels.keys import draw, fold
from gemsdata.kernels.spans import TRIM

_ONE = np.uint64(1)


@jit
def newly_hidden(masked: np.ndarray, token_pos: int, k: int) -> int:
    """Return how many bases no unmasked token shows any more once ``token_pos`` is masked as well.

    ``masked`` is uint8[T + 2(k-1)], the row's mask between k-1 ones on either side (bases at an end of the row are
    covered by fewer tokens, as if those beyond it were masked). Between ``left`` and ``right`` masked neighbours the
    run hides left + 1 + right - (k-1) bases, of which those that this token covers are new.
    """
    i = token_pos + k - 1
    left = 0
    while left < k - 1 and masked[i - 1 - left]:
        left += 1
    right = 0
    while right < k - 1 and masked[i + 1 + right]:
        right += 1
    return max(0, left + right - k + 2)


@jit
def trim(
    key: np.uint64,
    num_tokens: int,
    k: int,
    by_base: bool,
    target: int,
    masked: np.ndarray,
    first: int,
    last: int,
    spans: np.ndarray,
) -> int:
    """Shorten spans[first:last] in place so that together they mask (``by_base``: hide) no more than ``target``.

    Each span grows token by token, from its left or its right end as one bit of the row key says, up to the first token
    that would exceed the target. Returns where the kept spans end, or -1 when they do not reach the target.
    ``masked`` is scratch, uint8[>= num_tokens + 2(k-1)].
    """
    from_right = (draw(fold(key, TRIM), np.uint64(0)) & _ONE) == _ONE
    masked[: num_tokens + 2 * (k - 1)] = 1
    masked[k - 1 : num_tokens + k - 1] = 0
    total = 0
    for j in range(first, last):
        if total == target:
            return j
        lo, hi = spans[j, 0], spans[j, 1]
        kept = 0
        while kept < hi - lo:
            t = hi - 1 - kept if from_right else lo + kept
            if not masked[t + k - 1]:
                gain = newly_hidden(masked, t, k) if by_base else 1
                if total + gain > target:
                    break
                masked[t + k - 1] = 1
                total += gain
            kept += 1
            if total == target:
                break
        if from_right:
            spans[j, 0] = hi - kept
        else:
            spans[j, 1] = lo + kept
    return last if total == target else -1
