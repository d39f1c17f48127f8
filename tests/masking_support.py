"""Rows for tests of masking, and the bases that a mask hides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gemsdata.genome import vocab
from gemsdata.kernels import mask as kernels
from gemsdata.masking.token_rows import TokenRows


def full(rows):
    return np.full(len(rows), rows.shape[1])


def hidden(mask, k=6):
    """bool[B, L+k-1]."""
    out = np.zeros((len(mask), mask.shape[1] + k - 1), bool)
    kernels.hidden_bases(mask, full(mask), k, out)
    return out


def random_rows(num_rows, length, k=6, seed=0):
    return (5 + np.random.default_rng(seed).integers(0, 4**k, (num_rows, length))).astype(vocab.token_dtype(k))


def rows_of(num_tokens: Sequence[int], num_bases: Sequence[int], **changes: Any) -> TokenRows:
    """Rows of overlapping 3-mers, the ids those of their bases, unless changed."""
    length, width = max(*num_tokens, 1), max(*num_bases, 1)
    bases = np.random.default_rng(3).integers(0, 4, (len(num_tokens), width + 2)).astype(np.uint8)
    ids = 5 + bases[:, :length] * 16 + bases[:, 1 : length + 1] * 4 + bases[:, 2 : length + 2]
    values = {
        "input_ids": ids.astype(np.uint16),
        "num_tokens": np.array(num_tokens),
        "bases": bases[:, :width],
        "num_bases": np.array(num_bases),
        "token_bases": 3,
        "token_stride": 1,
    }
    return TokenRows(**{**values, **changes})
