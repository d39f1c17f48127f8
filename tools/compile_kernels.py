"""Compile the largest kernels in two processes, so that later processes find them in the cache.

Numba keeps compiled kernels on disk, but processes that start together with an empty cache compile the same ones.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from gemsdata.genome.vocab import token_dtype, vocab_size
from gemsdata.masking.masker import Masker
from gemsdata.masking.token_rows import TokenRows, Vocabulary

# n-grams of uint16 and of uint32 ranks, and tokens that are these n-grams or single bases
KINDS = [(n, by_base) for n in (6, 8) for by_base in (False, True)]


def compile_masking(n: int, by_base: bool) -> None:
    """Mask one row, as a boolean mask, as spans and as a batch."""
    masker = Masker("genemask", ranks=np.ones(vocab_size(n), np.int64), vocabulary=Vocabulary.of_kmers(1))
    row_id, num_tokens = np.zeros(1, np.int64), np.full(1, 64)
    if by_base:
        bases = np.zeros((1, 64), np.uint8)
        rows = TokenRows(
            input_ids=bases.astype(np.uint16) + 5,
            num_tokens=num_tokens,
            bases=bases,
            num_bases=num_tokens,
            token_bases=1,
            token_stride=1,
        )
        masker.spans_of(rows, row_id)
        masker.mask_of(rows, row_id)
        masker.batch_of(rows, row_id)
    else:
        masker = Masker("genemask", ranks=masker.ranks)
        ids = np.full((1, 64), 5, token_dtype(n))
        masker.spans(ids, num_tokens, row_id)
        masker.mask(ids, num_tokens, row_id)
        masker.batch(ids, num_tokens, row_id)


def main() -> int:
    """Compile every kind in one of two processes."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(compile_masking, *zip(*KINDS, strict=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
