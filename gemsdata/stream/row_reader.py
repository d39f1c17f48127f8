"""The interface between a stream and what it reads rows from: a split of a shard set, or of a view of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gemsdata.masking.token_rows import Vocabulary

if TYPE_CHECKING:
    from gemsdata.shards.split_reader import SplitReader
    from gemsdata.views.view_reader import ViewReader


class RowReader(Protocol):
    """Random access to the rows of one split of a shard set or of a view.

    More than 12 members: ten are properties by which a stream checks that the readers of a mixture fit together.
    """

    @property
    def num_rows(self) -> int:
        """Rows of an epoch, the same number in every epoch."""

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
        """What kind of tokens: rows of equal kinds may stand in one batch."""

    @property
    def weighted(self) -> bool:
        """Whether rows have weights of the loss."""

    @property
    def split(self) -> str:
        """Which split of the set: "train" or "valid"."""

    @property
    def fingerprint(self) -> str:
        """Identity of what can be read: equal where every row of every epoch is equal."""

    @property
    def needs_windows(self) -> bool:
        """Whether the split does not fit the cache, so that its order must touch few shards at a time."""

    def check_unchanged(self) -> None:
        """Raise ValueError when what is read was changed since it was opened."""

    def empty(self, num_rows: int) -> Any:
        """Return a buffer of the reader's own kind, for `read`.

        Its ``tokens`` are `TokenRows`; or None, and it has ``input_ids`` and ``num_tokens`` of overlapping k-mers.
        """

    def read(self, epoch: int, row_ids: np.ndarray, flip: np.ndarray, out: Any) -> tuple[int, str]:
        """Write rows ``row_ids`` of an epoch to ``out``, which is of their number and may be used again.

        Parameters
        ----------
        epoch
            from 0; a reader whose windows differ from epoch to epoch looks at it.
        row_ids
            int64[B]; -1: an empty row. The entries of rows that are lost become -1.
        flip
            uint8[B]; where it is not 0, the row becomes its reverse complement.

        Returns
        -------
        num_lost, why
            how many rows were lost to damage (they read as empty), and why one of them was.
        """

    def places(self, row_ids: np.ndarray, rows: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (contig, start, end), int64[B] each, of rows ``row_ids`` that `read` has written to ``rows``.

        Bases [start, end) of the forward strand, whichever strand was read; anything for an empty row.
        """

    def loss_weights(self, rows: Any) -> np.ndarray | None:
        """Return the weight of each token of ``rows``, float32[B, L]; None where rows have none."""


if TYPE_CHECKING:

    def _fulfil_the_protocol(rows: SplitReader, view: ViewReader) -> tuple[RowReader, ...]:
        return rows, view
