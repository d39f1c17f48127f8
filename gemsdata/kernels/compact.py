"""Compact encoding of masked rows: two bits for each base, and two for the state of each token.

Row i has tokens[i] tokens (uint16[B], without [CLS] and [SEP]). ``head`` (uint16[B]) holds the first k-1 bases of its
first token; byte g of ``bases`` (uint8[B, ceil(L / 4)]) the last bases of tokens 4g .. 4g+3, the first in the highest
bits; byte g of ``token_states`` (the same shape) the states of those tokens. A token that this does not describe fully
is LISTED as (id in the input, label), in the order of the batch. Any ids and labels are restored exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gemsdata.kernels.corrupt import UNMASKED
from gemsdata.kernels.jit import jit
from gemsdata.kernels.special_ids import CLS_ID, MASK_ID, NUM_SPECIAL, PAD_ID, SEP_ID

SHOWN, HIDDEN, KEPT, LISTED = 0, 1, 2, 3
"""Unmasked without label; [MASK] with label; unmasked with label; in the list"""
_S2, _S8 = np.uint64(2), np.uint64(8)


class CompactRows(NamedTuple):
    """Rows as the module's docstring describes them."""

    tokens: np.ndarray
    """uint16[B]"""
    head: np.ndarray
    """uint16[B]"""
    bases: np.ndarray
    """uint8[B, ceil(L / 4)]"""
    token_states: np.ndarray
    """uint8[B, ceil(L / 4)]"""


class ListedTokens(NamedTuple):
    """The tokens that are LISTED, in the order of the batch."""

    ids: np.ndarray
    """what the model sees"""
    labels: np.ndarray


@jit
def compress(
    input_ids: np.ndarray,
    labels: np.ndarray,
    attention_mask: np.ndarray,
    k: int,
    rows: CompactRows,
    listed: ListedTokens,
    ends: np.ndarray,
) -> None:
    """Encode rows [B, L+2] compactly; row i's listed tokens are those ends[i] : ends[i+1].

    ``ends`` is int32[B+1], of which the caller sets ends[0] to the number of tokens already listed.
    """
    tokens, head, bases, token_states = rows
    count = np.int64(ends[0])
    digit = np.zeros(4 * bases.shape[1], np.uint8)
    fate = np.zeros(4 * bases.shape[1], np.uint8)
    for i in range(input_ids.shape[0]):
        num_tokens = np.int64(-2)
        for j in range(attention_mask.shape[1]):
            num_tokens += attention_mask[i, j]
        tokens[i] = num_tokens
        seen, label = input_ids[i, 1 : num_tokens + 1], labels[i, 1 : num_tokens + 1]
        head[i] = 0
        digit[num_tokens:] = 0
        fate[num_tokens:] = SHOWN
        if num_tokens > 0 and _find_digits(seen, label, k, digit):
            head[i] = (_stored(seen, label, 0) - NUM_SPECIAL) >> 2
            for t in range(num_tokens):
                told = KEPT if seen[t] == label[t] else LISTED
                told = HIDDEN if seen[t] == MASK_ID else told
                fate[t] = SHOWN if label[t] == UNMASKED else told
        else:
            fate[:num_tokens] = LISTED
        for g in range(bases.shape[1]):
            bases[i, g] = digit[4 * g] << 6 | digit[4 * g + 1] << 4 | digit[4 * g + 2] << 2 | digit[4 * g + 3]
            byte = fate[4 * g] << 6 | fate[4 * g + 1] << 4 | fate[4 * g + 2] << 2 | fate[4 * g + 3]
            token_states[i, g] = byte
            if byte & byte >> 1 & 0x55:
                for t in range(4 * g, 4 * g + 4):
                    if fate[t] == LISTED:
                        listed.ids[count] = seen[t]
                        listed.labels[count] = label[t]
                        count += 1
        ends[i + 1] = count


@jit
def _stored(seen: np.ndarray, label: np.ndarray, t: int) -> int:
    """Return token t before masking."""
    return int(seen[t]) if label[t] == UNMASKED else int(label[t])


@jit
def _find_digits(seen: np.ndarray, label: np.ndarray, k: int, digit: np.ndarray) -> bool:
    """Write the last digit of every token; return whether the tokens are the k-mers of one sequence."""
    low = (1 << (2 * k - 2)) - 1
    first = _stored(seen, label, 0) - NUM_SPECIAL
    digit[0] = first & 3
    num_breaks = np.int64(not 0 <= first >> 2 <= low)
    for t in range(1, seen.size):  # no dependence between iterations, so that the compiler vectorises it
        before, kmer = _stored(seen, label, t - 1) - NUM_SPECIAL, _stored(seen, label, t) - NUM_SPECIAL
        num_breaks += kmer >> 2 != before & low
        digit[t] = kmer & 3
    return num_breaks == 0


@jit
def expand(
    rows: CompactRows,
    listed: ListedTokens,
    k: int,
    input_ids: np.ndarray,
    labels: np.ndarray,
    attention_mask: np.ndarray,
) -> int:
    """Decode rows to arrays [B, L+2] of any integer dtype; return the number of listed tokens that they need.

    ``rows.tokens`` must not exceed L; everything else may hold anything: nothing is read or written outside the arrays.
    """
    tokens, head, bases, token_states = rows
    low = np.uint64((1 << (2 * k)) - 1)
    num_listed = 0
    for i in range(input_ids.shape[0]):
        num_tokens = np.int64(tokens[i])
        whole = num_tokens // 4
        attention_mask[i, : num_tokens + 2] = 1
        attention_mask[i, num_tokens + 2 :] = 0
        labels[i, :] = UNMASKED
        input_ids[i, 0] = CLS_ID
        window = np.uint64(head[i])
        for g in range(whole):
            window = (window << _S8) | np.uint64(bases[i, g])
            for j in range(4):  # of constant length, so that it compiles to one store
                input_ids[i, 4 * g + j + 1] = np.int64((window >> np.uint64(6 - 2 * j)) & low) + NUM_SPECIAL
        for t in range(4 * whole, num_tokens):
            window = (window << _S2) | np.uint64((bases[i, whole] >> (6 - 2 * (t & 3))) & 3)
            input_ids[i, t + 1] = np.int64(window & low) + NUM_SPECIAL
        input_ids[i, num_tokens + 1] = SEP_ID
        input_ids[i, num_tokens + 2 :] = PAD_ID
        for g in range(bases.shape[1]):
            state_byte = token_states[i, g]
            if state_byte == 0:
                continue
            for t in range(4 * g, 4 * g + 4):
                if t >= num_tokens:
                    break
                fate = (state_byte >> (6 - 2 * (t & 3))) & 3
                token_id = np.int64(input_ids[i, t + 1])
                labels[i, t + 1] = UNMASKED if fate == SHOWN else token_id
                input_ids[i, t + 1] = MASK_ID if fate == HIDDEN else token_id
                if fate == LISTED:
                    if num_listed < listed.ids.size:
                        input_ids[i, t + 1] = listed.ids[num_listed]
                        labels[i, t + 1] = listed.labels[num_listed]
                    num_listed += 1
    return num_listed
