"""Reader of a view of stored tokens: rows with their bases, ready for a batch."""

from __future__ import annotations

import numpy as np

from gemsdata.shards.split_reader import SplitReader
from gemsdata.views.rows import RowSpec, ViewRows, read_predictable
from gemsdata.views.stored_windows import StoredWindows
from gemsdata.views.tokens import EncodedRows
from gemsdata.views.view_reader import ViewReader, token_rows
from gemsdata.views.windows import Located


class StoredReader(ViewReader[SplitReader]):
    """Reads the rows of one split of a view of stored tokens."""

    def __init__(self, source: SplitReader, windows: StoredWindows, spec: RowSpec) -> None:
        super().__init__(source, len(windows), spec)
        self.windows = windows

    def fetch_ahead(self, epoch: int, row_ids: np.ndarray) -> None:  # noqa: D102
        self._source.fetch_ahead(epoch, self.windows.stored(row_ids[row_ids >= 0]))

    def rows(self, epoch: int, row_ids: np.ndarray, flip: np.ndarray | None = None) -> ViewRows:  # noqa: D102
        flip = np.zeros(len(row_ids), np.uint8) if flip is None else flip
        encoded, bases, located, lost, why = self._read(epoch, row_ids)
        maskable, weights = self._annotated(located, bases, flip)
        if flip.any():
            encoded = self.spec.tokens.encode(bases, located.num_bases, self.spec.row_tokens)
        return ViewRows(
            tokens=token_rows(encoded, bases, self.spec.tokens, maskable),
            contig=located.contig,
            start=located.start,
            end=located.start + encoded.num_bases,
            loss_weights=self._token_weights(weights, encoded),
            lost=lost,
            why_lost=why,
        )

    def _read(self, epoch: int, row_ids: np.ndarray) -> tuple[EncodedRows, np.ndarray, Located, np.ndarray, str]:
        """Return rows as stored, their bases uint8[B, W], their positions, which are lost, and why."""
        stored = np.full(len(row_ids), -1, np.int64)

        def read(slots: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
            stored[slots] = self.windows.stored(ids)
            if not self._annotation.restricts:
                return np.ones(len(ids), bool), np.zeros(len(ids), bool), ""
            encoded, bases, damaged, reason = self._decoded(stored[slots])
            located = self._located(stored[slots], encoded.num_bases)
            return self._predictable(located, bases), damaged, reason

        options = self.spec.options
        lost, why = read_predictable(row_ids, read, epoch=epoch, seed=options.seed, num_rows=self.num_rows)
        stored[lost] = -1
        encoded, bases, damaged, reason = self._decoded(stored)
        return encoded, bases, self._located(stored, encoded.num_bases), lost | damaged, why or reason

    def _decoded(self, stored: np.ndarray) -> tuple[EncodedRows, np.ndarray, np.ndarray, str]:
        """Return stored rows int64[B] (negative: none), their bases, which are damaged, bool[B], and a reason."""
        read_ids = stored.copy()
        out = self._source.empty(len(stored))
        _, why = self._source.read(0, read_ids, np.zeros(len(stored), np.uint8), out)
        encoded, bases = self.spec.tokens.decode(out.input_ids, out.num_tokens.astype(np.int64), self.spec.row_bases)
        return encoded, bases, (read_ids < 0) & (stored >= 0), why

    def _located(self, stored: np.ndarray, num_bases: np.ndarray) -> Located:
        """Return the positions of stored rows of int64[B] bases; undefined for negative row ids."""
        contig, start = self._source.starts(stored)
        return Located(contig=contig, start=start, num_bases=num_bases)
