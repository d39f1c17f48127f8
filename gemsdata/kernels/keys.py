"""Counter-based random keys: every random number is a pure function of named integers.

A key is folded from words (seed, epoch, row, ...) with the finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA
2014); draw number ``n`` under a key is the n-th output of splitmix64 seeded by that key. There is no stored state, so a
worker, a rank or a resumed run computes the same number from the same words.
"""

from __future__ import annotations

import functools

import numpy as np

from gemsdata.kernels.jit import jit
from gemsdata.kernels.random_streams import RandomStream

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_ONE = np.uint64(1)
_S11 = np.uint64(11)
_S27 = np.uint64(27)
_S30 = np.uint64(30)
_S31 = np.uint64(31)
_S32 = np.uint64(32)
_LOW32 = np.uint64(0xFFFFFFFF)
_UNIT53 = 1.0 / 9007199254740992.0


@jit
def mix64(x: np.uint64) -> np.uint64:
    """Scramble 64 bits; a bijection (finaliser of splitmix64)."""
    x = (x ^ (x >> _S30)) * _MULTIPLIER_1
    x = (x ^ (x >> _S27)) * _MULTIPLIER_2
    return x ^ (x >> _S31)


@jit
def fold(key: np.uint64, word: np.uint64) -> np.uint64:
    """Return the key made from ``key`` and one more word; the order of the words matters."""
    return mix64((key ^ mix64(word + _GOLDEN)) + _GOLDEN)


@jit
def draw(key: np.uint64, counter: np.uint64) -> np.uint64:
    """Return 64 uniform bits: draw number ``counter`` (0, 1, ...) under ``key``."""
    return mix64(key + (counter + _ONE) * _GOLDEN)


@jit
def unit(bits: np.uint64) -> float:
    """Map 64 uniform bits to a float64 uniform in [0, 1), by the top 53 bits."""
    return float(bits >> _S11) * _UNIT53


@jit
def below(bits: np.uint64, n: np.uint64) -> np.uint64:
    """Map 64 uniform bits to an integer in [0, n), n < 2**32, by multiplying the top 32 bits (bias below 2**-32 n)."""
    return ((bits >> _S32) * n) >> _S32


@jit
def fill_keys(base: np.uint64, words: np.ndarray, out: np.ndarray) -> None:
    """Fold the words of each row of uint64[m, c] into ``base`` and write the keys to out uint64[m]."""
    for i in range(words.shape[0]):
        key = base
        for j in range(words.shape[1]):
            key = fold(key, words[i, j])
        out[i] = key


def row_keys(seed: int, epoch: int, stage: int, rows: np.ndarray) -> np.ndarray:
    """Return the keys (uint64[B]) that mask rows (integers[B], global row ids) under (seed, epoch, stage)."""
    rows = np.ascontiguousarray(rows, dtype=np.uint64)
    out = np.empty(rows.size, np.uint64)
    fill_keys(np.uint64(_mask_key(seed, epoch, stage)), rows.reshape(-1, 1), out)
    return out


@functools.lru_cache(64)
def _mask_key(seed: int, epoch: int, stage: int) -> int:
    return key_of(seed, RandomStream.MASK, epoch, stage)


def key_of(*words: int) -> int:
    """Return the 64-bit key of a sequence of non-negative words (< 2**64)."""
    key = np.uint64(0)
    for word in words:
        key = np.uint64(fold(key, np.uint64(word)))  # a kernel returns a Python int
    return int(key)


def keys_of(first_words: tuple[int, ...], words: np.ndarray) -> np.ndarray:
    """Return key_of(*first_words, *words[i]) for every row of integers[m, c], uint64[m]."""
    words = np.ascontiguousarray(words, dtype=np.uint64)
    out = np.empty(len(words), np.uint64)
    fill_keys(np.uint64(key_of(*first_words)), words, out)
    return out
