"""Labels and attention masks in few bytes: which tokens are masked and what they were, and how long each row is."""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.jit import jit
from gemsdata.kernels.mask import UNMASKED


@jit
def pack(
    labels: np.ndarray,
    attention_mask: np.ndarray,
    ends: np.ndarray,
    position: np.ndarray,
    token_id: np.ndarray,
    length: np.ndarray,
) -> None:
    """Write the labelled positions of rows [B, W] and their labels, and the attended tokens of each row.

    Row i has position[ends[i] : ends[i+1]] (rising) and token_id there; ends is int32[B+1], length uint16[B].
    """
    count = 0
    ends[0] = 0
    for i in range(labels.shape[0]):
        attended = 0
        for j in range(labels.shape[1]):
            attended += attention_mask[i, j]
            position[count] = j
            token_id[count] = labels[i, j]
            count += labels[i, j] != UNMASKED
        ends[i + 1] = count
        length[i] = attended


@jit
def unpack(
    ends: np.ndarray,
    position: np.ndarray,
    token_id: np.ndarray,
    length: np.ndarray,
    labels: np.ndarray,
    attention_mask: np.ndarray,
) -> None:
    """Write labels and attention mask [B, W] again from what `pack` wrote."""
    for i in range(labels.shape[0]):
        labels[i, :] = UNMASKED
        for n in range(ends[i], ends[i + 1]):
            labels[i, position[n]] = token_id[n]
        attention_mask[i, : length[i]] = 1
        attention_mask[i, length[i] :] = 0
