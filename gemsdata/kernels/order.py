"""A keyed permutation of 0..n-1 in O(1) memory: a Feistel network with cycle-walking.

Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.
"""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.jit import jit
from gemsdata.kernels.keys import fold, mix64

ROUNDS = 6  # even, so that the two halves end with their initial widths
_ONE = np.uint64(1)


@jit
def permute(i: np.uint64, n: np.uint64, key: np.uint64) -> np.uint64:
    """Return the image of ``i`` (0 <= i < n) under the permutation of 0..n-1 that ``key`` selects.

    The network permutes the smallest power of two that holds n, so fewer than two walks are needed on average. The
    halves differ by a bit when the width is odd, and swap widths in every round.
    """
    bits = 0
    while (n - _ONE) >> np.uint64(bits) != np.uint64(0):
        bits += 1
    if bits == 0:
        return i
    low_bits = np.uint64(bits // 2)
    high_bits = np.uint64(bits - bits // 2)
    low_mask = (_ONE << low_bits) - _ONE
    high_mask = (_ONE << high_bits) - _ONE
    x = i
    while True:
        left = x >> low_bits
        right = x & low_mask
        for pair in range(ROUNDS // 2):
            left = left ^ (mix64(fold(key, np.uint64(2 * pair)) + right) & high_mask)
            right = right ^ (mix64(fold(key, np.uint64(2 * pair + 1)) + left) & low_mask)
        x = (left << low_bits) | right
        if x < n:
            return x


@jit
def permute_range(first: int, n: int, key: np.uint64, out: np.ndarray) -> None:
    """Write the images of first, first+1, ..., first+out.size-1 (all < n) to ``out`` (int64)."""
    for j in range(out.size):
        out[j] = np.int64(permute(np.uint64(first + j), np.uint64(n), key))
