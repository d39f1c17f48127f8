"""Masked batches: from rows of tokens to the inputs and labels of a model.

A batch is a pure function of (strategy, ranks, seed, epoch, stage, row ids, rows); there is no state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from gemsdata.genome.vocab import MAX_K, MIN_K, NUM_SPECIAL, token_dtype, vocab_size
from gemsdata.kernels import corrupt as corrupt_kernels
from gemsdata.kernels import mask as kernels
from gemsdata.kernels import spans as span_kernels
from gemsdata.kernels.keys import row_keys
from gemsdata.masking.selection import (
    RowsToMask,
    Spans,
    bases_of_kmers,
    corruption_rule,
    default_n,
    gap_table,
    gram_length,
    ids_by_position,
    place_in_python,
    rank_table,
)
from gemsdata.masking.strategies import Compiled, Strategy, resolve
from gemsdata.masking.token_rows import TokenRows, Vocabulary, check_tokens, covered_bases, layout_of, simple_layout

UNMASKED = corrupt_kernels.UNMASKED
_NO_BASES = np.empty((0, 0), np.uint8)
_NO_TARGET = np.empty(0, np.int64)


class Masker:
    """Masks rows with one strategy: overlapping k-mers as stored in shards, or any other tokens (`batch_of`).

    Parameters
    ----------
    masking
        a strategy or the name of one.
    ranks
        NPMI rank of every n-gram's id, integers[4**n + 5], 1 is the best (`NpmiTable.ranks`, `ShardSet.ranks`), or a
        function that gives them for an n; strategies that do not look at ranks need none.
    k
        length of the k-mers if tokens are overlapping k-mers, 1..12; default: n.
    vocabulary
        the vocabulary of other tokens; default: that of k-mers.
    seed
        any integer 0 .. 2**64 - 1.

    Raises
    ------
    ValueError
        for an unknown strategy, ranks that are missing or of the wrong size, or a k out of range.
    """

    def __init__(
        self,
        masking: str | Strategy,
        *,
        ranks: np.ndarray | Callable[[int], np.ndarray] | None = None,
        k: int | None = None,
        vocabulary: Vocabulary | None = None,
        seed: int = 0,
    ) -> None:
        self.strategy = resolve(masking)
        if ranks is None and self.strategy.uses_ranks:
            raise ValueError(
                f"masking {self.strategy.name!r} chooses n-grams by NPMI rank: give ranks=..., from NpmiTable.ranks(n)"
                " or ShardSet.ranks"
            )
        if k is not None and not MIN_K <= k <= MAX_K:
            raise ValueError(f"k = {k} is out of range: tokens of {MIN_K} to {MAX_K} bases can be masked")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed = {seed} is out of range: give an integer from 0 to 2**64 - 1")
        if callable(ranks):
            ranks = ranks(self.strategy.n or default_n(k))
        if ranks is not None and np.ndim(ranks) != 1:
            raise ValueError(f"ranks of shape {np.shape(ranks)}: give one rank for each of 4**n + 5 ids")
        self.n = gram_length(self.strategy, None if ranks is None else len(ranks), None if vocabulary else k)
        """bases of the n-grams that are ranked and hidden"""
        self.k = self.n if k is None else k
        """length of the k-mers, for `batch`, `mask` and `spans`"""
        self.vocabulary = Vocabulary.of_kmers(self.k) if vocabulary is None else vocabulary
        self.seed = seed
        table = np.zeros(vocab_size(self.n), np.int64) if ranks is None else np.asarray(ranks)
        self.ranks = np.ascontiguousarray(table.astype(token_dtype(self.n)))
        """NPMI rank of every n-gram's id, uint16[4**n + 5] (uint32 from n = 8); zeros when none were given"""
        self._lookup = rank_table(self.ranks, self.strategy)
        self._methods: dict[tuple[int, int], tuple[tuple[int, int, int], kernels.Rate]] = {}
        self._rule = corruption_rule(self.strategy, self.vocabulary)

    def spans(
        self, input_ids: np.ndarray, num_tokens: np.ndarray, row_ids: np.ndarray, *, epoch: int = 0, stage: int = 0
    ) -> Spans:
        """Select the spans of rows of overlapping k-mers.

        Parameters
        ----------
        input_ids
            rows as stored, without special tokens, uint16[B, L] (uint32 from k = 8).
        num_tokens
            real tokens of each row, integers[B], 0..L.
        row_ids
            global ids of the rows, integers[B]; with seed, epoch and stage they are the key of a row's random numbers.
        """
        return Spans.of(self._select(self._kmers(input_ids, num_tokens, row_ids, epoch, stage), stage))

    def mask(
        self, input_ids: np.ndarray, num_tokens: np.ndarray, row_ids: np.ndarray, *, epoch: int = 0, stage: int = 0
    ) -> np.ndarray:
        """Return which tokens are masked, bool[B, L]; parameters as in `spans`."""
        return self._painted(self._kmers(input_ids, num_tokens, row_ids, epoch, stage), stage)

    def batch(
        self,
        input_ids: np.ndarray,
        num_tokens: np.ndarray,
        row_ids: np.ndarray,
        *,
        epoch: int = 0,
        stage: int = 0,
        out: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Return a masked batch of overlapping k-mers; parameters as in `spans`.

        Returns
        -------
        dict
            ``input_ids`` [B, L+2] in the dtype of the rows: [CLS], tokens after corruption, [SEP], [PAD];
            ``labels`` int16[B, L+2] (int32 from k = 8): the original id where masked, -100 elsewhere;
            ``attention_mask`` uint8[B, L+2]: 1 up to [SEP]. Written into ``out`` when given.
        """
        return self._corrupted(self._kmers(input_ids, num_tokens, row_ids, epoch, stage), stage, out)

    def spans_of(self, rows: TokenRows, row_ids: np.ndarray, *, epoch: int = 0, stage: int = 0) -> Spans:
        """Select the spans of rows of any tokens; ``row_ids`` as in `spans`."""
        return Spans.of(self._select(self._tokens(rows, row_ids, epoch, stage), stage))

    def mask_of(self, rows: TokenRows, row_ids: np.ndarray, *, epoch: int = 0, stage: int = 0) -> np.ndarray:
        """Return which tokens of rows of any tokens are masked, bool[B, L]."""
        return self._painted(self._tokens(rows, row_ids, epoch, stage), stage)

    def batch_of(
        self,
        rows: TokenRows,
        row_ids: np.ndarray,
        *,
        epoch: int = 0,
        stage: int = 0,
        out: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Return a masked batch of rows of any tokens, as `batch` does; identical for overlapping k-mers with k = n."""
        return self._corrupted(self._tokens(rows, row_ids, epoch, stage), stage, out)

    def empty_batch(self, num_rows: int, row_tokens: int) -> dict[str, np.ndarray]:
        """Return buffers that `batch` and `batch_of` can write into."""
        shape = (num_rows, row_tokens + 2)
        return {
            "input_ids": np.empty(shape, self.vocabulary.id_dtype),
            "labels": np.empty(shape, self.vocabulary.label_dtype),
            "attention_mask": np.empty(shape, np.uint8),
        }

    def targets(self, num_tokens: np.ndarray) -> np.ndarray:
        """Return the exact budget of rows of k-mers in its unit, int64[B] for integers[B]; empty without a budget."""
        return self._targets(num_tokens, np.where(num_tokens > 0, num_tokens + self.k - 1, 0))

    def targets_of(self, rows: TokenRows) -> np.ndarray:
        """Return the exact budget of rows of any tokens in its unit, int64[B]; empty without a budget.

        It is a fraction of the tokens that may be masked, or of the bases that may be hidden.
        """
        job = self._tokens(rows, np.zeros(len(rows.num_tokens), np.int64), 0, 0)
        return self._targets(job.num_maskable_tokens, job.num_maskable_bases)

    def _targets(self, num_tokens: np.ndarray, num_bases: np.ndarray) -> np.ndarray:
        if self.strategy.budget is None:
            return _NO_TARGET
        counted = num_bases if self.strategy.budget_unit == "nucleotide" else num_tokens
        return np.rint(self.strategy.budget * counted).astype(np.int64)

    def _kmers(
        self, input_ids: np.ndarray, num_tokens: np.ndarray, row_ids: np.ndarray, epoch: int, stage: int
    ) -> RowsToMask:
        """Return rows of overlapping k-mers for the kernels; raise ValueError for arrays that do not fit."""
        ids, counts = self._checked_ids(input_ids, num_tokens, row_ids)
        keys = row_keys(self.seed, epoch, stage, np.asarray(row_ids))
        num_bases = counts + (self.k - 1)
        num_bases[counts == 0] = 0
        compiled = isinstance(self.strategy, Compiled)
        if compiled and self.k == self.n:
            rows = kernels.Rows(counts, num_bases, keys)
            layout = simple_layout(self.k, 1)
            return RowsToMask(ids=ids, bases=_NO_BASES, rows=rows, layout=layout, grams_are_tokens=True)
        bases = bases_of_kmers(ids, counts, self.k)
        tokens = TokenRows(
            input_ids=ids, num_tokens=counts, bases=bases, num_bases=num_bases, token_bases=self.k, token_stride=1
        )
        return self._job(tokens, keys)

    def _tokens(self, rows: TokenRows, row_ids: np.ndarray, epoch: int, stage: int) -> RowsToMask:
        """Return rows of any tokens for the kernels; raise ValueError for arrays that do not fit."""
        ids, counts = self._checked_ids(rows.input_ids, rows.num_tokens, row_ids)
        num_bases = np.asarray(rows.num_bases)
        if np.ndim(rows.bases) != 2 or len(rows.bases) != len(ids) or num_bases.shape != counts.shape:
            raise ValueError(
                f"bases of shape {np.shape(rows.bases)} with counts of shape {num_bases.shape} do not fit {len(ids)}"
                " rows: give [B, W] and [B]"
            )
        if counts.size and not 0 <= int(num_bases.min()) <= int(num_bases.max()) <= rows.bases.shape[1]:
            raise ValueError(f"num_bases has {num_bases.min()}..{num_bases.max()}, outside 0..{rows.bases.shape[1]}")
        rows = dataclasses.replace(rows, input_ids=ids, num_tokens=counts, num_bases=num_bases.astype(np.int64))
        check_tokens(rows)
        rows = dataclasses.replace(rows, num_bases=covered_bases(rows))
        return self._job(rows, row_keys(self.seed, epoch, stage, np.asarray(row_ids)))

    def _job(self, rows: TokenRows, keys: np.ndarray) -> RowsToMask:
        grams = (rows.token_start is None and rows.token_stride == 1) and rows.token_bases == self.n
        if grams:
            grams = bool((rows.num_tokens == np.maximum(0, rows.num_bases - self.n + 1)).all())
        return RowsToMask(
            ids=rows.input_ids,
            bases=np.ascontiguousarray(rows.bases, np.uint8),
            rows=kernels.Rows(rows.num_tokens, rows.num_bases, keys),
            layout=layout_of(rows),
            grams_are_tokens=grams,
        )

    def _checked_ids(
        self, input_ids: np.ndarray, num_tokens: np.ndarray, row_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and counts in the kernels' dtypes."""
        ids = np.ascontiguousarray(input_ids)
        counts = np.asarray(num_tokens)
        if ids.ndim != 2 or counts.shape != ids.shape[:1] or np.shape(row_ids) != counts.shape:
            raise ValueError(
                f"rows of shape {ids.shape}, counts of shape {counts.shape} and row ids of shape {np.shape(row_ids)}"
                " do not fit: give [B, L], [B] and [B]"
            )
        size = self.vocabulary.size
        if ids.dtype == self.vocabulary.id_dtype:
            lowest, highest = 0, int(kernels.largest_id(ids))
        else:
            lowest, highest = int(ids.min(initial=0)), int(ids.max(initial=0))
        if lowest < 0 or highest >= size:
            kind = f"k = {self.k}" if size == vocab_size(self.k) else "this vocabulary"
            raise ValueError(f"token ids {ids.min()}..{ids.max()} are not of {kind}, whose ids end at {size - 1}")
        if counts.size and not 0 <= np.minimum.reduce(counts) <= np.maximum.reduce(counts) <= ids.shape[1]:
            raise ValueError(f"num_tokens has {counts.min()}..{counts.max()}, outside 0..{ids.shape[1]} of these rows")
        return ids.astype(self.vocabulary.id_dtype, copy=False), counts.astype(np.int64)

    def _select(self, job: RowsToMask, stage: int) -> kernels.SpanList:
        """Return the spans of rows."""
        if isinstance(self.strategy, Compiled):
            return kernels.select(self._selection(job, stage))
        return place_in_python(self.strategy, job, self._selection(job, stage), stage)

    def _selection(self, job: RowsToMask, stage: int) -> kernels.Selection:
        """Return the rows with everything that the kernels need to select their spans."""
        strategy, target = self.strategy, _NO_TARGET
        if strategy.budget is not None:
            target = self._targets(job.num_maskable_tokens, job.num_maskable_bases)
        by_position = isinstance(strategy, Compiled) and strategy.by_position
        by_id = by_position or (isinstance(strategy, Compiled) and job.grams_are_tokens and not job.layout.restricted)
        source = job.ids if by_id else job.bases
        if by_position:
            source = ids_by_position(max(job.ids.shape[1], job.bases.shape[1]), self.n)
        method, rate = self._method_and_rate(job.layout.token_bases, stage)
        chooser = span_kernels.Chooser(
            *method,
            self.n,
            self.n // 2 if job.grams_are_tokens else 0,
            by_id,
            by_position,
            source,
            self._lookup,
        )
        budget = kernels.Budget(target, strategy.budget_unit == "nucleotide")
        return kernels.Selection(chooser, job.layout, job.rows, rate, budget)

    def _painted(self, job: RowsToMask, stage: int) -> np.ndarray:
        masked = np.zeros(job.ids.shape, np.bool_)
        if isinstance(self.strategy, Compiled):
            kernels.select_and_paint(self._selection(job, stage), masked)
        else:
            kernels.paint(self._select(job, stage), job.layout, masked)
        return masked

    def _corrupted(self, job: RowsToMask, stage: int, out: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
        batch = dict(out) if out is not None else self.empty_batch(*job.ids.shape)
        arrays = corrupt_kernels.Batch(batch["input_ids"], batch["labels"], batch["attention_mask"])
        if isinstance(self.strategy, Compiled):
            corrupt_kernels.select_and_corrupt(job.ids, self._selection(job, stage), self._rule, arrays)
        else:
            corrupt_kernels.corrupt(job.ids, job.rows, self._select(job, stage), job.layout, self._rule, arrays)
        return batch

    def _method_and_rate(self, token_bases: int, stage: int) -> tuple[tuple[int, int, int], kernels.Rate]:
        """Return the kernels' method and the tables of the rate; cached by token length and stage."""
        found = self._methods.get((token_bases, stage))
        if found is None:
            strategy = self.strategy
            method = strategy.method(self.n, stage) if isinstance(strategy, Compiled) else (0, 0, 0)
            found = method, gap_table(strategy.centre_rate(self.n, token_bases, stage))
            self._methods[token_bases, stage] = found
        return found


def mask_rows(
    input_ids: np.ndarray,
    num_tokens: np.ndarray,
    ranks: np.ndarray | None = None,
    *,
    masking: str | Strategy = "genemask",
    seed: int = 0,
    sample_ids: np.ndarray | None = None,
    k: int | None = None,
) -> np.ndarray:
    """Return which tokens of rows of overlapping k-mers are masked, bool[B, L].

    Parameters
    ----------
    input_ids, num_tokens
        rows as stored, without special tokens: uint16[B, L] and integers[B].
    ranks
        NPMI rank of every n-gram's id, integers[4**n + 5].
    sample_ids
        ids that key the rows' random numbers, integers[B]; default 0..B-1.
    k
        length of the k-mers; needed without ranks, or if it is not n.
    """
    masker = Masker(masking, ranks=ranks, k=k, seed=seed)
    ids, counts = np.asarray(input_ids), np.asarray(num_tokens)
    if ids.ndim == 2 and counts.shape == ids.shape[:1]:
        special = np.zeros(0, np.bool_)
        if ids.min(initial=NUM_SPECIAL) < NUM_SPECIAL:
            special = (ids < NUM_SPECIAL) & (np.arange(ids.shape[1]) < counts[:, None])
        if special.any():
            row, token_pos = (int(x) for x in np.argwhere(special)[0])
            raise ValueError(
                f"row {row} has the special id {ids[row, token_pos]} at token {token_pos}: give rows without special"
                " tokens (padding goes beyond num_tokens; for rows with [CLS] and [SEP] use MLMCollator)"
            )
    return masker.mask(ids, counts, np.arange(len(ids)) if sample_ids is None else np.asarray(sample_ids))
