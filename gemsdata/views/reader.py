"""The rows of a view, as they go into a batch: any row of any epoch, from the packed bases of a shard set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemsdata.kernels.bases import can_be_predicted, reverse_complement_rows, reverse_rows, token_means
from gemsdata.kernels.keys import keys_of
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.masking.token_rows import TokenRows
from gemsdata.views.base_reader import BaseReader
from gemsdata.views.windows import Located

if TYPE_CHECKING:
    from gemsdata.views.view import View

_MOST_REDRAWS = 64


@dataclass(frozen=True, kw_only=True)
class ViewRows:
    """B rows of a view."""

    tokens: TokenRows
    """their tokens, and the bases under them; a row that was lost has none"""
    contig: np.ndarray
    """index into the set's contigs, int64[B]"""
    start: np.ndarray
    """first base that a token covers, 0-based in the contig, on the forward strand, int64[B]"""
    end: np.ndarray
    """one past the last, int64[B]"""
    loss_weights: np.ndarray | None
    """weight of each token, the mean over its bases, float32[B, L]; None where the view gives no weights"""
    lost: np.ndarray
    """rows that could not be read, or hold nothing to predict, bool[B]"""
    why_lost: str


class ViewBuffer:
    """What `ViewReader.read` fills: rows of its own each time."""

    rows: ViewRows

    @property
    def tokens(self) -> TokenRows:
        """Tokens of the rows, and the bases under them."""
        return self.rows.tokens


class ViewReader:
    """Reads the rows of one split of a view of packed bases."""

    def __init__(self, view: View, split: str, *, check: str = "size", faults: str = "raise") -> None:
        self.view, self.split = view, split
        self.windows = view.windows(split)
        self.num_rows = len(self.windows)
        self._bases = BaseReader(view.shards, split, check=check, faults=faults)
        options = view.options
        self.weighted = options.weighted
        """whether rows have weights of the loss"""
        self.row_tokens, self.vocabulary = view.row_tokens, view.vocabulary
        self.k = view.tokens.token_bases
        self.token_identity = view.tokens.identity
        self.fingerprint = view.fingerprint
        self._may_be_empty = options.unknown == "token" or not options.mask_soft_masked

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
        view, count = self.view, len(row_ids)
        flip = np.zeros(count, np.uint8) if flip is None else flip
        bases = np.zeros((count, view.row_bases), np.uint8)
        place, lost, why = self._read_bases(epoch, row_ids, bases)
        contig, start, num_bases = place
        maskable = None
        if not view.options.mask_soft_masked:
            maskable = np.ones(bases.shape, np.bool_)
            self._bases.mark_soft(contig, start, num_bases, False, maskable)
        weights = self._base_weights(contig, start, num_bases, bases.shape) if self.weighted else None
        if flip.any():
            reverse_complement_rows(flip, num_bases, bases)
            for values in (maskable, weights):
                if values is not None:
                    reverse_rows(flip, num_bases, values)
        encoded = view.tokens.encode(bases, num_bases, view.row_tokens)
        end = np.where(flip > 0, start + num_bases, start + encoded.num_bases)
        token_weights = None
        if weights is not None:
            token_weights = np.empty(encoded.input_ids.shape, np.float32)
            starts = encoded.token_start if encoded.token_start is not None else np.empty((0, 0), np.int32)
            token_means(
                weights, encoded.num_tokens, starts, view.tokens.token_bases, view.tokens.token_stride, token_weights
            )
        return ViewRows(
            tokens=TokenRows(
                input_ids=encoded.input_ids,
                num_tokens=encoded.num_tokens,
                bases=bases,
                num_bases=encoded.num_bases,
                token_bases=view.tokens.token_bases,
                token_stride=view.tokens.token_stride,
                token_start=encoded.token_start,
                maskable=maskable,
            ),
            contig=contig,
            start=end - encoded.num_bases,
            end=end,
            loss_weights=token_weights,
            lost=lost,
            why_lost=why,
        )

    def _read_bases(
        self, epoch: int, row_ids: np.ndarray, bases: np.ndarray
    ) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray, str]:
        """Write the bases of rows, each with something to predict; return (contig, start, num_bases), lost and why."""
        contig, start, num_bases = (np.zeros(len(row_ids), np.int64) for _ in range(3))
        lost = np.zeros(len(row_ids), bool)
        why = ""
        wanted = np.flatnonzero(row_ids >= 0)
        ids = row_ids[wanted]
        for attempt in range(1, _MOST_REDRAWS + 1):
            located = self.windows.locate(epoch, ids)
            contig[wanted], start[wanted], num_bases[wanted] = located.contig, located.start, located.num_bases
            part = bases if len(wanted) == len(bases) else np.zeros((len(wanted), bases.shape[1]), np.uint8)
            damaged, reason = self._bases.read(located.contig, located.start, located.num_bases, part)
            if part is not bases:
                bases[wanted] = part
            lost[wanted] |= damaged
            num_bases[wanted[damaged]] = 0
            why = why or reason
            if not self._may_be_empty:
                break
            again = wanted[~self._can_be_predicted(located, part) & ~damaged]
            if not again.size:
                break
            if attempt == _MOST_REDRAWS:
                lost[again], num_bases[again] = True, 0
                why = why or f"nothing to predict in {_MOST_REDRAWS} rows in succession"
                break
            keys = keys_of((self.view.options.seed, RandomStream.ROW_REDRAW, epoch, attempt), row_ids[again][:, None])
            wanted, ids = again, (keys % np.uint64(self.num_rows)).astype(np.int64)
        return (contig, start, num_bases), lost, why

    def _can_be_predicted(self, located: Located, bases: np.ndarray) -> np.ndarray:
        """Return which rows hold something to predict, bool[B]."""
        maskable = np.empty((0, 0), np.bool_)
        if not self.view.options.mask_soft_masked:
            maskable = np.ones(bases.shape, np.bool_)
            self._bases.mark_soft(located.contig, located.start, located.num_bases, False, maskable)
        out = np.empty(len(bases), np.uint8)
        token_bases = 1 if self.view.tokens.varying else self.view.tokens.token_bases
        can_be_predicted(bases, located.num_bases, maskable, token_bases, out)
        return out > 0

    def _base_weights(
        self, contig: np.ndarray, start: np.ndarray, num_bases: np.ndarray, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Return the weight of each base, float32[B, W]."""
        weights = np.ones(shape, np.float32)
        if self.view.track is not None:
            self.view.track.weights(contig, start, num_bases, weights)
        else:
            weight = np.float32(self.view.options.loss_weight_soft_masked)
            self._bases.mark_soft(contig, start, num_bases, weight, weights)
        return weights
