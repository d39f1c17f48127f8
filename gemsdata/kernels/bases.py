"""Loops over bases of packed blocks: unpacking rows, marking intervals, the other strand, k-mer ids.

Bases are uint8 with the digits of the vocabulary (A0 T1 C2 G3); 4 stands for every other letter.
"""

from __future__ import annotations

import numba
import numpy as np

from gemsdata.kernels.gather import pointer
from gemsdata.kernels.jit import jit

NOT_ACGT = 4
_NUM_SPECIAL = 5
_UNK_ID = 1


@jit
def unpack_rows(
    block_address: np.ndarray,
    first_block: np.ndarray,
    offset: np.ndarray,
    num_bases: np.ndarray,
    block_bases: int,
    out: np.ndarray,
) -> None:
    """Unpack rows of consecutive blocks of 2 bits a base to out uint8[B, W].

    Row i begins at base offset[i] (int64[B]) of the stretch whose first block is first_block[i] (int64[B]) and has
    num_bases[i] (int64[B]) bases; each block holds ``block_bases`` bases (a multiple of 4), and block b lies at address
    block_address[b] (int64). Positions beyond a row's bases are not written.
    """
    block_bytes = block_bases >> 2
    for i in range(offset.size):
        position = offset[i]
        written = np.int64(0)
        count = np.int64(num_bases[i])
        while written < count:
            block = first_block[i] + position // block_bases
            start = position % block_bases
            length = min(count - written, block_bases - start)
            packed = numba.carray(pointer(block_address[block]), (block_bytes,), np.uint8)
            _unpack(packed, start, length, out[i, written : written + length])
            written += length
            position += length


@jit
def _unpack(packed: np.ndarray, start: int, length: int, out: np.ndarray) -> None:
    """Write bases start .. start + length - 1 of ``packed`` to out uint8[length]."""
    head = min(length, (4 - (start & 3)) & 3)
    for j in range(head):
        i = start + j
        out[j] = (packed[i >> 2] >> (6 - 2 * (i & 3))) & 3
    first = (start + head) >> 2
    whole = (length - head) >> 2
    source, body = packed[first : first + whole], out[head:]
    for b in range(source.size):  # from 0: indices that may be negative would prevent vectorisation
        byte = source[b]
        body[4 * b] = byte >> 6
        body[4 * b + 1] = (byte >> 4) & 3
        body[4 * b + 2] = (byte >> 2) & 3
        body[4 * b + 3] = byte & 3
    for j in range(head + 4 * whole, length):
        i = start + j
        out[j] = (packed[i >> 2] >> (6 - 2 * (i & 3))) & 3


@jit
def mark(
    starts: np.ndarray, ends: np.ndarray, row_start: np.ndarray, row_bases: np.ndarray, value: int, out: np.ndarray
) -> None:
    """Set out[i, j] to ``value`` where base row_start[i] + j of row i lies in an interval.

    starts, ends int64[m] are sorted, disjoint, half-open, in the coordinate of row_start int64[B]; out is [B, W].
    """
    for i in range(row_start.size):
        begin = row_start[i]
        stop = begin + row_bases[i]
        low, high = np.int64(0), np.int64(ends.size)
        while low < high:
            middle = (low + high) >> 1
            if ends[middle] <= begin:
                low = middle + 1
            else:
                high = middle
        while low < starts.size and starts[low] < stop:
            first = max(starts[low], begin) - begin
            last = min(ends[low], stop) - begin
            for j in range(first, last):
                out[i, j] = value
            low += 1


@jit
def reverse_rows(flip: np.ndarray, num_bases: np.ndarray, out: np.ndarray) -> None:
    """Reverse the first num_bases[i] (int64[B]) values of out[i] ([B, W]) where flip[i] (uint8[B]) is set."""
    for i in range(flip.size):
        if flip[i] == 0:
            continue
        low, high = np.int64(0), np.int64(num_bases[i]) - 1
        while low < high:
            value = out[i, low]
            out[i, low] = out[i, high]
            out[i, high] = value
            low += 1
            high -= 1


@jit
def reverse_complement_rows(flip: np.ndarray, num_bases: np.ndarray, out: np.ndarray) -> None:
    """Reverse-complement the rows of out uint8[B, W] where flip[i] (uint8[B]) is set; 4 stays 4."""
    for i in range(flip.size):
        if flip[i] == 0:
            continue
        low, high = np.int64(0), np.int64(num_bases[i]) - 1
        while low <= high:
            # the complement of a base flips the lowest bit of its digit (A0-T1, C2-G3)
            left, right = out[i, low], out[i, high]
            out[i, low] = right if right > 3 else right ^ 1
            out[i, high] = left if left > 3 else left ^ 1
            low += 1
            high -= 1


