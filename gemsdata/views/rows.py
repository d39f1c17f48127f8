"""Rows of a view in memory, and the rule for rows with nothing to predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gemsdata.kernels.keys import keys_of
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.masking.token_rows import TokenRows
from gemsdata.views.options import ViewOptions
from gemsdata.views.tokens import Tokens
from gemsdata.views.track import Track

_MOST_REDRAWS = 64


@dataclass(frozen=True, kw_only=True)
class RowSpec:
    """The dimensions, tokens and vocabulary of the rows of a view."""

    tokens: Tokens
    row_tokens: int
    """maximum number of tokens in a row, L"""
    row_bases: int
    """maximum number of bases in a row, W"""
    options: ViewOptions
    track: Track | None
    fingerprint: str
    """fingerprint of the rows of every epoch"""


@dataclass(frozen=True, kw_only=True)
class ViewRows:
    """B rows of a view."""

    tokens: TokenRows
    """their tokens, and the bases under them; a lost row has none"""
    contig: np.ndarray
    """index into the set's contigs, int64[B]"""
    start: np.ndarray
    """first base that a token covers, 0-based in the contig, on the forward strand, int64[B]"""
    end: np.ndarray
    """one past the last, int64[B]"""
    loss_weights: np.ndarray | None
    """weight of each token, the mean over its bases, float32[B, L]; None if the view has no weights"""
    lost: np.ndarray
    """rows that could not be read, or have nothing to predict, bool[B]"""
    why_lost: str


class ViewBuffer:
    """The buffer of a reader of a view; every read replaces its rows."""

    rows: ViewRows

    @property
    def tokens(self) -> TokenRows:
        """Tokens of the rows, and the bases under them."""
        return self.rows.tokens


ReadSlots = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, str]]
"""(slots, row ids), int64[n] each -> which rows have something to predict and which are damaged, bool[n], and a
reason"""


def read_predictable(
    row_ids: np.ndarray, read: ReadSlots, *, epoch: int, seed: int, num_rows: int
) -> tuple[np.ndarray, str]:
    """Read rows ``row_ids`` (int64[B]; negative: none) into slots 0 .. B - 1 with ``read``.

    A row with nothing to predict is replaced by another row of the epoch, drawn with its number as key. Returns which
    slots are lost, to damage or because no replacement was found, bool[B], and the reason for one of them.
    """
    lost, why = np.zeros(len(row_ids), bool), ""
    slots = np.flatnonzero(row_ids >= 0)
    ids = row_ids[slots]
    for attempt in range(1, _MOST_REDRAWS + 1):
        predictable, damaged, reason = read(slots, ids)
        lost[slots] |= damaged
        why = why or reason
        slots = slots[~predictable & ~damaged]
        if not slots.size:
            return lost, why
        keys = keys_of((seed, RandomStream.ROW_REDRAW, epoch, attempt), row_ids[slots][:, None])
        ids = (keys % np.uint64(num_rows)).astype(np.int64)
    lost[slots] = True
    return lost, why or f"nothing to predict in {_MOST_REDRAWS} rows in succession"
