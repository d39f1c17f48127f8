"""From rows of token ids to masked batches: select spans, then write inputs, labels and attention mask."""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.budget import trim
from gemsdata.kernels.jit import jit
from gemsdata.kernels.keys import below, draw, fold
from gemsdata.kernels.spans import (
    BEST_OF_WINDOW,
    CORRUPTION,
    LENGTH_RANGE,
    WINDOW,
    bernoulli_centres,
    lay_best_of_row,
    lay_best_of_windows,
    lay_lengths,
    lay_windows,
    shuffled_centres,
)
from gemsdata.kernels.special_ids import CLS_ID, MASK_ID, PAD_ID, SEP_ID

UNMASKED = -100
_S32 = np.uint64(32)
_LOW32 = np.uint64(0xFFFFFFFF)
_TENTHS = np.uint64(10)
_NINTH = np.uint64(8)  # tenths 0..7 become [MASK], 8 a random k-mer, 9 stays


@jit
def select(
    method: int,
    a: int,
    b: int,
    k: int,
    ids: np.ndarray,
    id_step: int,
    num_tokens: np.ndarray,
    keys: np.ndarray,
    ranks: np.ndarray,
    tail: np.ndarray,
    guide: np.ndarray,
    target: np.ndarray,
    by_base: bool,
    ends: np.ndarray,
    spans: np.ndarray,
) -> None:
    """Select the spans of every row: spans[ends[i] : ends[i+1]] are those of row i, in order of priority.

    ``a``, ``b`` are the method's two numbers: tokens left and right (WINDOW), shortest and longest span
    (LENGTH_RANGE), unused and least number of wide spans (BEST_OF_WINDOW), tokens to skip round a chosen one and
    unused (BEST_OF_ROW). Row i's ranks are ``ranks[ids[i * id_step, t]]``. ``target`` is int64[B], the exact budget of
    each row, or empty: then the number of spans is that of the Bernoulli centres. ``ends`` is int64[B+1], ``spans``
    int32[>= sum of num_tokens, 4].
    """
    max_tokens = ids.shape[1]
    centre = np.empty(max_tokens, np.int64)
    order = np.empty((max_tokens, 3), np.int64)
    place = np.empty(max_tokens, np.int64)
    masked = np.empty(max_tokens + 2 * k, np.uint8)
    exact = target.size > 0
    at = 0
    ends[0] = 0
    for i in range(num_tokens.size):
        tokens = np.int64(num_tokens[i])
        key = keys[i]
        row = ids[i * id_step]
        drawn = 0
        if exact:
            count = min(tokens, max(1, (target[i] - k + 1) // (2 * k - 1)))
        else:
            count = bernoulli_centres(key, tokens, tail, guide, centre)
        while True:
            if exact:
                shuffled_centres(key, tokens, drawn, count, centre)
                drawn = count
            if method == WINDOW:
                laid = lay_windows(centre, count, tokens, a, b, k, at, spans)
            elif method == LENGTH_RANGE:
                laid = lay_lengths(key, centre, count, tokens, a, b, at, spans)
            elif method == BEST_OF_WINDOW:
                laid = lay_best_of_windows(key, centre, count, tokens, row, ranks, k, b, order, at, spans)
            else:
                laid = lay_best_of_row(key, count, tokens, row, ranks, k, a, exact, place, at, spans)
            end = at + laid
            if not exact:
                break
            end = trim(key, tokens, k, by_base, target[i], masked, at, at + laid, spans)
            if end >= 0:
                break
            if count == tokens:
                end = at + laid
                break
            count = min(tokens, count + 1 if method == BEST_OF_WINDOW else 2 * count)
        at = end
        ends[i + 1] = at


@jit
def paint(ends: np.ndarray, spans: np.ndarray, masked: np.ndarray) -> None:
    """Set masked[i, t] (bool[B, L], zeroed) for every token t inside a span of row i."""
    for i in range(ends.size - 1):
        for j in range(ends[i], ends[i + 1]):
            for t in range(spans[j, 0], spans[j, 1]):
                masked[i, t] = True


@jit
def merge(first: int, last: int, spans: np.ndarray, runs: np.ndarray) -> int:
    """Write the maximal runs of masked tokens of spans[first:last] to runs[0:n, 0:2], by position; return n.

    Overlapping and adjacent spans make one run. ``runs`` is int32[>= last - first, 2].
    """
    for j in range(first, last):
        i = j - first
        while i > 0 and runs[i - 1, 0] > spans[j, 0]:
            runs[i, 0] = runs[i - 1, 0]
            runs[i, 1] = runs[i - 1, 1]
            i -= 1
        runs[i, 0] = spans[j, 0]
        runs[i, 1] = spans[j, 1]
    count = 0
    for i in range(last - first):
        if runs[i, 0] == runs[i, 1]:
            continue
        if count > 0 and runs[i, 0] <= runs[count - 1, 1]:
            runs[count - 1, 1] = max(runs[count - 1, 1], runs[i, 1])
        else:
            runs[count, 0] = runs[i, 0]
            runs[count, 1] = runs[i, 1]
            count += 1
    return count


@jit
def corrupt(
    ids: np.ndarray,
    num_tokens: np.ndarray,
    keys: np.ndarray,
    ends: np.ndarray,
    spans: np.ndarray,
    by_run: bool,
    first_random: int,
    num_random: int,
    input_ids: np.ndarray,
    labels: np.ndarray,
    attention_mask: np.ndarray,
) -> None:
    """Write [CLS] tokens [SEP] [PAD]..., labels and attention mask of every row, all [B, L+2].

    Masked token t gets the outcome of draw number t (``by_run``: the draw of the first token of its run of masked
    tokens); its random replacement comes from the low half of draw t. Random ids are first_random .. first_random +
    num_random - 1.
    """
    size = np.uint64(num_random)
    most = 0
    for i in range(ends.size - 1):
        most = max(most, ends[i + 1] - ends[i])
    runs = np.empty((most, 2), np.int32)
    for i in range(ids.shape[0]):
        tokens = np.int64(num_tokens[i])
        key = fold(keys[i], CORRUPTION)
        input_ids[i, 0] = CLS_ID
        for t in range(tokens):
            input_ids[i, t + 1] = ids[i, t]
        input_ids[i, tokens + 1] = SEP_ID
        input_ids[i, tokens + 2 :] = PAD_ID
        labels[i, :] = UNMASKED
        attention_mask[i, : tokens + 2] = 1
        attention_mask[i, tokens + 2 :] = 0
        count = merge(ends[i], ends[i + 1], spans, runs) if by_run else ends[i + 1] - ends[i]
        for j in range(count):
            if by_run:
                lo, hi = runs[j, 0], runs[j, 1]
                run_tenth = below(draw(key, np.uint64(lo)), _TENTHS)
            else:
                lo, hi = spans[ends[i] + j, 0], spans[ends[i] + j, 1]
                run_tenth = _NINTH
            for t in range(lo, hi):
                bits = draw(key, np.uint64(t))
                tenth = below(bits, _TENTHS) if not by_run else run_tenth
                token_id = np.int64(ids[i, t])
                random_id = first_random + np.int64(((bits & _LOW32) * size) >> _S32)
                labels[i, t + 1] = token_id
                seen_id = random_id if tenth == _NINTH else token_id
                input_ids[i, t + 1] = MASK_ID if tenth < _NINTH else seen_id


@jit
def hidden_bases(masked: np.ndarray, num_tokens: np.ndarray, k: int, hidden: np.ndarray) -> None:
    """Set hidden[i, b] (bool[B, L+k-1]) for each base b of row i that no unmasked token shows; masked is bool[B, L]."""
    for i in range(masked.shape[0]):
        tokens = np.int64(num_tokens[i])
        shown_to = 0
        hidden[i, :] = False
        for t in range(tokens):
            if not masked[i, t]:
                hidden[i, shown_to:t] = True
                shown_to = t + k
        if tokens > 0:
            hidden[i, shown_to : tokens + k - 1] = True