@jit
def _largest(values: np.ndarray) -> int:
    """Return the maximum of uint8[W]; 0 if it is empty."""
    largest = np.uint8(0)
    for i in range(values.size):
        largest = max(largest, values[i])
    return int(largest)


@jit
def _shift_in(bases: np.ndarray, k: int, out: np.ndarray) -> None:
    """Write the ids of all overlapping k-mers of ACGT bases, in one vectorised pass per base of the k-mer.

    Three times as fast as one loop that keeps the last k bases, each step of which depends on the one before.
    """
    for t in range(out.size):
        out[t] = bases[t]
    for j in range(1, k):
        shifted = bases[j:]
        for t in range(out.size):
            out[t] = (out[t] << 2) | shifted[t]
    for t in range(out.size):
        out[t] += _NUM_SPECIAL


@jit
def encode_kmers(bases: np.ndarray, num_tokens: np.ndarray, k: int, stride: int, out: np.ndarray) -> None:
    """Write the ids of k-mers every ``stride`` bases to out [B, L] (uint16 or uint32), 0 beyond num_tokens int64[B].

    bases uint8[B, W], W >= (num_tokens - 1) * stride + k; a k-mer with a base that is not ACGT becomes [UNK] = 1.
    """
    mask = np.uint64((1 << (2 * k)) - 1)
    for i in range(num_tokens.size):
        tokens = np.int64(num_tokens[i])
        if k == 1 and stride == 1:
            for t in range(tokens):
                base = bases[i, t]
                out[i, t] = _UNK_ID if base > 3 else base + _NUM_SPECIAL
        elif stride == 1 and tokens > 0 and _largest(bases[i, : tokens + k - 1]) <= 3:
            _shift_in(bases[i], k, out[i, :tokens])
        elif stride == 1:
            value = np.uint64(0)
            good = 0
            for j in range(min(k - 1, bases.shape[1]) if tokens > 0 else 0):
                base = bases[i, j]
                value = (value << np.uint64(2)) | np.uint64(base & 3)
                good = 0 if base > 3 else good + 1
            for t in range(tokens):
                base = bases[i, t + k - 1]
                value = ((value << np.uint64(2)) | np.uint64(base & 3)) & mask
                good = 0 if base > 3 else good + 1
                out[i, t] = value + np.uint64(_NUM_SPECIAL) if good >= k else np.uint64(_UNK_ID)
        else:
            for t in range(tokens):
                value = np.uint64(0)
                known = True
                for j in range(t * stride, t * stride + k):
                    base = bases[i, j]
                    known &= base < NOT_ACGT
                    value = (value << np.uint64(2)) | np.uint64(base & 3)
                out[i, t] = value + np.uint64(_NUM_SPECIAL) if known else np.uint64(_UNK_ID)
        out[i, tokens:] = 0


@jit
def decode_kmers(ids: np.ndarray, num_tokens: np.ndarray, k: int, stride: int, out: np.ndarray) -> None:
    """Write the bases under rows of k-mers (`encode_kmers`) to out uint8[B, W]; 4 where all k-mers are unknown."""
    for i in range(num_tokens.size):
        tokens = np.int64(num_tokens[i])
        if tokens > 0:
            out[i, : (tokens - 1) * stride + k] = NOT_ACGT
        for t in range(tokens):
            value = np.int64(ids[i, t]) - _NUM_SPECIAL
            if value < 0:
                continue
            # the last bases of a k-mer are the first of the next, if that one is known
            count = stride if t + 1 < tokens and ids[i, t + 1] >= _NUM_SPECIAL else k
            for j in range(count):
                out[i, t * stride + j] = (value >> (2 * (k - 1 - j))) & 3


