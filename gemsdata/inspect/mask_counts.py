"""Counts over masked rows, from which an audit is computed."""

from __future__ import annotations

import numpy as np

from gemsdata.genome.vocab import vocab_size
from gemsdata.kernels.mask import hidden_bases
from gemsdata.masking.masker import UNMASKED, Masker
from gemsdata.shards.schema import Rows


class MaskCounts:
    """Counts of masked tokens, hidden bases, spans and k-mers, summed over blocks of rows."""

    def __init__(self, masker: Masker, row_tokens: int) -> None:
        self.masker = masker
        self.num_rows = self.num_bases = self.num_hidden = self.num_hidden_left = 0
        self.given_by_unmasked = self.given_by_kept = 0
        self.reached = np.zeros(row_tokens, np.int64)
        self.masked_at = np.zeros(row_tokens, np.int64)
        self.occurs = np.zeros(vocab_size(masker.k), np.int64)
        self.masked_ids = np.zeros(vocab_size(masker.k), np.int64)
        self.soft = np.zeros((2, 2), np.int64)  # [soft-masked, masked]
        self.run_lengths = np.zeros(row_tokens + 1, np.int64)
        self.chosen_rank_sum = self.num_chosen = 0
        self.num_pairs = self.num_same = 0
        self.num_off_budget = 0

    def add(self, rows: Rows, row_ids: np.ndarray, soft: np.ndarray | None, stage: int) -> None:
        """Mask rows and add their counts; ``soft`` is the soft-masked bases, bool[B, L+k-1], or None if unknown."""
        masker, k = self.masker, self.masker.k
        ids, counts = rows.input_ids, rows.num_tokens.astype(np.int64)
        batch = masker.batch(ids, counts, row_ids, stage=stage)
        masked = batch["labels"][:, 1:-1] != UNMASKED
        real = np.arange(ids.shape[1]) < counts[:, None]
        kept = masked & (batch["input_ids"][:, 1:-1] == ids)
        hidden = _hidden(masked, counts, k)
        hidden_left = _hidden(masked & ~kept, counts, k)
        shown = masked & ~_any_in_window(hidden, k)
        self.num_rows += len(rows)
        self.num_bases += int((counts + k - 1)[counts > 0].sum())
        self.num_hidden += int(hidden.sum())
        self.num_hidden_left += int(hidden_left.sum())
        self.given_by_unmasked += int(shown.sum())
        self.given_by_kept += int((masked & ~kept & ~shown & ~_any_in_window(hidden_left, k)).sum())
        self.reached += real.sum(0)
        self.masked_at += masked.sum(0)
        self.occurs += np.bincount(ids[real], minlength=len(self.occurs))
        self.masked_ids += np.bincount(ids[masked], minlength=len(self.occurs))
        if soft is not None:
            middle = soft[:, k // 2 : k // 2 + ids.shape[1]]
            self.soft += np.bincount(2 * middle[real] + masked[real], minlength=4).reshape(2, 2)
        edges = np.diff(np.pad(masked, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        first, end = np.nonzero(edges == 1)[1], np.nonzero(edges == -1)[1]
        self.run_lengths += np.bincount(end - first, minlength=len(self.run_lengths))
        self._add_choices(ids, counts, row_ids, stage)
        self._add_pairs(ids, counts, row_ids, stage, masked)
        self._add_budget(counts, masked, hidden)

    def _add_choices(self, ids: np.ndarray, counts: np.ndarray, row_ids: np.ndarray, stage: int) -> None:
        spans = self.masker.spans(ids, counts, row_ids, stage=stage)
        row = np.repeat(np.arange(len(ids)), np.diff(spans.ends))[spans.wide]
        self.chosen_rank_sum += int(self.masker.ranks[ids[row, spans.anchor[spans.wide]]].sum(dtype=np.int64))
        self.num_chosen += len(row)

    def _add_pairs(
        self, ids: np.ndarray, counts: np.ndarray, row_ids: np.ndarray, stage: int, masked: np.ndarray
    ) -> None:
        """Mask each row again with the key of the row before it, and compare the masks of rows of equal length."""
        other = self.masker.mask(ids, counts, np.roll(row_ids, -1), stage=stage)
        before = np.roll(np.arange(len(ids)), -1)
        pair = (counts == counts[before]) & (ids != ids[before]).any(1) & (masked[before].any(1) | other.any(1))
        self.num_pairs += int(pair.sum())
        self.num_same += int((pair & (other == masked[before]).all(1)).sum())

    def _add_budget(self, counts: np.ndarray, masked: np.ndarray, hidden: np.ndarray) -> None:
        target = self.masker.targets(counts)
        if len(target):
            reached = hidden if self.masker.strategy.budget_unit == "nucleotide" else masked
            self.num_off_budget += int((reached.sum(1) != target).sum())


def _hidden(masked: np.ndarray, num_tokens: np.ndarray, k: int) -> np.ndarray:
    out = np.empty((masked.shape[0], masked.shape[1] + k - 1), np.bool_)
    hidden_bases(np.ascontiguousarray(masked), num_tokens, k, out)
    return out


def _any_in_window(bases: np.ndarray, k: int) -> np.ndarray:
    """Return whether any of the k bases of each token is set, bool[B, L]."""
    out = bases[:, : bases.shape[1] - k + 1].copy()
    for i in range(1, k):
        out |= bases[:, i : i + out.shape[1]]
    return out
