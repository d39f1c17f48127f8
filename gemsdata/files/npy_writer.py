"""Write arrays to .npy files in pieces, so that they need not fit in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class NpyWriter:
    """Appends arrays along their first axis; `close` completes the file. Readers may map it."""

    def __init__(self, path: Path, dtype: Any, row_shape: tuple[int, ...] = ()) -> None:
        self._stream = open(path, "wb")  # noqa: SIM115  (closed by `close`)
        self._dtype, self._row_shape = np.dtype(dtype), row_shape
        self.num_rows = 0
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        """Append rows, cast to the dtype of the file."""
        self._stream.write(np.ascontiguousarray(rows, self._dtype).data)
        self.num_rows += len(rows)

    def close(self) -> None:
        """Write the number of rows, and close the file."""
        if not self._stream.closed:
            self._stream.seek(0)
            self._write_header()
            self._stream.close()

    def _write_header(self) -> None:
        """Write the header; NumPy reserves space in it for any number of rows, so that its length does not change."""
        shape = (self.num_rows, *self._row_shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, header)


def open_npy(path: Path) -> np.ndarray:
    """Map an array of a .npy file; an empty one, which cannot be mapped, is loaded."""
    with open(path, "rb") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, _ = read(stream)
    return np.asarray(np.load(path, mmap_mode="r" if 0 not in shape else None, allow_pickle=False))
