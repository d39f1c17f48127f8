"""The window of row i of an epoch, in memory proportional to the number of stretches, not of rows.

A *stretch* is an interval of a contig that rows may come from. It is cut into rows of L tokens, the last one shorter.
With ``jitter``, the cuts of every stretch are shifted in each epoch: no two epochs have the same rows, each token is
still in exactly one row of an epoch, and the number of rows of an epoch does not depend on the shifts.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from gemsdata.kernels.keys import key_of
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.kernels.rows import count_rows, locate_rows


@dataclass(frozen=True, kw_only=True)
class Located:
    """Positions of B rows."""

    contig: np.ndarray
    """int64[B]"""
    start: np.ndarray
    """first base, 0-based in the contig, int64[B]"""
    num_bases: np.ndarray
    """int64[B]"""


@dataclass(frozen=True, kw_only=True)
class EpochWindows:
    """The rows of every epoch, cut from stretches."""

    stretches: np.ndarray
    """(contig, start, end) int64[m, 3], sorted, disjoint, half-open; each has at least one token"""
    row_tokens: int
    """L, tokens of a full row; its bases if tokens vary in length"""
    token_bases: int
    """bases of a token; 1 if tokens vary in length"""
    token_stride: int
    jitter: bool
    seed: int

    def __len__(self) -> int:
        return int(self._first_row[-1])

    @functools.cached_property
    def num_tokens(self) -> np.ndarray:
        """Tokens of each stretch, int64[m]."""
        bases = self.stretches[:, 2] - self.stretches[:, 1]
        return np.maximum((bases - self.token_bases) // self.token_stride + 1, 0)

    @functools.cached_property
    def _first_row(self) -> np.ndarray:
        rows = np.empty(len(self.stretches), np.int64)
        count_rows(self.num_tokens, self.row_tokens, self.jitter, rows)
        return np.concatenate([[0], np.cumsum(rows)])

    def identity(self) -> bytes:
        """Return the bytes that identify the stretches in a fingerprint."""
        return self.stretches.astype("<i8").tobytes()

    def locate(self, epoch: int, rows: np.ndarray) -> Located:
        """Return the positions of rows (integers[B], 0 .. len - 1) of an epoch, O(log m) each."""
        found = np.empty((len(rows), 3), np.int64)
        key = np.uint64(key_of(self.seed, RandomStream.WINDOW_SHIFT, epoch))
        rows = np.ascontiguousarray(rows, np.int64)
        locate_rows(self._first_row, self.num_tokens, self.row_tokens, self.jitter, key, rows, found)
        stretch, first, count = found.T
        return Located(
            contig=self.stretches[stretch, 0],
            start=self.stretches[stretch, 1] + first * self.token_stride,
            num_bases=(count - 1) * self.token_stride + self.token_bases,
        )


def cut_stretches(
    stretches: np.ndarray, *, row_tokens: int, token_bases: int, token_stride: int, jitter: bool, seed: int
) -> EpochWindows:
    """Cut stretches (contig, start, end) int64[m, 3] into rows; stretches shorter than a token give none."""
    kept = stretches[stretches[:, 2] - stretches[:, 1] >= token_bases]
    return EpochWindows(
        stretches=np.ascontiguousarray(kept),
        row_tokens=row_tokens,
        token_bases=token_bases,
        token_stride=token_stride,
        jitter=jitter,
        seed=seed,
    )
