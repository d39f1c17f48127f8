"""Write rows with litdata's optimize, in a separate process because it starts workers.

python -m bench.write_litdata ROWS.npy OUT WORKERS [tokens]: with ``tokens`` for litdata's TokensLoader.
"""

from __future__ import annotations

import shutil
import sys

import numpy as np
import torch
from litdata import TokensLoader, optimize


def rows_of(span: tuple[str, int, int]) -> object:
    path, first, last = span
    rows = np.load(path, mmap_mode="r")
    for i in range(first, last):
        yield {"input_ids": np.array(rows[i])}


def tokens_of(span: tuple[str, int, int]) -> object:
    for row in rows_of(span):
        yield torch.from_numpy(row["input_ids"])


if __name__ == "__main__":
    path, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    tokens = "tokens" in sys.argv[4:]
    shutil.rmtree(out, ignore_errors=True)
    num_rows = len(np.load(path, mmap_mode="r"))
    step = -(-num_rows // (4 * workers))
    spans = [(path, first, min(first + step, num_rows)) for first in range(0, num_rows, step)]
    loader = TokensLoader() if tokens else None
    optimize(tokens_of if tokens else rows_of, spans, out, chunk_bytes="64MB", num_workers=workers, item_loader=loader)
