"""Rows gathered by address against lists."""

from __future__ import annotations

import numpy as np
import pytest

from gemsdata.kernels.gather import draw_below, gather


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_rows_are_copied_or_turned_from_where_they_lie(dtype):
    """A row without an address is empty; ids without a complement stay; no row is longer than its place."""
    length = 6
    rows = np.random.default_rng(0).integers(1, 12, (5, length)).astype(dtype)
    counts = np.array([6, 4, 0, 9, 1], np.uint16)
    complement = np.array([0, 3, 5, 1, 9, 2, 7, 6, 8, 4], dtype)
    order = [(3, 0), (None, 1), (0, 1), (1, 1), (1, 0), (3, 1), (2, 1), (4, 1), (None, 0)]
    ids_address = [0 if i is None else rows.ctypes.data + i * rows.strides[0] for i, _ in order]
    count_address = [0 if i is None else counts.ctypes.data + 2 * i for i, _ in order]
    flip = np.array([turned for _, turned in order], np.uint8)
    out, num_tokens = np.full((len(order), length), 99, dtype), np.full(len(order), 99, np.uint16)
    gather(np.array(ids_address, np.int64), np.array(count_address, np.int64), flip, complement, out, num_tokens)
    for (i, turned), row, tokens in zip(order, out.tolist(), num_tokens, strict=True):
        ids = [] if i is None else rows[i].tolist()
        assert tokens == (0 if i is None else counts[i])
        if turned and ids:
            ids = [complement[v] if v < len(complement) else v for v in ids[: int(tokens)][::-1]]
        assert row == ids + [0] * (length - len(ids))


def test_a_key_is_drawn_below_a_threshold_that_it_does_not_reach():
    keys = np.array([0, 6, 7, 8, 2**64 - 1], np.uint64)
    out = np.full(5, 9, np.uint8)
    draw_below(keys, np.uint64(7), out)
    assert out.tolist() == [1, 1, 0, 0, 0]
