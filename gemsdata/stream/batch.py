"""Batches as one buffer each: the layout, pending batches in buffers, and their conversion to tensors."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from gemsdata.kernels.widen import widen
from gemsdata.stream.reused_memory import ReusedMemory

_ALIGNMENT = 64


@dataclass(frozen=True, kw_only=True)
class BatchArray:
    """One array of a batch; its first axis is the row."""

    name: str
    row_shape: tuple[int, ...]
    """() for one number per row, (L + 2,) for one per token"""
    dtype: str
    """dtype in the buffer, such as "uint16"; integers become int64 on the device, floating-point numbers float32"""


class Field(NamedTuple):
    """Position of an array in the buffer of a batch."""

    offset: int
    """in bytes"""
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def widened(self, memory: ReusedMemory) -> np.ndarray:
        """Return an array of undefined values and this shape, int64 for integers, else float32."""
        wide = np.dtype(np.int64 if self.dtype.kind in "iu" else np.float32)
        return memory.empty(math.prod(self.shape) * wide.itemsize).view(wide).reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class BatchLayout:
    """Layout of the arrays of a batch of ``num_rows`` rows in one uint8 buffer."""

    num_rows: int
    arrays: tuple[BatchArray, ...]

    @classmethod
    def masked_lm(
        cls, *, num_rows: int, width: int, id_dtype: str, label_dtype: str, extra: tuple[BatchArray, ...] = ()
    ) -> BatchLayout:
        """Return the layout of input_ids, labels, attention_mask and sample_ids, and of ``extra`` arrays.

        ``width`` counts the tokens of a row, [CLS] and [SEP] included.
        """
        arrays = (
            BatchArray(name="input_ids", row_shape=(width,), dtype=id_dtype),
            BatchArray(name="labels", row_shape=(width,), dtype=label_dtype),
            BatchArray(name="attention_mask", row_shape=(width,), dtype="uint8"),
            BatchArray(name="sample_ids", row_shape=(), dtype="int64"),
        )
        return cls(num_rows=num_rows, arrays=(*arrays, *extra))

    @functools.cached_property
    def fields(self) -> dict[str, Field]:
        """Position of every array."""
        fields = {}
        offset = 0
        for array in self.arrays:
            fields[array.name] = Field(offset, (self.num_rows, *array.row_shape), np.dtype(array.dtype))
            offset += -(-fields[array.name].num_bytes // _ALIGNMENT) * _ALIGNMENT
        return fields

    @property
    def width(self) -> int:
        """Tokens of a row, [CLS] and [SEP] included."""
        return self.fields["input_ids"].shape[1]

    @functools.cached_property
    def num_bytes(self) -> int:
        """Bytes of a buffer."""
        return max(field.offset + field.num_bytes for field in self.fields.values())

    def empty(self) -> np.ndarray:
        """Return a new buffer, uint8[num_bytes]."""
        return np.empty(self.num_bytes, np.uint8)

    def views(self, buffer: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of a batch as views of ``buffer`` (uint8[num_bytes])."""
        return {
            name: buffer[field.offset : field.offset + field.num_bytes].view(field.dtype).reshape(field.shape)
            for name, field in self.fields.items()
        }


class PendingBatch(Protocol):
    """A batch that was computed in advance and is read once."""

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the batch to arrays of the layout's shapes, each of the layout's dtype or a wider one."""

    def to_buffer(self) -> np.ndarray:
        """Return the batch as a buffer of the layout that is not shared."""


@dataclass(frozen=True, kw_only=True)
class BufferedBatch:
    """A pending batch in a buffer of its layout."""

    layout: BatchLayout
    buffer: np.ndarray
    """uint8[layout.num_bytes]"""
    owned: bool
    """whether the buffer is not shared; a slot of the workers' ring buffer is overwritten later"""

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:  # noqa: D102
        for name, values in self.layout.views(self.buffer).items():
            if values.dtype.kind in "iu":
                widen(values.reshape(-1), arrays[name].reshape(-1))
            else:
                arrays[name][...] = values

    def to_buffer(self) -> np.ndarray:  # noqa: D102
        return self.buffer if self.owned else self.buffer.copy()


def to_device(
    layout: BatchLayout, batch: PendingBatch, device: torch.device | None, memory: ReusedMemory
) -> dict[str, torch.Tensor]:
    """Return the arrays of a batch as tensors on ``device``, widened there; None: in narrow dtypes, on the CPU.

    Wide tensors on the CPU lie in ``memory``, which uses their bytes again when the caller has dropped them. On a CPU
    torch does not copy or convert tensors, because its parallel regions take milliseconds on busy cores.
    """
    if device is not None and device.type == "cpu":
        wide = {name: field.widened(memory) for name, field in layout.fields.items()}
        batch.write(wide)
        return {name: torch.from_numpy(array) for name, array in wide.items()}
    if device is not None and device.type == "cuda":
        narrow = torch.empty(layout.num_bytes, dtype=torch.uint8, pin_memory=True)
        batch.write(layout.views(narrow.numpy()))
    else:
        narrow = torch.from_numpy(batch.to_buffer())
    if device is None:
        return _tensor_views(layout, narrow)
    narrow = narrow.to(device, non_blocking=True)  # one transfer of narrow bytes, widened on the device
    return {
        name: tensor.to(_wide_dtype(layout.fields[name].dtype))
        for name, tensor in _tensor_views(layout, narrow).items()
    }


def _wide_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.int64 if dtype.kind in "iu" else torch.float32


def _tensor_views(layout: BatchLayout, buffer: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the arrays as views of ``buffer``, uint8[layout.num_bytes]."""
    return {
        name: buffer[field.offset : field.offset + field.num_bytes]
        .view(getattr(torch, field.dtype.name))
        .view(field.shape)
        for name, field in layout.fields.items()
    }
