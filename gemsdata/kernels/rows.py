"""Location of row i of an epoch, for rows cut from stretches of tokens with a new shift in every epoch."""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.jit import jit
from gemsdata.kernels.keys import below, draw, fold


@jit
def count_rows(num_tokens: np.ndarray, row_tokens: int, jitter: bool, out: np.ndarray) -> None:
    """Write to out int64[m] how many rows of at most ``row_tokens`` tokens each stretch (int64[m] tokens) has.

    Without jitter n = ceil(S / L). With it one more if the last row would be longer than half a row, so that the
    number is the same for every shift.
    """
    for m in range(num_tokens.size):
        rows = -(-num_tokens[m] // row_tokens)
        last = num_tokens[m] - (rows - 1) * row_tokens
        more = jitter and num_tokens[m] > 0 and row_tokens > 1 and 2 * last > row_tokens
        out[m] = rows + (1 if more else 0)


@jit
def locate_rows(
    first_row: np.ndarray,
    num_tokens: np.ndarray,
    row_tokens: int,
    jitter: bool,
    key: np.uint64,
    rows: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the location of rows to out int64[B, 3]: (stretch, first token within it, number of tokens).

    Stretch m has num_tokens[m] (int64[M]) tokens and rows first_row[m] .. first_row[m + 1] - 1 (int64[M + 1]).
    With jitter, S tokens, r = S - (ceil(S / L) - 1) L: if 2 r <= L the first row has r..L tokens, else 1..r-1,
    drawn under (key, m); the rows after it have L tokens and the last has the rest.
    """
    for i in range(rows.size):
        row = rows[i]
        low, high = np.int64(0), np.int64(first_row.size - 1)
        while high - low > 1:  # first_row[low] <= row < first_row[high]
            middle = (low + high) >> 1
            if first_row[middle] <= row:
                low = middle
            else:
                high = middle
        in_stretch = row - first_row[low]
        total = num_tokens[low]
        first = min(np.int64(row_tokens), total)
        if jitter:
            rows_without = -(-total // row_tokens)
            last = total - (rows_without - 1) * row_tokens
            bits = draw(fold(key, np.uint64(low)), np.uint64(0))
            if row_tokens > 1 and 2 * last > row_tokens:
                first = 1 + np.int64(below(bits, np.uint64(last - 1)))
            elif rows_without > 1:
                first = last + np.int64(below(bits, np.uint64(row_tokens - last + 1)))
        begin = np.int64(0)
        stop = first
        if in_stretch > 0:
            begin = first + (in_stretch - 1) * row_tokens
            stop = min(begin + row_tokens, total)
        out[i, 0] = low
        out[i, 1] = begin
        out[i, 2] = stop - begin
