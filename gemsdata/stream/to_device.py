"""From a parcel to the tensors that a training gets, on the device that it asks for."""

from __future__ import annotations

import math

import torch

from gemsdata.stream.batch import BatchLayout, Parcel


def deliver(layout: BatchLayout, parcel: Parcel, device: torch.device | None) -> dict[str, torch.Tensor]:
    """Return the arrays of a batch as new tensors, int64 on a device; None: narrow ones on the CPU.

    On a CPU no tensor is copied or converted by torch, whose parallel regions cost milliseconds where cores are busy.
    """
    if device is not None and device.type == "cpu":
        shapes = {name: shape for name, (_, shape, _) in layout.fields.items()}
        wide = {name: torch.empty(shape, dtype=torch.int64) for name, shape in shapes.items()}
        parcel.write({name: tensor.numpy() for name, tensor in wide.items()})
        return wide
    if device is not None and device.type == "cuda":
        packed = torch.empty(layout.num_bytes, dtype=torch.uint8, pin_memory=True)
        parcel.write(layout.views(packed.numpy()))
    else:
        packed = torch.from_numpy(parcel.take())
    if device is None:
        return _views(layout, packed)
    packed = packed.to(device, non_blocking=True)  # one transfer of narrow bytes, widened where they arrive
    return {name: narrow.to(torch.int64) for name, narrow in _views(layout, packed).items()}


def _views(layout: BatchLayout, packed: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the arrays as views of the packed bytes, uint8[layout.num_bytes]."""
    views = {}
    for name, (offset, shape, dtype) in layout.fields.items():
        num_bytes = math.prod(shape) * dtype.itemsize
        views[name] = packed[offset : offset + num_bytes].view(getattr(torch, dtype.name)).view(shape)
    return views
