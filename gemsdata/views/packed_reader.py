"""Reader of a view of packed bases: any row of any epoch, ready for a batch."""

from __future__ import annotations

import numpy as np

from gemsdata.views.base_reader import BaseReader
from gemsdata.views.rows import RowSpec, ViewRows, read_predictable
from gemsdata.views.view_reader import ViewReader, token_rows
from gemsdata.views.windows import EpochWindows, Located


class PackedReader(ViewReader[BaseReader]):
    """Reads the rows of one split of a view of packed bases."""

    def __init__(self, source: BaseReader, windows: EpochWindows, spec: RowSpec) -> None:
        super().__init__(source, len(windows), spec)
        self.windows = windows
        self._may_be_empty = spec.options.unknown == "token" or self._annotation.restricts

    def fetch_ahead(self, epoch: int, row_ids: np.ndarray) -> None:  # noqa: D102
        located = self.windows.locate(epoch, row_ids[row_ids >= 0])
        self._source.fetch_ahead(located.contig, located.start, located.num_bases)

    def rows(self, epoch: int, row_ids: np.ndarray, flip: np.ndarray | None = None) -> ViewRows:  # noqa: D102
        count = len(row_ids)
        flip = np.zeros(count, np.uint8) if flip is None else flip
        bases = np.zeros((count, self.spec.row_bases), np.uint8)
        located, lost, why = self._read_bases(epoch, row_ids, bases)
        maskable, weights = self._annotated(located, bases, flip)
        encoded = self.spec.tokens.encode(bases, located.num_bases, self.spec.row_tokens)
        end = np.where(flip > 0, located.start + located.num_bases, located.start + encoded.num_bases)
        return ViewRows(
            tokens=token_rows(encoded, bases, self.spec.tokens, maskable),
            contig=located.contig,
            start=end - encoded.num_bases,
            end=end,
            loss_weights=self._token_weights(weights, encoded),
            lost=lost,
            why_lost=why,
        )

    def _read_bases(self, epoch: int, row_ids: np.ndarray, bases: np.ndarray) -> tuple[Located, np.ndarray, str]:
        """Write the bases of rows that have something to predict; return their positions, which are lost, and why."""
        contig, start, num_bases = (np.zeros(len(row_ids), np.int64) for _ in range(3))

        def read(slots: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
            located = self.windows.locate(epoch, ids)
            contig[slots], start[slots], num_bases[slots] = located.contig, located.start, located.num_bases
            part = bases if len(slots) == len(bases) else np.zeros((len(slots), bases.shape[1]), np.uint8)
            damaged, reason = self._source.read(located.contig, located.start, located.num_bases, part)
            if part is not bases:
                bases[slots] = part
            if not self._may_be_empty:
                return ~damaged, damaged, reason
            return self._predictable(located, part), damaged, reason

        options = self.spec.options
        lost, why = read_predictable(row_ids, read, epoch=epoch, seed=options.seed, num_rows=self.num_rows)
        num_bases[lost] = 0
        return Located(contig=contig, start=start, num_bases=num_bases), lost, why
