"""Counts over masked rows, the basis of an audit."""

from __future__ import annotations

import numpy as np

from gemsdata.genome.vocab import NUM_SPECIAL, num_kmers, token_dtype
from gemsdata.kernels.bases import encode_kmers
from gemsdata.masking.masker import UNMASKED, Masker
from gemsdata.masking.token_rows import TokenRows, hidden_bases


class MaskCounts:
    """Counts of masked tokens, hidden bases, spans and n-grams, summed over blocks of rows."""

    def __init__(self, masker: Masker, row_tokens: int) -> None:
        self.masker = masker
        self.num_rows = self.num_bases = self.num_hidden = self.num_hidden_left = 0
        self.given_by_unmasked = self.given_by_kept = 0
        self.reached = np.zeros(row_tokens, np.int64)
        self.masked_at = np.zeros(row_tokens, np.int64)
        self.occurs = np.zeros(masker.vocabulary.size, np.int64)
        self.masked_ids = np.zeros(masker.vocabulary.size, np.int64)
        self.grams = np.zeros(num_kmers(masker.n) + NUM_SPECIAL, np.int64)
        """how often each n-gram occurs, by its id"""
        self.masked_grams = np.zeros(num_kmers(masker.n) + NUM_SPECIAL, np.int64)
        """how often all of its bases are covered by masked tokens; for tokens that are n-grams, how often it is
        masked"""
        self.soft = np.zeros((2, 2), np.int64)  # [soft-masked, masked]
        self.run_lengths = np.zeros(row_tokens + 1, np.int64)
        self.chosen_rank_sum = self.num_chosen = 0
        self.num_pairs = self.num_same = 0
        self.num_off_budget = 0

    def add(self, rows: TokenRows, row_ids: np.ndarray, soft: np.ndarray | None, stage: int) -> None:
        """Mask rows and add their counts; ``soft`` is the soft-masked bases, bool[B, W], or None if unknown."""
        masker = self.masker
        ids, counts = rows.input_ids, rows.num_tokens
        batch = masker.batch_of(rows, row_ids, stage=stage)
        masked = batch["labels"][:, 1:-1] != UNMASKED
        real = np.arange(ids.shape[1]) < counts[:, None]
        kept = masked & (batch["input_ids"][:, 1:-1] == ids)
        hidden = hidden_bases(rows, masked)
        hidden_left = hidden_bases(rows, masked & ~kept)
        first, end = token_ends(rows)
        shown = masked & ~_any_between(hidden, first, end)
        self.num_rows += len(ids)
        self.num_bases += int(rows.num_bases.sum())
        self.num_hidden += int(hidden.sum())
        self.num_hidden_left += int(hidden_left.sum())
        self.given_by_unmasked += int(shown.sum())
        self.given_by_kept += int((masked & ~kept & ~shown & ~_any_between(hidden_left, first, end)).sum())
        self.reached += real.sum(0)
        self.masked_at += masked.sum(0)
        self.occurs += np.bincount(ids[real], minlength=len(self.occurs))
        self.masked_ids += np.bincount(ids[masked], minlength=len(self.occurs))
        if soft is not None:
            middle = np.take_along_axis(soft, np.minimum((first + end) // 2, soft.shape[1] - 1), axis=1)
            self.soft += np.bincount(2 * middle[real] + masked[real], minlength=4).reshape(2, 2)
        edges = np.diff(np.pad(masked, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        begins, ends = np.nonzero(edges == 1)[1], np.nonzero(edges == -1)[1]
        self.run_lengths += np.bincount(ends - begins, minlength=len(self.run_lengths))
        self._add_grams(rows, row_ids, masked, first, end, stage)
        self._add_pairs(rows, row_ids, stage, masked)
        self._add_budget(rows, masked, hidden)

    def _add_grams(
        self, rows: TokenRows, row_ids: np.ndarray, masked: np.ndarray, first: np.ndarray, end: np.ndarray, stage: int
    ) -> None:
        n = self.masker.n
        grams, num_grams = gram_ids(rows, n)
        if tokens_are_grams(rows, n):
            gone = np.zeros(grams.shape, bool)
            gone[:, : masked.shape[1]] = masked[:, : grams.shape[1]]
        else:
            covered = np.zeros((len(grams), rows.bases.shape[1] + 1), np.int32)
            row, token = np.nonzero(masked)
            np.add.at(covered, (row, first[row, token]), 1)
            np.add.at(covered, (row, end[row, token]), -1)
            gone = ~_any_between(np.cumsum(covered, axis=1)[:, :-1] == 0, *_windows(grams.shape, n))
        real = np.arange(grams.shape[1]) < num_grams[:, None]
        self.grams += np.bincount(grams[real], minlength=len(self.grams))
        self.masked_grams += np.bincount(grams[real & gone], minlength=len(self.grams))
        spans = self.masker.spans_of(rows, row_ids, stage=stage)
        row = np.repeat(np.arange(len(grams)), np.diff(spans.ends))[spans.wide]
        self.chosen_rank_sum += int(self.masker.ranks[grams[row, spans.anchor[spans.wide]]].sum(dtype=np.int64))
        self.num_chosen += len(row)

    def _add_pairs(self, rows: TokenRows, row_ids: np.ndarray, stage: int, masked: np.ndarray) -> None:
        """Mask each row again with the key of the row before it, and compare the masks of rows of equal length."""
        other = self.masker.mask_of(rows, np.roll(row_ids, -1), stage=stage)
        ids, counts = rows.input_ids, rows.num_tokens
        before = np.roll(np.arange(len(ids)), -1)
        pair = (counts == counts[before]) & (ids != ids[before]).any(1) & (masked[before].any(1) | other.any(1))
        self.num_pairs += int(pair.sum())
        self.num_same += int((pair & (other == masked[before]).all(1)).sum())

    def _add_budget(self, rows: TokenRows, masked: np.ndarray, hidden: np.ndarray) -> None:
        target = self.masker.targets_of(rows)
        if len(target):
            reached = hidden if self.masker.strategy.budget_unit == "nucleotide" else masked
            self.num_off_budget += int((reached.sum(1) != target).sum())


def token_ends(rows: TokenRows) -> tuple[np.ndarray, np.ndarray]:
    """Return the first base and one past the last base of each token, int64[B, L] each; equal beyond the tokens."""
    real = np.arange(rows.input_ids.shape[1]) < rows.num_tokens[:, None]
    if rows.token_start is not None:
        return rows.token_start[:, :-1].astype(np.int64), rows.token_start[:, 1:].astype(np.int64)
    first = np.where(real, np.arange(rows.input_ids.shape[1]) * rows.token_stride, 0)
    return first, np.where(real, first + rows.token_bases, 0)


def gram_ids(rows: TokenRows, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the id of the n-gram at every base, [B, W - n + 1], and how many each row has, int64[B]; 1: unknown."""
    width = max(rows.bases.shape[1] - n + 1, 1)
    counts = np.clip(rows.num_bases - n + 1, 0, width)
    out = np.zeros((len(rows.bases), width), token_dtype(n))
    encode_kmers(np.ascontiguousarray(rows.bases), counts, n, 1, out)
    return out, counts


def tokens_are_grams(rows: TokenRows, n: int) -> bool:
    """Return whether tokens are the overlapping n-grams themselves."""
    return rows.token_start is None and rows.token_stride == 1 and rows.token_bases == n


def _windows(shape: tuple[int, ...], n: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.broadcast_to(np.arange(shape[1]), shape)
    return first, first + n


def _any_between(bases: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return whether any of bases[i, first[i, t] : end[i, t]] is set (bool[B, W]; int64[B, L] each), bool[B, L]."""
    before = np.zeros((len(bases), bases.shape[1] + 1), np.int32)
    np.cumsum(bases, axis=1, out=before[:, 1:])
    last = bases.shape[1]
    upto = np.take_along_axis(before, np.minimum(end, last), axis=1)
    return upto > np.take_along_axis(before, np.minimum(first, last), axis=1)
