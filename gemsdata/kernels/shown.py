"""Keep bases visible that may not be hidden: drop spans that together would hide one.

Only overlapping tokens need this. A span masks the tokens over its own bases; two spans on either side of a base may
together mask all tokens that show it. If tokens do not overlap, a token over such a base is never masked.
"""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.jit import jit
from gemsdata.kernels.layout import BLOCKED, FROZEN, Task


@jit
def keep_shown(task: Task, marks: np.ndarray, spans: np.ndarray, count: int, cover: np.ndarray) -> int:
    """Remove from spans[:count], in order, each one that together with those kept hides a base that may not be hidden.

    Returns how many are kept; they move to the front, in the same order. ``cover`` is scratch, int64[>= T].
    """
    if not task.restricted or task.varies or task.token_stride >= task.token_bases:
        return count
    cover[: task.num_tokens] = 0
    kept = 0
    for j in range(count):
        lo, hi = spans[j, 0], spans[j, 1]
        for t in range(lo, hi):
            cover[t] += 1
        if _hides_blocked(task, marks, lo, hi, cover):
            for t in range(lo, hi):
                cover[t] -= 1
            continue
        for column in range(4):
            spans[kept, column] = spans[j, column]
        kept += 1
    return kept


@jit
def _hides_blocked(task: Task, marks: np.ndarray, lo: int, hi: int, cover: np.ndarray) -> bool:
    """Return whether a base of tokens lo .. hi-1 that may not be hidden is under covered tokens only.

    Frozen tokens over such a base show nothing and are never masked: a base covered only by those is not hidden.
    """
    if hi <= lo:
        return False
    blocked, frozen = marks[task.row, BLOCKED], marks[task.row, FROZEN]
    stride, size = task.token_stride, task.token_bases
    first, end = lo * stride, min((hi - 1) * stride + size, task.num_bases)
    if blocked[end] == blocked[first]:
        return False
    for b in range(first, end):
        if blocked[b + 1] == blocked[b]:
            continue
        masked, shown = False, False
        for t in range(max(0, (b - size + stride) // stride), min(b // stride + 1, task.num_tokens)):
            if frozen[t] == 0:
                masked |= cover[t] > 0
                shown |= cover[t] == 0
        if masked and not shown:
            return True
    return False
