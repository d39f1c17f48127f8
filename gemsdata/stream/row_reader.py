"""The interface of a stream to its source of rows: a split of a shard set, or of a view of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gemsdata.masking.token_rows import Vocabulary

if TYPE_CHECKING:
    from gemsdata.shards.split_reader import SplitReader
    from gemsdata.views.view_reader import ViewReader


class RowReader(Protocol):
    """Random access to the rows of one split of a shard set or of a view.

    It has more than 12 members: ten are properties with which a stream checks that the readers of a mixture are
    compatible.
    """

    @property
    def num_rows(self) -> int:
        """Number of rows of an epoch, the same in every epoch."""

    @property
    def row_tokens(self) -> int:
        """Most tokens of a row, L."""

    @property
    def k(self) -> int:
        """Bases of a token."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The token ids."""

    @property
    def token_identity(self) -> str:
        """Kind of tokens: rows of the same kind can be in one batch."""

    @property
    def weighted(self) -> bool:
        """Whether rows have loss weights."""

    @property
    def split(self) -> str:
        """Which split of the set: "train" or "valid"."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the data: equal if every row of every epoch is equal."""

    @property
    def needs_windows(self) -> bool:
        """Whether the split exceeds the cache, so that its order must read few shards at a time."""

    @property
    def fetches_ahead(self) -> bool:
        """Whether `fetch_ahead` can fetch another shard; always False for a local set."""

    def fetch_ahead(self, epoch: int, row_ids: np.ndarray) -> None:
        """Start to fetch the shards of rows (int64[B], negative ones ignored) that will be read later."""

    def check_unchanged(self) -> None:
        """Raise ValueError if the data was changed since it was opened."""

    def empty(self, num_rows: int) -> Any:
        """Return a buffer of the reader's own kind, for `read`.

        Its ``tokens`` are `TokenRows`, or None if it has ``input_ids`` and ``num_tokens`` of overlapping k-mers.
        """

    def read(self, epoch: int, row_ids: np.ndarray, flip: np.ndarray, out: Any) -> tuple[int, str]:
        """Write rows ``row_ids`` of an epoch to ``out``, a buffer for this number of rows, which can be reused.

        Parameters
        ----------
        epoch
            from 0; used by readers whose windows differ between epochs.
        row_ids
            int64[B]; -1: an empty row. The entries of rows that are lost become -1.
        flip
            uint8[B]; where it is not 0, the row becomes its reverse complement.

        Returns
        -------
        num_lost, why
            number of rows lost to damage (they are read as empty rows), and the reason for one of them.
        """

    def places(self, row_ids: np.ndarray, rows: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (contig, start, end), int64[B] each, of rows ``row_ids`` that `read` has written to ``rows``.

        Bases [start, end) of the forward strand, whichever strand was read; undefined for an empty row.
        """

    def loss_weights(self, rows: Any) -> np.ndarray | None:
        """Return the weight of each token of ``rows``, float32[B, L]; None if rows have none."""


if TYPE_CHECKING:

    def _fulfil_the_protocol(rows: SplitReader, view: ViewReader) -> tuple[RowReader, ...]:
        return rows, view
