"""Rows for tests of masking, and the bases that a mask hides."""

from __future__ import annotations

import numpy as np

from gemsdata.genome import vocab
from gemsdata.kernels import mask as kernels


def full(rows):
    return np.full(len(rows), rows.shape[1])


def hidden(mask, k=6):
    """bool[B, L+k-1]."""
    out = np.zeros((len(mask), mask.shape[1] + k - 1), bool)
    kernels.hidden_bases(mask, full(mask), k, out)
    return out


def random_rows(num_rows, length, k=6, seed=0):
    return (5 + np.random.default_rng(seed).integers(0, 4**k, (num_rows, length))).astype(vocab.token_dtype(k))
