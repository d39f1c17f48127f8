"""The rows of a view of packed bases, as they go into a batch: any row of any epoch."""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.bases import can_be_predicted, reverse_complement_rows, reverse_rows, token_means
from gemsdata.masking.token_rows import TokenRows
from gemsdata.shards.shard_set import ShardSet
from gemsdata.views.annotation import Annotation
from gemsdata.views.base_reader import BaseReader
from gemsdata.views.rows import RowSpec, ViewBuffer, ViewRows, read_predictable
from gemsdata.views.tokens import EncodedRows, Tokens
from gemsdata.views.windows import EpochWindows, Located

NO_FLAGS = np.empty((0, 0), np.bool_)


class ViewReader:
    """Reads the rows of one split of a view of packed bases: a `gemsdata.stream.row_reader.RowReader`."""

    def __init__(
        self,
        shards: ShardSet,
        split: str,
        windows: EpochWindows,
        spec: RowSpec,
        *,
        check: str = "hash",
        faults: str = "raise",
    ) -> None:
        self.split, self.windows, self.spec = split, windows, spec
        self.num_rows = len(windows)
        self._bases = BaseReader(shards, split, check=check, faults=faults)
        self._annotation = Annotation(shards, self._bases.contigs, spec.options, spec.track)
        self.weighted = spec.options.weighted
        """whether rows have weights of the loss"""
        self.row_tokens, self.vocabulary = spec.row_tokens, spec.tokens.vocabulary
        self.k = spec.tokens.token_bases
        self.token_identity = spec.tokens.identity
        self.fingerprint = spec.fingerprint
        self._may_be_empty = spec.options.unknown == "token" or self._annotation.restricts

    @property
    def needs_windows(self) -> bool:
        """Whether the split does not fit the cache, so that its order must touch few shards at a time."""
        return self._bases.passing

    def check_unchanged(self) -> None:
        """Raise ValueError when what is read was changed since it was opened."""
        self._bases.check_unchanged()

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
        count, tokens = len(row_ids), self.spec.tokens
        flip = np.zeros(count, np.uint8) if flip is None else flip
        bases = np.zeros((count, self.spec.row_bases), np.uint8)
        located, lost, why = self._read_bases(epoch, row_ids, bases)
        contig, start, num_bases = located.contig, located.start, located.num_bases
        maskable = self._annotation.maskable(located, num_bases, bases.shape)
        weights = self._annotation.weights(located, num_bases, bases.shape)
        if flip.any():
            reverse_complement_rows(flip, num_bases, bases)
            for values in (maskable, weights):
                if values is not None:
                    reverse_rows(flip, num_bases, values)
        encoded = tokens.encode(bases, num_bases, self.spec.row_tokens)
        end = np.where(flip > 0, start + num_bases, start + encoded.num_bases)
        return ViewRows(
            tokens=token_rows(encoded, bases, tokens, maskable),
            contig=contig,
            start=end - encoded.num_bases,
            end=end,
            loss_weights=None if weights is None else mean_weights(weights, encoded, tokens),
            lost=lost,
            why_lost=why,
        )

    def _read_bases(self, epoch: int, row_ids: np.ndarray, bases: np.ndarray) -> tuple[Located, np.ndarray, str]:
        """Write the bases of rows, each with something to predict; return where they lie, which are lost and why."""
        contig, start, num_bases = (np.zeros(len(row_ids), np.int64) for _ in range(3))

        def read(slots: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
            located = self.windows.locate(epoch, ids)
            contig[slots], start[slots], num_bases[slots] = located.contig, located.start, located.num_bases
            part = bases if len(slots) == len(bases) else np.zeros((len(slots), bases.shape[1]), np.uint8)
            damaged, reason = self._bases.read(located.contig, located.start, located.num_bases, part)
            if part is not bases:
                bases[slots] = part
            if not self._may_be_empty:
                return ~damaged, damaged, reason
            maskable = self._annotation.maskable(located, located.num_bases, part.shape)
            return predictable(part, located.num_bases, maskable, self.spec.tokens), damaged, reason

        options = self.spec.options
        lost, why = read_predictable(row_ids, read, epoch=epoch, seed=options.seed, num_rows=self.num_rows)
        num_bases[lost] = 0
        return Located(contig=contig, start=start, num_bases=num_bases), lost, why


def predictable(bases: np.ndarray, num_bases: np.ndarray, maskable: np.ndarray | None, tokens: Tokens) -> np.ndarray:
    """Return which rows of bases uint8[B, W] hold something to predict, bool[B]; ``maskable`` as in `TokenRows`."""
    out = np.empty(len(bases), np.uint8)
    token_bases = 1 if tokens.varying else tokens.token_bases
    can_be_predicted(bases, num_bases, NO_FLAGS if maskable is None else maskable, token_bases, out)
    return out > 0


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


def mean_weights(weights: np.ndarray, encoded: EncodedRows, tokens: Tokens) -> np.ndarray:
    """Return the weight of each token, float32[B, L], the mean over the weights float32[B, W] of its bases."""
    out = np.empty(encoded.input_ids.shape, np.float32)
    starts = encoded.token_start if encoded.token_start is not None else np.empty((0, 0), np.int32)
    token_means(weights, encoded.num_tokens, starts, tokens.token_bases, tokens.token_stride, out)
    return out
