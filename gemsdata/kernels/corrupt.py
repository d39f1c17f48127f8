"""Make masked batches (inputs, labels, attention mask) from rows of tokens and their spans."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gemsdata.kernels.jit import jit, jit_inline
from gemsdata.kernels.keys import below, draw, fold
from gemsdata.kernels.layout import FROZEN, Layout
from gemsdata.kernels.mask import Rows, Selection, SpanList, select
from gemsdata.kernels.random_streams import RowStream

UNMASKED = -100
CORRUPTION = np.uint64(RowStream.CORRUPTION)
_S32 = np.uint64(32)
_LOW32 = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)
_TENTHS = np.uint64(10)
_NINTH = np.uint64(8)  # of ten equal parts of a draw, 0..7 give [MASK], 8 a random token, 9 the token itself


class Corruption(NamedTuple):
    """How masked tokens are replaced."""

    by_run: bool
    """decide once for each run of masked tokens, not for each token"""
    mask_only: bool
    """replace every masked token by [MASK], without a draw"""
    first_random: int
    num_random: int
    random_ids: np.ndarray
    """uint32[n]: random replacements; if empty, they are first_random .. first_random + num_random - 1"""
    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int


class Batch(NamedTuple):
    """Output arrays of a masked batch, all [B, L+2]."""

    input_ids: np.ndarray
    labels: np.ndarray
    attention_mask: np.ndarray


@jit
def merge(spans: np.ndarray, order: np.ndarray, runs: np.ndarray) -> int:
    """Write the maximal runs of masked tokens of ``spans`` to runs[0:n, 0:2], by position; return n.

    Overlapping and adjacent spans make one run. ``order`` int64[>= spans] is scratch, ``runs`` int32[>= spans, 2].
    """
    size = spans.shape[0]
    for j in range(size):
        entry = np.int64(spans[j, 0]) << 32 | j
        if size > 64:
            order[j] = entry
            continue
        i = j
        while i > 0 and order[i - 1] > entry:
            order[i] = order[i - 1]
            i -= 1
        order[i] = entry
    if size > 64:
        order[:size].sort()
    count = 0
    for i in range(size):
        j = order[i] & 0xFFFFFFFF
        lo, hi = spans[j, 0], spans[j, 1]
        if lo == hi:
            continue
        if count > 0 and lo <= runs[count - 1, 1]:
            runs[count - 1, 1] = max(runs[count - 1, 1], hi)
        else:
            runs[count, 0], runs[count, 1] = lo, hi
            count += 1
    return count


@jit
def corrupt(ids: np.ndarray, rows: Rows, found: SpanList, layout: Layout, rule: Corruption, out: Batch) -> None:
    """Write [CLS] tokens [SEP] [PAD]..., labels and attention mask of every row.

    The corruption of masked token t follows draw number t (``by_run``: the draw of the first token of its run of masked
    tokens); its random replacement comes from the low half of draw t.
    """
    input_ids, labels, attention_mask = out.input_ids, out.labels, out.attention_mask
    ends, spans, marks, restricted = found.ends, found.spans, layout.marks, layout.restricted
    most = 0
    for i in range(ends.size - 1):
        most = max(most, ends[i + 1] - ends[i])
    order, runs = np.empty(most, np.int64), np.empty((most, 2), np.int32)
    by_run = rule.by_run
    for i in range(ids.shape[0]):
        tokens = rows.num_tokens[i]
        key = fold(rows.keys[i], CORRUPTION)
        input_ids[i, 0] = rule.cls_id
        for t in range(tokens):
            input_ids[i, t + 1] = ids[i, t]
        input_ids[i, tokens + 1] = rule.sep_id
        input_ids[i, tokens + 2 :] = rule.pad_id
        labels[i, :] = UNMASKED
        attention_mask[i, : tokens + 2] = 1
        attention_mask[i, tokens + 2 :] = 0
        first = ends[i]
        count = merge(spans[first : ends[i + 1]], order, runs) if by_run else ends[i + 1] - first
        for j in range(count):
            lo, hi = spans[first + j, 0], spans[first + j, 1]
            if by_run:
                lo, hi = runs[j, 0], runs[j, 1]
            while lo < hi:
                end = hi
                if restricted:  # up to the next token that is never masked
                    while lo < hi and marks[i, FROZEN, lo] != 0:
                        lo += 1
                    end = lo
                    while end < hi and marks[i, FROZEN, end] == 0:
                        end += 1
                _corrupt_tokens(ids[i], (lo, end), key, rule, input_ids[i], labels[i])
                lo = end


@jit_inline
def _corrupt_tokens(
    ids: np.ndarray, run: tuple[int, int], key: np.uint64, rule: Corruption, input_ids: np.ndarray, labels: np.ndarray
) -> None:
    """Corrupt the consecutive masked tokens ``run`` = (first, end) of a row."""
    random_ids, size, listed = rule.random_ids, np.uint64(rule.num_random), rule.random_ids.size > 0
    by_run, mask_only, first_random, mask_id = rule.by_run, rule.mask_only, rule.first_random, rule.mask_id
    run_tenth = below(draw(key, np.uint64(run[0])), _TENTHS) if by_run else _NINTH
    for t in range(np.uint64(run[0]), np.uint64(run[1])):  # unsigned: an index that may be negative costs a comparison
        bits = draw(key, t)
        tenth = run_tenth if by_run else below(bits, _TENTHS)
        token_id = np.int64(ids[t])
        chosen = ((bits & _LOW32) * size) >> _S32
        random_id = np.int64(random_ids[chosen]) if listed else first_random + np.int64(chosen)
        labels[t + _ONE] = token_id
        seen_id = random_id if tenth == _NINTH else token_id
        input_ids[t + _ONE] = mask_id if mask_only or tenth < _NINTH else seen_id


@jit
def select_and_corrupt(ids: np.ndarray, how: Selection, rule: Corruption, out: Batch) -> None:
    """Select spans and write the batch as `corrupt` does; one call, because passing arguments takes microseconds."""
    corrupt(ids, how.rows, select(how), how.layout, rule, out)
