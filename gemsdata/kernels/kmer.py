"""Loops over bases: packing, finding intervals, counting n-grams, cutting windows into token ids.

Packed DNA holds four bases per byte, the first in the highest bits, with the digits of the vocabulary: A0 T1 C2 G3.
"""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.jit import jit
from gemsdata.kernels.keys import below, draw, unit
from gemsdata.kernels.special_ids import NUM_SPECIAL

NOT_ACGT = 0
SOFT_MASKED = 1
BLOCK = 64


@jit
def pack(letters: np.ndarray, out: np.ndarray) -> None:
    """Pack ASCII letters uint8[n] to out uint8[ceil(n / 4)]; a letter other than ACGT gets an arbitrary digit.

    The digit is computed from the letter's bits 1 and 2 (A 00, T 10, C 01, G 11), without a table, so that the compiler
    vectorises the loop: 27 Gbase/s, instead of 4 with a table.
    """
    whole = letters.size // 4
    for b in range(whole):
        byte = np.uint8(0)
        for j in range(4):
            x = letters[4 * b + j]
            byte = np.uint8((byte << 2) | (x & 2) | ((x >> 2) & 1))
        out[b] = byte
    if whole < out.size:
        byte = np.uint8(0)
        for j in range(4):
            i = 4 * whole + j
            x = letters[i] if i < letters.size else np.uint8(65)
            byte = np.uint8((byte << 2) | (x & 2) | ((x >> 2) & 1))
        out[whole] = byte


@jit
def clear(packed: np.ndarray, intervals: np.ndarray) -> None:
    """Set the bases of intervals int64[m, 2] (half-open) to digit 0 in packed."""
    for m in range(intervals.shape[0]):
        for i in range(intervals[m, 0], intervals[m, 1]):
            packed[i >> 2] &= ~np.uint8(3 << (6 - 2 * (i & 3)))


@jit
def _is_soft(letter: np.uint8) -> np.uint8:
    return np.uint8((letter >> 6) & (letter >> 5) & 1)


@jit
def _is_gap(letter: np.uint8) -> np.uint8:
    upper = np.uint8(letter & 0xDF)
    return np.uint8((upper != 65) & (upper != 67) & (upper != 71) & (upper != 84))


@jit
def count_flags(letters: np.ndarray, what: int, out: np.ndarray) -> None:
    """Write to out uint8[letters.size // 64] how many letters of each block of 64 are not ACGT, or are lower case.

    Counts are bytes, blocks have constant size, and the loop does nothing else, because only then does the compiler
    vectorise it (30 Gbase/s, not 3).
    """
    for b in range(out.size):
        block = letters[b * BLOCK : b * BLOCK + BLOCK]
        count = np.uint8(0)
        if what == SOFT_MASKED:
            for j in range(BLOCK):
                count = np.uint8(count + _is_soft(block[j]))
        else:
            for j in range(BLOCK):
                count = np.uint8(count + _is_gap(block[j]))
        out[b] = count


