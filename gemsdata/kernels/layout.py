"""Which bases a token covers, which of them may be hidden, and what is hidden once tokens are masked."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gemsdata.kernels.jit import jit, jit_inline

_NOT_ACGT = 4


START, BLOCKED, FROZEN = range(3)
"""Parts of ``Layout.marks``: start of token t; number of bases before b that may not be hidden; whether token t is
never masked"""


class Layout(NamedTuple):
    """Positions of the tokens of B rows, and which may be masked."""

    token_bases: int
    token_stride: int
    """token t covers bases [t * token_stride, min(t * token_stride + token_bases, bases of the row))"""
    varies: bool
    """tokens vary in length: token t covers bases [start[t], start[t+1])"""
    restricted: bool
    """some bases may not be hidden"""
    marks: np.ndarray
    """int32[B, 3, >= L + 1 and W + 1]; [B, 1, L + 1], START alone, where tokens vary without a restriction; [0, 0, 0]
    where they do not vary either"""


class Task(NamedTuple):
    """One row and how it is to be masked; numbers only.

    Arrays are passed separately: numba counts references to each array of a tuple in every call, which made short rows
    ten times as slow.
    """

    row: int
    num_tokens: int
    num_bases: int
    num_grams: int
    """n-grams: num_bases - n + 1, at least 0"""
    key: np.uint64
    token_bases: int
    token_stride: int
    varies: bool
    restricted: bool
    method: int
    """one of `gemsdata.kernels.spans`; so are the next six fields"""
    first: int
    second: int
    n: int
    offset: int
    by_id: bool
    by_position: bool
    exact: bool
    """reach ``target`` masked tokens (``by_base``: hidden bases)"""
    by_base: bool
    target: int
    wanted: int
    """centres, or n-grams of the row"""


@jit_inline
def uniform_tokens_over(task: Task, first_base: int, end_base: int) -> tuple[int, int]:
    """Return `tokens_over` for tokens of constant length."""
    stride = task.token_stride
    if stride == 1:
        lo, hi = first_base - task.token_bases + 1, end_base
    else:
        lo, hi = (first_base - task.token_bases + stride) // stride, (end_base - 1) // stride + 1
    lo = min(max(0, lo), task.num_tokens)
    return lo, max(lo, min(task.num_tokens, hi))


@jit
def tokens_over(task: Task, marks: np.ndarray, first_base: int, end_base: int) -> tuple[int, int]:
    """Return the half-open range of tokens that touch a base of [first_base, end_base), clipped to the row."""
    if not task.varies:
        return uniform_tokens_over(task, first_base, end_base)
    return varying_tokens_over(marks[task.row, START], task.num_tokens, first_base, end_base)


@jit_inline
def varying_tokens_over(start: np.ndarray, num_tokens: int, first_base: int, end_base: int) -> tuple[int, int]:
    """Return `tokens_over` where tokens vary in length; ``start`` is that of the row."""
    lo, size = 0, num_tokens  # the token over first_base is one of lo .. lo + size - 1
    while size > 1:  # without a branch, which a processor could not predict
        half = size >> 1
        lo += half * int(start[np.uint64(lo + half)] <= first_base)
        size -= half
    hi = lo
    while hi < num_tokens and start[hi] < end_base:
        hi += 1
    return lo, hi


@jit
def may_hide(task: Task, marks: np.ndarray, first_base: int, end_base: int) -> bool:
    """Return whether all bases that get hidden together with [first_base, end_base) may be hidden."""
    if not task.restricted:
        return True
    first, end = max(0, first_base), min(task.num_bases, end_base)
    if task.token_stride < task.token_bases and not task.varies:
        lo, hi = tokens_over(task, marks, first, end)  # bases that only these tokens cover
        first = min(first, (lo - 1) * task.token_stride + task.token_bases if lo > 0 else 0)
        beyond = hi * task.token_stride if hi < task.num_tokens else (hi - 1) * task.token_stride + task.token_bases
        end = max(end, min(beyond, task.num_bases))
    return end <= first or marks[task.row, BLOCKED, end] == marks[task.row, BLOCKED, first]


@jit_inline
def newly_hidden(task: Task, masked: np.ndarray, token_pos: int) -> int:
    """Return how many more bases are hidden if ``token_pos`` is masked as well.

    For tokens of constant length. ``masked`` is int64[T + 2 * reach], the row's mask with ones on either side (bases at
    an end of the row are covered by fewer tokens, as if those beyond it were masked). With ``left`` and ``right``
    masked neighbours, the token hides those of its bases that no token further away covers.
    """
    stride = task.token_stride
    most = (task.token_bases - 1) // stride
    i = token_pos + most
    left = 0
    while left < most and masked[i - 1 - left]:
        left += 1
    right = 0
    while right < most and masked[i + 1 + right]:
        right += 1
    first = max(token_pos * stride, (token_pos - left - 1) * stride + task.token_bases)
    end = min(token_pos * stride + task.token_bases, (token_pos + right + 1) * stride)
    return max(0, min(end, task.num_bases) - first)


@jit_inline
def reach(token_bases: int, token_stride: int, varies: bool) -> int:
    """Return how many tokens to either side share bases with a token."""
    return 0 if varies else (token_bases - 1) // token_stride


@jit
def smallest_gain(task: Task, marks: np.ndarray) -> int:
    """Return the least number of bases, above 0, that masking one more token can hide."""
    if task.varies:
        smallest = task.num_bases
        for t in range(task.num_tokens):
            smallest = min(smallest, marks[task.row, START, t + 1] - marks[task.row, START, t])
        return max(1, smallest)
    if task.token_stride >= task.token_bases:
        return task.token_bases
    rest = task.token_bases % task.token_stride
    return min(rest, task.token_stride - rest) if rest else task.token_stride


@jit
def token_span(task: Task, marks: np.ndarray, token_pos: int) -> tuple[int, int]:
    """Return the half-open range of bases of a token."""
    if task.varies:
        return marks[task.row, START, token_pos], marks[task.row, START, token_pos + 1]
    first = token_pos * task.token_stride
    return first, min(first + task.token_bases, task.num_bases)


@jit
def row_task(layout: Layout, row: int, num_tokens: int, num_bases: int) -> Task:
    """Return the task of a row of a layout, with nothing to mask."""
    return Task(
        row,
        num_tokens,
        num_bases,
        num_bases,
        np.uint64(0),
        layout.token_bases,
        layout.token_stride,
        layout.varies,
        layout.restricted,
        0,
        0,
        0,
        1,
        0,
        False,
        False,
        False,
        False,
        0,
        0,
    )


@jit
def find_blocked(
    bases: np.ndarray, maskable: np.ndarray, num_tokens: np.ndarray, num_bases: np.ndarray, layout: Layout
) -> None:
    """Fill the marks BLOCKED and FROZEN for bases uint8[B, W] and maskable bool[B, W] (or [0, 0]: all).

    A base that is not A, C, G or T may not be hidden, and a token over one is frozen. If tokens do not overlap, masking
    a token hides all of its bases: a token over a base that may not be hidden is frozen too, and all of its bases are
    blocked.
    """
    marks = layout.marks
    alone = layout.varies or layout.token_stride >= layout.token_bases
    for i in range(num_bases.size):
        task = row_task(layout, i, num_tokens[i], num_bases[i])
        count = np.int32(0)
        marks[i, BLOCKED, 0] = 0
        for b in range(task.num_bases):
            count += np.int32(bases[i, b] >= _NOT_ACGT or (maskable.size > 0 and not maskable[i, b]))
            marks[i, BLOCKED, b + 1] = count
        for t in range(task.num_tokens):
            first, end = token_span(task, marks, t)
            frozen = marks[i, BLOCKED, end] > marks[i, BLOCKED, first]
            if frozen and not alone:
                frozen = False
                for b in range(first, end):
                    frozen = frozen or bases[i, b] >= _NOT_ACGT
            marks[i, FROZEN, t] = frozen
        if alone:
            _block_whole_tokens(task, marks)


@jit
def _block_whole_tokens(task: Task, marks: np.ndarray) -> None:
    """Update the blocked bases of a row: all bases of frozen tokens; bases between tokens stay as they were."""
    blocked = marks[task.row, BLOCKED]
    count, b, before = np.int32(0), 0, np.int32(0)
    for t in range(task.num_tokens):
        first, end = token_span(task, marks, t)
        frozen = marks[task.row, FROZEN, t]
        while b < end:
            here = blocked[b + 1] - before
            before = blocked[b + 1]
            count += frozen if b >= first else here
            b += 1
            blocked[b] = count


@jit
def starts_rise(start: np.ndarray, num_tokens: np.ndarray, num_bases: np.ndarray) -> bool:
    """Return whether each token of rows has a base: 0 <= start[t] < start[t+1] <= num_bases, for int32[B, L+1]."""
    for i in range(num_tokens.size):
        rises = start[i, 0] >= 0
        for t in range(num_tokens[i]):
            rises &= start[i, t + 1] > start[i, t]
        if not rises or start[i, num_tokens[i]] > num_bases[i]:
            return False
    return True


@jit
def count_maskable(num_tokens: np.ndarray, num_bases: np.ndarray, layout: Layout, out: np.ndarray) -> None:
    """Set out[i] (int64[B]) to the number of bases of row i that a token covers and that may be hidden."""
    marks = layout.marks
    overlap = not layout.varies and layout.token_stride <= layout.token_bases
    for i in range(num_tokens.size):
        task = row_task(layout, i, num_tokens[i], num_bases[i])
        out[i] = 0
        if overlap:  # no base lies between tokens
            out[i] = task.num_bases - (marks[i, BLOCKED, task.num_bases] if layout.restricted else 0)
            continue
        for t in range(task.num_tokens):
            if not (layout.restricted and marks[i, FROZEN, t] != 0):
                first, end = token_span(task, marks, t)
                out[i] += end - first


@jit
def hidden_bases_of(
    masked: np.ndarray, num_tokens: np.ndarray, num_bases: np.ndarray, layout: Layout, hidden: np.ndarray
) -> None:
    """Set hidden[i, b] (bool[B, W]) for each base of a masked token that no unmasked token shows; masked is bool[B, L].

    If tokens overlap, a token over a base that is not A, C, G or T is [UNK] and shows nothing.
    """
    marks = layout.marks
    overlap = not layout.varies and layout.token_stride < layout.token_bases
    for i in range(num_tokens.size):
        task = row_task(layout, i, num_tokens[i], num_bases[i])
        hidden[i, :] = False
        for turn in range(2):
            for t in range(task.num_tokens):
                unknown = overlap and layout.restricted and marks[i, FROZEN, t] != 0
                if masked[i, t] == (turn == 0) and not unknown:
                    first, end = token_span(task, marks, t)
                    hidden[i, first:end] = turn == 0