@jit
def decode_varying(
    ids: np.ndarray,
    num_tokens: np.ndarray,
    words: np.ndarray,
    digits: np.ndarray,
    first: np.ndarray,
    out: np.ndarray,
    start: np.ndarray,
) -> None:
    """Write the bases under rows of tokens to out uint8[B, W], and the start of each token to start int32[B, L + 1].

    Token id v has the bases digits[first[v] : first[v + 1]] (uint8, int64); words[v] (uint64) holds the first eight of
    them, the first in the lowest byte. Beyond a row's tokens, start is the row's end and out is 0; a row ends before a
    token that would extend beyond W.
    """
    width = np.uint64(out.shape[1])
    eight = np.uint64(8)
    for i in range(num_tokens.size):
        row, row_ids, row_start = out[i], ids[i], start[i]
        place = np.uint64(0)  # indices that may be negative cost a comparison
        for t in range(np.uint64(num_tokens[i])):
            row_start[t] = place
            token_id = np.uint64(row_ids[t])
            low = np.uint64(first[token_id])
            length = min(np.uint64(first[token_id + np.uint64(1)]) - low, width - place)
            copied = np.uint64(0)
            if place + eight <= width:  # what is too much is written over
                word = words[token_id]
                for j in range(np.uint64(8)):
                    row[place + j] = np.uint8(word >> (eight * j))
                copied = eight
            for j in range(copied, length):
                row[place + j] = digits[low + j]
            place += length
        row[place:] = 0
        row_start[num_tokens[i] :] = place


@jit
def lay_out_varying(
    flat: np.ndarray, ends: np.ndarray, length: np.ndarray, pad_id: int, ids: np.ndarray, start: np.ndarray
) -> None:
    """Write the ids of row i, flat[ends[i] : ends[i + 1]] (uint32, int64[B + 1]), to ids [B, L], at most L of them.

    The start of each token goes to start int32[B, L + 1], where token id v has length[v] (int64) bases. Beyond a row's
    tokens ids are ``pad_id``, and start is the row's end.
    """
    for i in range(ids.shape[0]):
        row_ids, row_start, row = ids[i], start[i], flat[ends[i] : ends[i + 1]]
        place = np.int64(0)
        count = min(row.size, row_ids.size)
        for t in range(count):
            row_ids[t], row_start[t] = row[t], place
            place += length[row[t]]
        row_ids[count:] = pad_id
        row_start[count:] = place


@jit
def copy_packed(packed: np.ndarray, offset: np.ndarray, num_bases: np.ndarray, out: np.ndarray) -> None:
    """Copy intervals of packed bases to out uint8[B, W], each to the beginning of its row; the rest is 0.

    Interval i has num_bases[i] (int64[B]) bases and begins at base offset[i] (int64[B]) of packed uint8[...].
    """
    for i in range(offset.size):
        first = offset[i] >> 2
        shift = np.uint16(2 * (offset[i] & 3))
        count = np.int64(num_bases[i])
        used = (count + 3) >> 2
        row = out[i]
        if shift == 0:
            row[:used] = packed[first : first + used]
        else:
            available = packed.size
            for b in range(used):
                high = np.uint16(packed[first + b])
                low = np.uint16(packed[first + b + 1]) if first + b + 1 < available else np.uint16(0)
                row[b] = np.uint8(((high << np.uint16(8) | low) >> (np.uint16(8) - shift)) & np.uint16(255))
        if count & 3:
            row[used - 1] &= np.uint8(255 << (8 - 2 * (count & 3)) & 255)
        row[used:] = 0


@jit
def can_be_predicted(
    bases: np.ndarray, num_bases: np.ndarray, maskable: np.ndarray, token_bases: int, out: np.ndarray
) -> None:
    """Set out[i] (uint8[B]) to whether row i has ``token_bases`` consecutive ACGT, one of which may be hidden.

    bases uint8[B, W], num_bases int64[B]; maskable bool[B, W] marks those that may; [0, 0]: all.
    """
    for i in range(num_bases.size):
        out[i] = 0
        run = 0
        last = np.int64(-1)
        for j in range(num_bases[i]):
            if bases[i, j] >= NOT_ACGT:
                run = 0
                continue
            run += 1
            if maskable.size == 0 or maskable[i, j]:
                last = np.int64(j)
            if run >= token_bases and last > j - token_bases:
                out[i] = 1
                break


@jit
def token_means(
    values: np.ndarray, num_tokens: np.ndarray, token_start: np.ndarray, k: int, stride: int, out: np.ndarray
) -> None:
    """Write the mean of values float32[B, W] over each token's bases to out float32[B, L], 0 beyond its tokens.

    Token t covers bases [token_start[i, t], token_start[i, t + 1]) (int32[B, L + 1]), or bases [t * stride, t * stride
    + k) if token_start is [0, 0].
    """
    for i in range(num_tokens.size):
        for t in range(num_tokens[i]):
            first, last = np.int64(t) * stride, np.int64(t) * stride + k
            if token_start.size:
                first, last = np.int64(token_start[i, t]), np.int64(token_start[i, t + 1])
            total = np.float32(0)
            for j in range(first, last):
                total += values[i, j]
            out[i, t] = total / np.float32(last - first)
        out[i, num_tokens[i] :] = 0