@jit
def find_intervals(letters: np.ndarray, what: int, flags: np.ndarray, state: np.ndarray, out: np.ndarray) -> int:
    """Write the maximal intervals of ``letters`` that are not ACGT, or that are lower case, to out int64[m, 2].

    ``flags`` is the output of count_flags; it lets blocks without a change be skipped. ``state`` int64[2] holds (next
    position, start of the open interval or -1) and begins as (0, -1). Returns the number of intervals written; call
    again while state[0] < letters.size (``out`` was full). The last interval is closed at the end.
    """
    n = letters.size
    i = state[0]
    opened = state[1]
    found = 0
    while i < n:
        stop = min(i + BLOCK, n)
        if stop - i == BLOCK and flags[i // BLOCK] == (0 if opened < 0 else BLOCK):
            i = stop
            continue
        if found + BLOCK > out.shape[0]:
            break
        while i < stop:
            flag = _is_soft(letters[i]) if what == SOFT_MASKED else _is_gap(letters[i])
            if flag == 1 and opened < 0:
                opened = i
            elif flag == 0 and opened >= 0:
                out[found, 0] = opened
                out[found, 1] = i
                found += 1
                opened = -1
            i += 1
    if i == n and opened >= 0:
        out[found, 0] = opened
        out[found, 1] = n
        found += 1
        opened = -1
    state[0] = i
    state[1] = opened
    return found


@jit
def _digit(packed: np.ndarray, i: int) -> np.uint8:
    """Return digit 0..3 of base i."""
    return (packed[i >> 2] >> (6 - 2 * (i & 3))) & 3


@jit
def _increment(v: np.uint64, low: np.ndarray, high: np.ndarray) -> None:
    low[v] = np.uint8(low[v] + np.uint8(1))
    if low[v] == 0:
        high[v] += 256


@jit
def count_runs(packed: np.ndarray, runs: np.ndarray, n: int, low: np.ndarray, high: np.ndarray) -> None:
    """Count every n-gram that lies in one of runs int64[m, 2] (half-open, disjoint).

    A count is ``high[v] + low[v]``: low uint8[4**n] wraps into high int64[4**n] by 256, because at n = 10 the bytes
    fit in the level-2 cache and 32-bit counters do not (15 % faster on random DNA).
    """
    mask = np.uint64((1 << (2 * n)) - 1)
    for m in range(runs.shape[0]):
        i = runs[m, 0]
        end = runs[m, 1]
        if end - i < n:
            continue
        window = np.uint64(0)
        first = i + n - 1
        while i < first:
            window = (window << np.uint64(2)) | np.uint64(_digit(packed, i))
            i += 1
        while i < end and (i & 3) != 0:
            window = (window << np.uint64(2)) | np.uint64(_digit(packed, i))
            _increment(window & mask, low, high)
            i += 1
        for b in range(i >> 2, end >> 2):
            window = (window << np.uint64(8)) | np.uint64(packed[b])
            for shift in (6, 4, 2, 0):
                _increment((window >> np.uint64(shift)) & mask, low, high)
        i = max(i, end & ~3)
        while i < end:
            window = (window << np.uint64(2)) | np.uint64(_digit(packed, i))
            _increment(window & mask, low, high)
            i += 1


@jit
def count_last(packed: np.ndarray, runs: np.ndarray, n: int, out: np.ndarray) -> None:
    """Count in out int64[4**n] the last n-gram of every run: the one that begins no (n+1)-gram."""
    for m in range(runs.shape[0]):
        end = runs[m, 1]
        if end - runs[m, 0] < n:
            continue
        value = np.int64(0)
        for i in range(end - n, end):
            value = (value << 2) | np.int64(_digit(packed, i))
        out[value] += 1


@jit
def cut_pieces(
    first: int, end: int, full_bases: int, shortest_bases: int, longest_bases: int, key: np.uint64, out: np.ndarray
) -> int:
    """Cut [first, end) into DNABERT's pieces: full length with probability 0.5, else uniform in shortest..longest.

    Writes (start, end) to out int64[m, 2] as long as they fit, and returns the number of pieces. The last piece is
    truncated at ``end``.
    """
    pieces = 0
    position = first
    while position < end:
        length = full_bases
        if unit(draw(key, np.uint64(2 * pieces))) >= 0.5:
            span = np.uint64(longest_bases - shortest_bases + 1)
            length = shortest_bases + int(below(draw(key, np.uint64(2 * pieces + 1)), span))
        stop = min(position + length, end)
        if pieces < out.shape[0]:
            out[pieces, 0] = position
            out[pieces, 1] = stop
        pieces += 1
        position = stop
    return pieces


@jit
def bases_of_kmers(ids: np.ndarray, num_tokens: np.ndarray, k: int, bases: np.ndarray) -> None:
    """Write the bases of rows of overlapping k-mers to uint8[B, L+k-1]: 4 where all are unknown, 0 beyond."""
    for i in range(num_tokens.size):
        bases[i, :] = 0
        if num_tokens[i] > 0:
            bases[i, : num_tokens[i] + k - 1] = 4
        for t in range(num_tokens[i]):
            value = np.int64(ids[i, t]) - NUM_SPECIAL
            if value >= 0:
                if t == 0 or ids[i, t - 1] < NUM_SPECIAL:
                    for j in range(k - 1):
                        bases[i, t + j] = (value >> (2 * (k - 1 - j))) & 3
                bases[i, t + k - 1] = value & 3


@jit
def tokenize_rows(packed: np.ndarray, base_offset: np.ndarray, num_tokens: np.ndarray, k: int, out: np.ndarray) -> None:
    """Write the token ids of windows to out [B, L] (uint16 or uint32).

    Row b begins at base base_offset[b] (int64) of packed and has num_tokens[b] tokens. Positions from there on become
    [PAD] = 0.
    """
    mask = np.uint64((1 << (2 * k)) - 1)
    special = np.uint64(NUM_SPECIAL)
    for row in range(base_offset.size):
        i = base_offset[row]
        tokens = np.int64(num_tokens[row])
        value = np.uint64(0)
        for _ in range(k - 1):
            value = (value << np.uint64(2)) | np.uint64(_digit(packed, i))
            i += 1
        for t in range(tokens):
            value = ((value << np.uint64(2)) | np.uint64(_digit(packed, i))) & mask
            out[row, t] = value + special
            i += 1
        for t in range(tokens, out.shape[1]):
            out[row, t] = 0
