"""One buffer per batch: where each narrow array lies, so that a batch travels in one piece and is viewed, uncopied."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gemsdata.kernels.widen import widen

_ALIGNMENT = 64


@dataclass(frozen=True, kw_only=True)
class BatchLayout:
    """How a batch of ``num_rows`` rows of ``width`` tokens ([CLS] and [SEP] included) lies in one uint8 buffer."""

    num_rows: int
    width: int
    id_dtype: str
    label_dtype: str

    @functools.cached_property
    def fields(self) -> dict[str, tuple[int, tuple[int, ...], np.dtype]]:
        """Return the offset in bytes, the shape and the dtype of every array."""
        shape = (self.num_rows, self.width)
        wanted = {
            "input_ids": (shape, np.dtype(self.id_dtype)),
            "labels": (shape, np.dtype(self.label_dtype)),
            "attention_mask": (shape, np.dtype(np.uint8)),
            "sample_ids": ((self.num_rows,), np.dtype(np.int64)),
        }
        fields = {}
        offset = 0
        for name, (size, dtype) in wanted.items():
            fields[name] = (offset, size, dtype)
            offset += -(-math.prod(size) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        return fields

    @property
    def num_bytes(self) -> int:
        """Bytes of a buffer."""
        offset, shape, dtype = self.fields["sample_ids"]
        return offset + math.prod(shape) * dtype.itemsize

    def empty(self) -> np.ndarray:
        """Return a new buffer, uint8[num_bytes]."""
        return np.empty(self.num_bytes, np.uint8)

    def views(self, buffer: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of a batch as views of ``buffer`` (uint8[num_bytes])."""
        return {
            name: buffer[offset : offset + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
            for name, (offset, shape, dtype) in self.fields.items()
        }


class Parcel(Protocol):
    """A batch on its way to the training; it is opened, once, when its turn has come."""

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the batch to arrays of the layout's shapes and any integers wide enough."""

    def take(self) -> np.ndarray:
        """Return the batch as a buffer of the layout, nobody else's."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A parcel that lies in a buffer."""

    layout: BatchLayout
    buffer: np.ndarray
    """uint8[layout.num_bytes]"""
    fresh: bool
    """nobody writes to the buffer again"""

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:  # noqa: D102
        for name, values in self.layout.views(self.buffer).items():
            widen(values.reshape(-1), arrays[name].reshape(-1))

    def take(self) -> np.ndarray:  # noqa: D102
        return self.buffer if self.fresh else self.buffer.copy()
