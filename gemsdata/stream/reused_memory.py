"""Arrays whose memory is used again once nothing refers to it."""

from __future__ import annotations

import weakref

import numpy as np
import torch

_SMALL_BYTES = 1 << 16
"""memory below this size is kept by the C library anyway"""
_MOST_FREE = 8
"""unused blocks of one size that are kept"""


class ReusedMemory:
    """Gives arrays out, and takes their memory back when they and all their views are gone.

    The C library returns large blocks to the system when they are freed. The pages of a new block then cost one fault
    per 4 KiB, together more time than masking the batch that is written there.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[torch.Tensor]] = {}

    def empty(self, num_bytes: int) -> np.ndarray:
        """Return an array of undefined bytes, uint8[num_bytes], aligned to 64 bytes."""
        if num_bytes < _SMALL_BYTES:
            return torch.empty(num_bytes, dtype=torch.uint8).numpy()
        free = self._free.setdefault(num_bytes, [])
        try:
            block = free.pop()
        except IndexError:
            block = torch.empty(num_bytes, dtype=torch.uint8)
        array = block.numpy()  # a new array each time, which every view of it refers to, as it does not own its data
        weakref.finalize(array, _take_back, free, block).atexit = False
        return array


def _take_back(free: list[torch.Tensor], block: torch.Tensor) -> None:
    if len(free) < _MOST_FREE:
        free.append(block)
