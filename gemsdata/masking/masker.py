"""Masked batches: rows of token ids in, what the model sees and what it has to guess out.

A batch is a pure function of (strategy, ranks, seed, epoch, stage, row ids, rows); there is no state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from gemsdata.genome.vocab import NUM_SPECIAL, num_kmers, token_dtype, vocab_size
from gemsdata.kernels import budget as budget_kernels
from gemsdata.kernels import mask as kernels
from gemsdata.kernels import spans as span_kernels
from gemsdata.kernels.keys import row_keys
from gemsdata.masking.strategies import Compiled, Row, Strategy, resolve

MIN_K, MAX_K = 3, 8
UNMASKED = kernels.UNMASKED
_MAX_POSITION = (1 << 16) - 1
"""longest row of the strategies that look ranks up by position"""


@dataclass(frozen=True, kw_only=True)
class Spans:
    """The spans of B rows, most important first within a row; positions are token positions, without [CLS]."""

    ends: np.ndarray
    """spans[ends[i] : ends[i+1]] are those of row i, int64[B+1]"""
    lo: np.ndarray
    """first token of each span, int32[S]"""
    hi: np.ndarray
    """one past its last token, int32[S]"""
    anchor: np.ndarray
    """token around which it was laid: the chosen token of a wide span, else the centre, int32[S]"""
    wide: np.ndarray
    """whether it was laid k-1 tokens to either side of its anchor (before it was clipped or trimmed), bool[S]"""

    def __len__(self) -> int:
        return len(self.ends) - 1

    def row(self, i: int) -> Iterator[tuple[int, int, int, bool]]:
        """Yield (lo, hi, anchor, wide) of the spans of row i."""
        cut = slice(self.ends[i], self.ends[i + 1])
        yield from zip(
            self.lo[cut].tolist(),
            self.hi[cut].tolist(),
            self.anchor[cut].tolist(),
            self.wide[cut].tolist(),
            strict=True,
        )


class Masker:
    """Masks rows of one k with one strategy.

    Parameters
    ----------
    masking
        a strategy or the name of one.
    ranks
        NPMI rank of every token id, integers[4**k + 5], 1 is the best (`NpmiTable.ranks`, `ShardSet.ranks`);
        strategies that do not look at ranks need none.
    k
        needed when there are no ranks; 3..8.
    seed
        any integer 0 .. 2**64 - 1.

    Raises
    ------
    ValueError
        for an unknown strategy, ranks that are missing or of the wrong size, or a k out of range.
    """

    def __init__(
        self, masking: str | Strategy, *, ranks: np.ndarray | None = None, k: int | None = None, seed: int = 0
    ) -> None:
        self.strategy = resolve(masking)
        self.k = _k_of(ranks, k, self.strategy)
        self.seed = seed
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed = {seed} is out of range: give an integer from 0 to 2**64 - 1")
        table = np.zeros(vocab_size(self.k), np.int64) if ranks is None else np.asarray(ranks)
        self.ranks = np.ascontiguousarray(table.astype(token_dtype(self.k)))
        """NPMI rank of every token id, uint16[4**k + 5] (uint32 from k = 8); zeros when none were given"""
        self._lookup = _position_ranks(self.ranks, self.strategy) if _by_position(self.strategy) else self.ranks
        self._gaps: dict[float, tuple[np.ndarray, np.ndarray]] = {}

    def spans(
        self, input_ids: np.ndarray, num_tokens: np.ndarray, row_ids: np.ndarray, *, epoch: int = 0, stage: int = 0
    ) -> Spans:
        """Select the spans of rows.

        Parameters
        ----------
        input_ids
            rows as stored, without special tokens, uint16[B, L] (uint32 from k = 8).
        num_tokens
            real tokens of each row, integers[B], 0..L.
        row_ids
            global ids of the rows, integers[B]; with seed, epoch and stage they are the key of a row's random numbers.
        """
        ids, counts, keys = self._checked(input_ids, num_tokens, row_ids, epoch, stage)
        return _columns(*self._select(ids, counts, keys, stage))

    def mask(
        self, input_ids: np.ndarray, num_tokens: np.ndarray, row_ids: np.ndarray, *, epoch: int = 0, stage: int = 0
    ) -> np.ndarray:
        """Return which tokens are masked, bool[B, L]; parameters as in `spans`."""
        ids, counts, keys = self._checked(input_ids, num_tokens, row_ids, epoch, stage)
        masked = np.zeros(ids.shape, np.bool_)
        kernels.paint(*self._select(ids, counts, keys, stage), masked)
        return masked

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
        """Return a masked batch; parameters as in `spans`.

        Returns
        -------
        dict
            ``input_ids`` [B, L+2] in the dtype of the rows: [CLS], tokens after corruption, [SEP], [PAD];
            ``labels`` int16[B, L+2] (int32 from k = 8): the original id where masked, -100 elsewhere;
            ``attention_mask`` uint8[B, L+2]: 1 up to [SEP]. Written into ``out`` when given.
        """
        ids, counts, keys = self._checked(input_ids, num_tokens, row_ids, epoch, stage)
        ends, spans = self._select(ids, counts, keys, stage)
        batch = dict(out) if out is not None else self.empty_batch(*ids.shape)
        any_id = self.strategy.random_specials
        kernels.corrupt(
            ids,
            counts,
            keys,
            ends,
            spans,
            self.strategy.corruption == "span",
            0 if any_id else NUM_SPECIAL,
            vocab_size(self.k) if any_id else num_kmers(self.k),
            batch["input_ids"],
            batch["labels"],
            batch["attention_mask"],
        )
        return batch

    def empty_batch(self, num_rows: int, row_tokens: int) -> dict[str, np.ndarray]:
        """Return buffers that `batch` can write into."""
        shape = (num_rows, row_tokens + 2)
        labels = np.int16 if vocab_size(self.k) <= np.iinfo(np.int16).max else np.int32
        return {
            "input_ids": np.empty(shape, token_dtype(self.k)),
            "labels": np.empty(shape, labels),
            "attention_mask": np.empty(shape, np.uint8),
        }

    def _checked(
        self, input_ids: np.ndarray, num_tokens: np.ndarray, row_ids: np.ndarray, epoch: int, stage: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rows and counts in the kernels' dtypes, and the row keys."""
        ids = np.ascontiguousarray(input_ids)
        counts = np.asarray(num_tokens)
        if ids.ndim != 2 or counts.shape != ids.shape[:1] or np.shape(row_ids) != counts.shape:
            raise ValueError(
                f"rows of shape {ids.shape}, counts of shape {counts.shape} and row ids of shape {np.shape(row_ids)}"
                " do not fit: give [B, L], [B] and [B]"
            )
        lowest = int(ids.min(initial=0)) if ids.dtype.kind != "u" else 0
        if lowest < 0 or int(ids.max(initial=0)) >= vocab_size(self.k):
            raise ValueError(
                f"token ids {ids.min()}..{ids.max()} are not of k = {self.k}, whose ids end at {vocab_size(self.k) - 1}"
            )
        if counts.size and not 0 <= int(counts.min()) <= int(counts.max()) <= ids.shape[1]:
            raise ValueError(f"num_tokens has {counts.min()}..{counts.max()}, outside 0..{ids.shape[1]} of these rows")
        ids = ids.astype(token_dtype(self.k), copy=False)
        return ids, counts.astype(np.int64), row_keys(self.seed, epoch, stage, np.asarray(row_ids))

    def _select(
        self, ids: np.ndarray, counts: np.ndarray, keys: np.ndarray, stage: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (ends int64[B+1], spans int32[S, 4])."""
        ends = np.zeros(len(counts) + 1, np.int64)
        target = self.targets(counts)
        by_base = self.strategy.budget_unit == "nucleotide"
        tail, guide = self._gap_table(stage)
        if not isinstance(self.strategy, Compiled):
            return ends, self._place(ids, counts, keys, stage, target, by_base, tail, guide, ends)
        spans = np.empty((int(counts.sum()), 4), np.int32)
        positional = _by_position(self.strategy)
        if positional and ids.shape[1] > _MAX_POSITION:
            raise ValueError(
                f"rows of {ids.shape[1]} tokens are too long for {self.strategy.name!r}: give {_MAX_POSITION} or fewer"
            )
        source = np.arange(1, ids.shape[1] + 1, dtype=ids.dtype)[None] if positional else ids
        step = 0 if positional else 1
        method, a, b = self.strategy.plan(self.k, stage)
        kernels.select(
            method, a, b, self.k, source, step, counts, keys, self._lookup, tail, guide, target, by_base, ends, spans
        )
        return ends, spans

    def _place(
        self,
        ids: np.ndarray,
        counts: np.ndarray,
        keys: np.ndarray,
        stage: int,
        target: np.ndarray,
        by_base: bool,
        tail: np.ndarray,
        guide: np.ndarray,
        ends: np.ndarray,
    ) -> np.ndarray:
        """Do what kernels.select does, for a strategy written in Python; fill ``ends`` and return the spans."""
        rows = [np.empty((0, 4), np.int32)]
        for i, tokens in enumerate(counts.tolist()):
            row = Row(
                token_ids=ids[i, :tokens], ranks=self.ranks[ids[i, :tokens]], k=self.k, stage=stage, key=int(keys[i])
            )
            centre = np.empty(tokens, np.int64)
            masked = np.empty(tokens + 2 * self.k, np.uint8)
            count = 0 if target.size else span_kernels.bernoulli_centres(keys[i], tokens, tail, guide, centre)
            while True:
                if target.size:
                    span_kernels.shuffled_centres(keys[i], tokens, max(0, count - 1), count, centre)
                spans = _clipped(self.strategy.place(row, centre[:count].copy()), tokens)
                if not target.size:
                    break
                end = budget_kernels.trim(
                    keys[i], tokens, self.k, by_base, int(target[i]), masked, 0, len(spans), spans
                )
                if end >= 0 or count == tokens:
                    spans = spans[: len(spans) if end < 0 else end]
                    break
                count += 1
            rows.append(spans)
            ends[i + 1] = ends[i] + len(spans)
        return np.concatenate(rows)

    def targets(self, num_tokens: np.ndarray) -> np.ndarray:
        """Return the exact budget of rows in its unit, int64[B] for integers[B] of tokens; empty without a budget."""
        if self.strategy.budget is None:
            return np.empty(0, np.int64)
        bases = np.where(num_tokens > 0, num_tokens + self.k - 1, 0)
        return np.rint(
            self.strategy.budget * (bases if self.strategy.budget_unit == "nucleotide" else num_tokens)
        ).astype(np.int64)

    def _gap_table(self, stage: int) -> tuple[np.ndarray, np.ndarray]:
        rate = self.strategy.centre_rate(self.k, stage)
        if rate not in self._gaps:
            self._gaps[rate] = gap_table(rate)
        return self._gaps[rate]


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
    """Return which tokens of rows are masked, bool[B, L].

    Parameters
    ----------
    input_ids, num_tokens
        rows as stored, without special tokens: uint16[B, L] and integers[B].
    ranks
        NPMI rank of every token id, integers[4**k + 5].
    sample_ids
        ids that key the rows' random numbers, integers[B]; default 0..B-1.
    k
        needed without ranks.
    """
    masker = Masker(masking, ranks=ranks, k=k, seed=seed)
    ids, counts = np.asarray(input_ids), np.asarray(num_tokens)
    if ids.ndim == 2 and counts.shape == ids.shape[:1]:
        special = (ids < NUM_SPECIAL) & (np.arange(ids.shape[1]) < counts[:, None])
        if special.any():
            row, token_pos = (int(x) for x in np.argwhere(special)[0])
            raise ValueError(
                f"row {row} has the special id {ids[row, token_pos]} at token {token_pos}: give rows without special"
                " tokens (padding goes beyond num_tokens; for rows with [CLS] and [SEP] use MLMCollator)"
            )
    return masker.mask(ids, counts, np.arange(len(ids)) if sample_ids is None else np.asarray(sample_ids))


def gap_table(rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the tables for drawing gaps between tokens chosen with probability ``rate``: (tail, guide).

    tail[g] = floor((1 - rate)**(g+1) * 2**64), by 64-bit integer multiplication, so the same on every machine. A draw
    (64 bits) makes a gap of as many tokens as there are entries above it. guide[h], int64[1024], is the gap of the
    largest draw whose top ten bits are h.
    """
    stay = (1 << 64) - round(rate * (1 << 64))
    tails = []
    power = stay
    while power > 0:
        tails.append(power)
        power = power * stay >> 64
    tail = np.array(tails, np.uint64)
    shift = 64 - span_kernels.GUIDE_BITS
    largest = np.array([(h + 1 << shift) - 1 for h in range(1 << span_kernels.GUIDE_BITS)], np.uint64)
    guide = len(tail) - np.searchsorted(tail[::-1], largest, side="right")
    return tail, guide.astype(np.int64)


def _k_of(ranks: np.ndarray | None, k: int | None, strategy: Strategy) -> int:
    if ranks is None and strategy.uses_ranks:
        raise ValueError(
            f"masking {strategy.name!r} chooses tokens by NPMI rank: give ranks=..., from NpmiTable.ranks(k)"
            " or ShardSet.ranks"
        )
    if ranks is None:
        found = 6 if k is None else k
    else:
        sizes = {vocab_size(n): n for n in range(MIN_K, MAX_K + 1)}
        if np.ndim(ranks) != 1 or len(ranks) not in sizes:
            raise ValueError(
                f"ranks of shape {np.shape(ranks)} fit no k: give one rank for each of 4**k + 5 token ids,"
                f" k = {MIN_K}..{MAX_K}"
            )
        found = sizes[len(ranks)]
        if k is not None and k != found:
            raise ValueError(f"ranks are of k = {found}, but k = {k} is given")
    if not MIN_K <= found <= MAX_K:
        raise ValueError(f"k = {found} is out of range: masking takes k = {MIN_K} to {MAX_K}")
    return found


def _by_position(strategy: Strategy) -> bool:
    return isinstance(strategy, Compiled) and strategy.by_position


def _position_ranks(ranks: np.ndarray, strategy: Strategy) -> np.ndarray:
    """Return the rank that the published scripts find for each position ([CLS] is 0); beyond the ids the worst."""
    worst = num_kmers((len(ranks)).bit_length() // 2)
    table = np.full(max(_MAX_POSITION + 1, len(ranks)), worst, ranks.dtype)
    table[: len(ranks)] = ranks
    special = strategy.special_rank if isinstance(strategy, Compiled) else None
    table[:NUM_SPECIAL] = worst if special is None else special
    return table


def _clipped(placed: object, num_tokens: int) -> np.ndarray:
    """Return the spans of a Python strategy as int32[n, 4], clipped to the row, each anchored at its middle."""
    pairs = np.array(placed, np.int64).reshape(-1, 2)
    spans = np.zeros((len(pairs), 4), np.int32)
    spans[:, :2] = np.clip(pairs, 0, num_tokens)
    spans[:, 2] = np.clip((pairs[:, 0] + pairs[:, 1] - 1) // 2, 0, max(0, num_tokens - 1))
    return spans


def _columns(ends: np.ndarray, spans: np.ndarray) -> Spans:
    kept = spans[: ends[-1]]
    return Spans(ends=ends, lo=kept[:, 0], hi=kept[:, 1], anchor=kept[:, 2], wide=kept[:, 3].astype(np.bool_))
