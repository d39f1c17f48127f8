"""Write rows with litdata's optimize, in a process of its own because it starts workers."""

from __future__ import annotations

import shutil
import sys

import numpy as np
from litdata import optimize


def rows_of(span: tuple[str, int, int]) -> object:
    path, first, last = span
    rows = np.load(path, mmap_mode="r")
    for i in range(first, last):
        yield {"input_ids": np.array(rows[i])}


if __name__ == "__main__":
    path, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    shutil.rmtree(out, ignore_errors=True)
    num_rows = len(np.load(path, mmap_mode="r"))
    step = -(-num_rows // (4 * workers))
    spans = [(path, first, min(first + step, num_rows)) for first in range(0, num_rows, step)]
    optimize(rows_of, spans, out, chunk_bytes="64MB", num_workers=workers)
