"""Shards as WebDataset tars: one sample is a block of rows, one member a column of it as ``.npy``.

Keys are block numbers without a dot, because a WebDataset key ends at the first one. No pickle; time, owner and mode are constant.
"""

from __future__ import annotations

import io
import tarfile
from typing import Any

import numpy as np

from gemsdata.schema import Rows

SUFFIX = ".tar"
_TAR_BLOCK_BYTES = 512


class TarWriter:
    """Writes blocks of rows to a stream as a WebDataset tar."""

    def __init__(self, stream: Any, block_rows: int) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=_TAR_BLOCK_BYTES)
        self._block_rows = block_rows

    def write(self, first_row: int, rows: Rows, ranks: np.ndarray | None) -> None:
        """Append one block; its key is the number of the block in the split."""
        key = f"{first_row // self._block_rows:08d}"
        columns = {
            "input_ids": rows.input_ids,
            "num_tokens": rows.num_tokens,
            "contig": rows.contig,
            "start": rows.start,
        }
        if ranks is not None:
            columns["npmi_rank"] = ranks
        for name, values in columns.items():
            self._add(f"{key}.{name}.npy", values)

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()

    def _add(self, name: str, values: np.ndarray) -> None:
        content = io.BytesIO()
        np.lib.format.write_array(content, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
        member = tarfile.TarInfo(name)
        member.size = content.tell()
        member.mode = 0o644
        content.seek(0)
        self._tar.addfile(member, content)
