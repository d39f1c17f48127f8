"""The rows of a view of stored tokens, as they go into a batch, with the bases under them."""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.bases import reverse_complement_rows, reverse_rows
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.split_reader import SplitReader
from gemsdata.views.annotation import Annotation
from gemsdata.views.reader import mean_weights, predictable, token_rows
from gemsdata.views.regions import contigs_of
from gemsdata.views.rows import RowSpec, ViewBuffer, ViewRows, read_predictable
from gemsdata.views.stored_windows import StoredWindows
from gemsdata.views.tokens import EncodedRows
from gemsdata.views.windows import Located


class StoredReader:
    """Reads the rows of one split of a view of stored tokens: a `gemsdata.stream.row_reader.RowReader`."""

    def __init__(
        self,
        shards: ShardSet,
        split: str,
        windows: StoredWindows,
        spec: RowSpec,
        *,
        check: str = "hash",
        faults: str = "raise",
    ) -> None:
        self.split, self.windows, self.spec = split, windows, spec
        self.num_rows = len(windows)
        self._stored = SplitReader(shards, split, check=check, faults=faults)
        self._annotation = Annotation(shards, contigs_of(shards), spec.options, spec.track)
        self.weighted = spec.options.weighted
        """whether rows have weights of the loss"""
        self.row_tokens, self.vocabulary = spec.row_tokens, spec.tokens.vocabulary
        self.k = spec.tokens.token_bases
        self.token_identity = spec.tokens.identity
        self.fingerprint = spec.fingerprint

    @property
    def needs_windows(self) -> bool:
        """Whether the split does not fit the cache, so that its order must touch few shards at a time."""
        return self._stored.needs_windows

    def check_unchanged(self) -> None:
        """Raise ValueError when what is read was changed since it was opened."""
        self._stored.check_unchanged()

    def empty(self, num_rows: int) -> ViewBuffer:
        """Return a buffer for `read`."""
        return ViewBuffer()

    def read(self, epoch: int, row_ids: np.ndarray, flip: np.ndarray, out: ViewBuffer) -> tuple[int, str]:
        """Put rows ``row_ids`` of an epoch into ``out``; see `gemsdata.stream.row_reader.RowReader.read`."""
        out.rows = self.rows(epoch, row_ids, flip)
        row_ids[out.rows.lost] = -1
        return int(out.rows.lost.sum()), out.rows.why_lost

    def places(self, row_ids: np.ndarray, rows: ViewBuffer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (contig, start, end), int64[B] each, of rows that `read` has put into ``rows``."""
        return rows.rows.contig, rows.rows.start, rows.rows.end

    def loss_weights(self, rows: ViewBuffer) -> np.ndarray | None:
        """Return the weight of each token of ``rows``, float32[B, L]; None where the view gives none."""
        return rows.rows.loss_weights

    def rows(self, epoch: int, row_ids: np.ndarray, flip: np.ndarray | None = None) -> ViewRows:
        """Return rows ``row_ids`` (int64[B]; negative: an empty row) of an epoch.

        Where ``flip`` (uint8[B]) is not 0, a row becomes its reverse complement. A row with nothing to predict gives
        its place to another of the epoch, drawn by its number.
        """
        tokens = self.spec.tokens
        flip = np.zeros(len(row_ids), np.uint8) if flip is None else flip
        encoded, bases, located, lost, why = self._read(epoch, row_ids)
        maskable = self._annotation.maskable(located, located.num_bases, bases.shape)
        weights = self._annotation.weights(located, located.num_bases, bases.shape)
        if flip.any():
            reverse_complement_rows(flip, located.num_bases, bases)
            for values in (maskable, weights):
                if values is not None:
                    reverse_rows(flip, located.num_bases, values)
            encoded = tokens.encode(bases, located.num_bases, self.spec.row_tokens)
        return ViewRows(
            tokens=token_rows(encoded, bases, tokens, maskable),
            contig=located.contig,
            start=located.start,
            end=located.start + encoded.num_bases,
            loss_weights=None if weights is None else mean_weights(weights, encoded, tokens),
            lost=lost,
            why_lost=why,
        )

    def _read(self, epoch: int, row_ids: np.ndarray) -> tuple[EncodedRows, np.ndarray, Located, np.ndarray, str]:
        """Return rows as stored, their bases uint8[B, W], where they lie, which are lost and why."""
        stored = np.full(len(row_ids), -1, np.int64)

        def read(slots: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
            stored[slots] = self.windows.stored(ids)
            if not self._annotation.restricts:
                return np.ones(len(ids), bool), np.zeros(len(ids), bool), ""
            encoded, bases, damaged, reason = self._decoded(stored[slots])
            located = self._located(stored[slots], encoded.num_bases)
            maskable = self._annotation.maskable(located, encoded.num_bases, bases.shape)
            return predictable(bases, encoded.num_bases, maskable, self.spec.tokens), damaged, reason

        options = self.spec.options
        lost, why = read_predictable(row_ids, read, epoch=epoch, seed=options.seed, num_rows=self.num_rows)
        stored[lost] = -1
        encoded, bases, damaged, reason = self._decoded(stored)
        return encoded, bases, self._located(stored, encoded.num_bases), lost | damaged, why or reason

    def _decoded(self, stored: np.ndarray) -> tuple[EncodedRows, np.ndarray, np.ndarray, str]:
        """Return stored rows int64[B] (negative: none), their bases, which are damaged, bool[B], and why one is."""
        read_ids = stored.copy()
        out = self._stored.empty(len(stored))
        _, why = self._stored.read(0, read_ids, np.zeros(len(stored), np.uint8), out)
        encoded, bases = self.spec.tokens.decode(out.input_ids, out.num_tokens.astype(np.int64), self.spec.row_bases)
        return encoded, bases, (read_ids < 0) & (stored >= 0), why

    def _located(self, stored: np.ndarray, num_bases: np.ndarray) -> Located:
        """Return where stored rows of int64[B] bases lie; rows that are none lie anywhere."""
        contig, start = self._stored.starts(stored)
        return Located(contig=contig, start=start, num_bases=num_bases)
