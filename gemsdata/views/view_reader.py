"""Base class of the readers of packed and of stored rows: batches of rows, and annotations of bases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import numpy as np

from gemsdata.kernels.bases import can_be_predicted, reverse_complement_rows, reverse_rows, token_means
from gemsdata.masking.token_rows import TokenRows
from gemsdata.shards.split_reader import SplitReader
from gemsdata.views.annotation import Annotation
from gemsdata.views.base_reader import BaseReader
from gemsdata.views.regions import contigs_of
from gemsdata.views.rows import RowSpec, ViewBuffer, ViewRows
from gemsdata.views.tokens import EncodedRows, Tokens
from gemsdata.views.windows import Located

_NO_FLAGS = np.empty((0, 0), np.bool_)
_Source = TypeVar("_Source", bound=BaseReader | SplitReader)


class ViewReader(ABC, Generic[_Source]):
    """Reads the rows of one split of a view: a `gemsdata.stream.row_reader.RowReader`.

    ``source`` reads the split's bases, or its stored rows.
    """

    def __init__(self, source: _Source, num_rows: int, spec: RowSpec) -> None:
        self._source = source
        self.spec, self.num_rows = spec, num_rows
        self.split = source.split
        self._annotation = Annotation(source.shards, contigs_of(source.shards), spec.options, spec.track)
        self.weighted = spec.options.weighted
        """whether rows have loss weights"""
        self.row_tokens, self.vocabulary = spec.row_tokens, spec.tokens.vocabulary
        self.k = spec.tokens.token_bases
        self.token_identity = spec.tokens.identity
        self.fingerprint = spec.fingerprint

    @property
    def needs_windows(self) -> bool:
        """Whether the split exceeds the cache, so that its order must read few shards at a time."""
        return self._source.needs_windows

    @property
    def fetches_ahead(self) -> bool:
        """Whether `fetch_ahead` can fetch another shard."""
        return self._source.fetches_ahead

    @abstractmethod
    def fetch_ahead(self, epoch: int, row_ids: np.ndarray) -> None:
        """Start to fetch the shards of rows; see `gemsdata.stream.row_reader.RowReader.fetch_ahead`."""

    def check_unchanged(self) -> None:
        """Raise ValueError if the data was changed since it was opened."""
        self._source.check_unchanged()

    @abstractmethod
    def rows(self, epoch: int, row_ids: np.ndarray, flip: np.ndarray | None = None) -> ViewRows:
        """Return rows ``row_ids`` (int64[B]; negative: an empty row) of an epoch.

        Where ``flip`` (uint8[B]) is not 0, a row becomes its reverse complement. A row with nothing to predict is
        replaced by another row of the epoch, drawn with its number as key.
        """

    def empty(self, num_rows: int) -> ViewBuffer:
        """Return a buffer for `read`."""
        return ViewBuffer()

    def read(self, epoch: int, row_ids: np.ndarray, flip: np.ndarray, out: ViewBuffer) -> tuple[int, str]:
        """Write rows ``row_ids`` of an epoch to ``out``; see `gemsdata.stream.row_reader.RowReader.read`."""
        out.rows = self.rows(epoch, row_ids, flip)
        row_ids[out.rows.lost] = -1
        return int(out.rows.lost.sum()), out.rows.why_lost

    def places(self, row_ids: np.ndarray, rows: ViewBuffer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (contig, start, end), int64[B] each, of rows that `read` has written to ``rows``."""
        return rows.rows.contig, rows.rows.start, rows.rows.end

    def loss_weights(self, rows: ViewBuffer) -> np.ndarray | None:
        """Return the weight of each token of ``rows``, float32[B, L]; None if the view has none."""
        return rows.rows.loss_weights

    def _annotated(
        self, located: Located, bases: np.ndarray, flip: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Reverse-complement rows of bases uint8[B, W] where ``flip`` is set; return maskable bases and weights."""
        num_bases = located.num_bases
        maskable = self._annotation.maskable(located, num_bases, bases.shape)
        weights = self._annotation.weights(located, num_bases, bases.shape)
        if flip.any():
            reverse_complement_rows(flip, num_bases, bases)
            for values in (maskable, weights):
                if values is not None:
                    reverse_rows(flip, num_bases, values)
        return maskable, weights

    def _predictable(self, located: Located, bases: np.ndarray) -> np.ndarray:
        """Return which rows of bases uint8[B, W] have something to predict, bool[B]."""
        tokens, num_bases, out = self.spec.tokens, located.num_bases, np.empty(len(bases), np.uint8)
        maskable = self._annotation.maskable(located, num_bases, bases.shape)
        token_bases = 1 if tokens.varying else tokens.token_bases
        can_be_predicted(bases, num_bases, _NO_FLAGS if maskable is None else maskable, token_bases, out)
        return out > 0

    def _token_weights(self, weights: np.ndarray | None, encoded: EncodedRows) -> np.ndarray | None:
        """Return the weight of each token, float32[B, L], the mean over the weights float32[B, W] of its bases."""
        if weights is None:
            return None
        tokens, out = self.spec.tokens, np.empty(encoded.input_ids.shape, np.float32)
        starts = encoded.token_start if encoded.token_start is not None else np.empty((0, 0), np.int32)
        token_means(weights, encoded.num_tokens, starts, tokens.token_bases, tokens.token_stride, out)
        return out


def token_rows(encoded: EncodedRows, bases: np.ndarray, tokens: Tokens, maskable: np.ndarray | None) -> TokenRows:
    """Return encoded rows with the bases under their tokens, for a `Masker`."""
    return TokenRows(
        input_ids=encoded.input_ids,
        num_tokens=encoded.num_tokens,
        bases=bases,
        num_bases=encoded.num_bases,
        token_bases=tokens.token_bases,
        token_stride=tokens.token_stride,
        token_start=encoded.token_start,
        maskable=maskable,
    )
