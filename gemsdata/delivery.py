"""From the narrow buffer in which a batch travels to the tensors that a training gets, on the device it asks for."""

from __future__ import annotations

import math

import numpy as np
import torch

from gemsdata.kernels.widen import widen
from gemsdata.packing import BatchLayout


def deliver(
    layout: BatchLayout, buffer: np.ndarray, device: torch.device | None, *, fresh: bool
) -> dict[str, torch.Tensor]:
    """Return the arrays of a filled buffer as new tensors, int64 on a device; None: as narrow as they travelled.

    Copies are numpy's: torch's open a parallel region, which costs milliseconds where the cores are busy.

    Parameters
    ----------
    layout, buffer
        where the arrays lie in it, and the buffer, uint8[layout.num_bytes].
    fresh
        nobody writes to the buffer again.
    """
    if device is not None and device.type == "cpu":
        return {name: _widened(values) for name, values in layout.views(buffer).items()}
    if device is None:
        return _tensors(layout, torch.from_numpy(buffer if fresh else buffer.copy()))
    packed = torch.from_numpy(buffer)
    if device.type == "cuda":
        packed = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
        packed.numpy()[...] = buffer
    packed = packed.to(device, non_blocking=True)  # one transfer of narrow bytes, widened where they arrive
    return {name: narrow.to(torch.int64) for name, narrow in _tensors(layout, packed).items()}


def _tensors(layout: BatchLayout, packed: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the arrays as views of the packed bytes, uint8[layout.num_bytes]."""
    views = {}
    for name, (offset, shape, dtype) in layout.fields.items():
        num_bytes = math.prod(shape) * dtype.itemsize
        views[name] = packed[offset : offset + num_bytes].view(getattr(torch, dtype.name)).view(shape)
    return views


def _widened(values: np.ndarray) -> torch.Tensor:
    wide = torch.empty(values.shape, dtype=torch.int64)
    widen(values.reshape(-1), wide.numpy().reshape(-1))
    return wide
