"""Gather rows from memory-mapped files by address, in one pass that releases the GIL.

A batch of a shuffled stream takes each row from another block. One call for all rows, instead of one numpy call per
block, keeps the Python overhead of a batch independent of the number of shards.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np

from gemsdata.kernels.jit import jit

if numba.config.DISABLE_JIT:

    def pointer(address: int) -> Any:
        """Return a void pointer of an integer."""
        return ctypes.c_void_p(int(address))

else:
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def pointer(typing_context: Any, address: Any) -> Any:
        """Make a void pointer of an integer."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], cgutils.voidptr_t)

        return types.voidptr(types.int64), generate


@jit
def gather(
    ids_address: np.ndarray,
    count_address: np.ndarray,
    flip: np.ndarray,
    complement: np.ndarray,
    input_ids: np.ndarray,
    num_tokens: np.ndarray,
) -> None:
    """Copy rows to input_ids [B, L] and num_tokens uint16[B].

    Row i's ids, in the dtype of input_ids, begin at address ids_address[i] (int64[B]; 0: no row, an empty one is
    written); its number of tokens is the uint16 at count_address[i]. Where flip[i] (uint8[B]) the row becomes its
    reverse complement: tokens in reversed order, each through ``complement`` (as vocab.reverse_complement_ids).
    """
    length = input_ids.shape[1]
    for i in range(ids_address.size):
        if ids_address[i] == 0:
            num_tokens[i] = 0
            input_ids[i, :] = 0
            continue
        source = numba.carray(pointer(ids_address[i]), (length,), input_ids.dtype)
        num_tokens[i] = numba.carray(pointer(count_address[i]), (1,), num_tokens.dtype)[0]
        if flip[i] == 0:
            input_ids[i, :] = source
            continue
        tokens = min(np.int64(num_tokens[i]), length)
        for t in range(tokens):
            token_id = source[tokens - 1 - t]
            input_ids[i, t] = complement[token_id] if token_id < complement.size else token_id
        input_ids[i, tokens:] = 0


@jit
def gather_places(contig_address: np.ndarray, start_address: np.ndarray, wide: bool, out: np.ndarray) -> None:
    """Copy contig (uint16, ``wide``: uint32) and start (int64) of rows from int64[B] addresses to out int64[2, B].

    Where an address of a contig is 0 there is no row: both become 0.
    """
    for i in range(contig_address.size):
        out[0, i], out[1, i] = 0, 0
        if contig_address[i] == 0:
            continue
        if wide:
            out[0, i] = numba.carray(pointer(contig_address[i]), (1,), np.uint32)[0]
        else:
            out[0, i] = numba.carray(pointer(contig_address[i]), (1,), np.uint16)[0]
        out[1, i] = numba.carray(pointer(start_address[i]), (1,), np.int64)[0]


@jit
def draw_below(keys: np.ndarray, threshold: np.uint64, out: np.ndarray) -> None:
    """Set out[i] (uint8[B]) to whether keys[i] (uint64[B], uniform) is below ``threshold``."""
    for i in range(keys.size):
        out[i] = keys[i] < threshold
