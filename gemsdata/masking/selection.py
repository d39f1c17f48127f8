"""Between `Masker` and the kernels: tables of centre rates, ranks by position, and strategies written in Python."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gemsdata.genome.vocab import NUM_SPECIAL, num_kmers, token_dtype, vocab_size
from gemsdata.kernels import budget as budget_kernels
from gemsdata.kernels import centres as centre_kernels
from gemsdata.kernels import corrupt as corrupt_kernels
from gemsdata.kernels import kmer
from gemsdata.kernels import layout as layout_kernels
from gemsdata.kernels import mask as kernels
from gemsdata.kernels import shown as shown_kernels
from gemsdata.kernels import spans as span_kernels
from gemsdata.masking.strategies import MAX_N, MIN_N, Compiled, Row, Strategy
from gemsdata.masking.token_rows import Vocabulary

DEFAULT_N = 6


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
    """position that the span was placed at, int32[S]: the first base of the hidden n-gram for a wide span, else the
    centre (if tokens are overlapping n-grams, the token c whose base c + n // 2 is hidden; for other tokens, the hidden
    base)"""
    wide: np.ndarray
    """whether it hides a whole n-gram (before it was trimmed to a budget), bool[S]"""

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

    @classmethod
    def of(cls, found: kernels.SpanList) -> Spans:
        """Return the spans that a kernel found."""
        kept = found.spans[: found.ends[-1]]
        return cls(ends=found.ends, lo=kept[:, 0], hi=kept[:, 1], anchor=kept[:, 2], wide=kept[:, 3].astype(np.bool_))


class RowsToMask(NamedTuple):
    """Checked rows in the kernels' dtypes."""

    ids: np.ndarray
    bases: np.ndarray
    """uint8[B, W], or [0, 0] where the ids are those of the n-grams"""
    rows: kernels.Rows
    layout: layout_kernels.Layout
    grams_are_tokens: bool
    """overlapping k-mers with k = n, none of them unknown"""

    @property
    def num_maskable_tokens(self) -> np.ndarray:
        """Tokens of each row that may be masked, int64[B]."""
        counts = self.rows.num_tokens
        if not self.layout.restricted:
            return counts
        real = np.arange(self.ids.shape[1]) < counts[:, None]
        frozen = self.layout.marks[:, layout_kernels.FROZEN, : self.ids.shape[1]]
        return counts - np.where(real, frozen, 0).sum(axis=1, dtype=np.int64)

    @property
    def num_maskable_bases(self) -> np.ndarray:
        """Bases of each row that a token covers and that may be hidden, int64[B]."""
        out = np.empty(len(self.ids), np.int64)
        layout_kernels.count_maskable(self.rows.num_tokens, self.rows.num_bases, self.layout, out)
        return out


def rank_table(ranks: np.ndarray, strategy: Strategy) -> np.ndarray:
    """Return the ranks as the kernels look them up, with the worst appended; by position if the strategy does so.

    By position, as in the published scripts, n-gram g has the rank of id g + 1 ([CLS] is 0); special ids among them
    have their own rank.
    """
    worst = num_kmers((len(ranks)).bit_length() // 2)
    table = np.append(ranks, worst).astype(ranks.dtype)
    if isinstance(strategy, Compiled) and strategy.by_position:
        table[:NUM_SPECIAL] = worst if strategy.special_rank is None else strategy.special_rank
    return table


@functools.lru_cache(64)
def ids_by_position(num_grams: int, n: int) -> np.ndarray:
    """Return the ids by which n-grams of any row are looked up by position, token ids[1, num_grams]."""
    return np.minimum(np.arange(1, num_grams + 1), vocab_size(n)).astype(token_dtype(n))[None]


@functools.lru_cache(64)
def gap_table(rate: float) -> kernels.Rate:
    """Return the tables for drawing gaps between places chosen with probability ``rate``: (tail, guide).

    tail[g] = floor((1 - rate)**(g+1) * 2**64), by 64-bit integer multiplication, so the same on every machine. The gap
    of a draw (64 bits) is the number of entries above it. guide[h], int64[1024], is the gap of the largest draw whose
    top ten bits are h.
    """
    stay = (1 << 64) - round(rate * (1 << 64))
    tails = []
    power = stay
    while power > 0:
        tails.append(power)
        power = power * stay >> 64
    tail = np.array(tails, np.uint64)
    shift = 64 - centre_kernels.GUIDE_BITS
    largest = np.array([(h + 1 << shift) - 1 for h in range(1 << centre_kernels.GUIDE_BITS)], np.uint64)
    guide = len(tail) - np.searchsorted(tail[::-1], largest, side="right")
    return kernels.Rate(tail, guide.astype(np.int64))


def corruption_rule(strategy: Strategy, vocabulary: Vocabulary) -> corrupt_kernels.Corruption:
    """Return the corruption rule of masked tokens, for the kernels."""
    any_id = strategy.random_specials
    listed = vocabulary.random_ids if vocabulary.random_ids is not None and not any_id else np.empty(0, np.uint32)
    num_random = len(listed) or vocabulary.num_random_ids
    return corrupt_kernels.Corruption(
        strategy.corruption == "span",
        strategy.corruption == "mask",
        0 if any_id else vocabulary.first_random_id,
        vocabulary.size if any_id else num_random,
        listed,
        vocabulary.pad_id,
        vocabulary.cls_id,
        vocabulary.sep_id,
        vocabulary.mask_id,
    )


def gram_length(strategy: Strategy, num_ranks: int | None, k: int | None) -> int:
    """Return n, the length of the n-grams that are ranked and hidden; raise ValueError for arguments that do not fit.

    Parameters
    ----------
    num_ranks
        length of the ranks, 4**n + 5; None without ranks.
    k
        length of the k-mers if tokens are overlapping k-mers, or None.
    """
    n = strategy.n
    if num_ranks is not None:
        sizes = {vocab_size(size): size for size in range(MIN_N, MAX_N + 1)}
        if num_ranks not in sizes:
            small = {vocab_size(size): size for size in (1, 11, 12)}.get(num_ranks)
            what = f"ranks of {small}-mers" if small else f"ranks of shape ({num_ranks},)"
            raise ValueError(
                f"{what} cannot be masked by: give one rank for each of 4**n + 5 ids, n = {MIN_N}..{MAX_N}, such as"
                " NpmiTable.ranks(6), and n = 6"
            )
        found = sizes[num_ranks]
        if n is not None and n != found:
            raise ValueError(f"ranks are of n = {found}, but masking {strategy.name!r} has n = {n}")
        if n is None and k is not None and found not in (k, default_n(k)):
            raise ValueError(f"ranks are of n = {found}, but k = {k} is given; for n-grams of {found} give n = {found}")
        return found
    if n is not None:
        return n
    return default_n(k)


def default_n(k: int | None) -> int:
    """Return the default n of a strategy: k for k-mers that can be ranked, else 6 (or 10)."""
    if k is None or k < MIN_N:
        return DEFAULT_N
    return min(k, MAX_N)


def place_in_python(
    strategy: Strategy,
    job: RowsToMask,
    how: kernels.Selection,
    stage: int,
) -> kernels.SpanList:
    """Select spans as kernels.select does, for a strategy written in Python."""
    chooser, rate, budget = how.chooser, how.rate, how.budget
    placed = [np.empty((0, 4), np.int32)]
    ends = np.zeros(len(job.ids) + 1, np.int64)
    layout, exact = job.layout, budget.target.size > 0
    before = layout_kernels.reach(layout.token_bases, layout.token_stride, layout.varies)
    for i, (num_tokens, num_bases) in enumerate(zip(*map(np.ndarray.tolist, job.rows[:2]), strict=True)):
        goal = (exact, budget.by_base, int(budget.target[i]) if exact else 0, 0)
        task = kernels.task_of(chooser, layout, (i, num_tokens, num_bases), job.rows.keys[i], goal)
        task = task._replace(key=job.rows.keys[i])  # a kernel gives it back as a Python int, which it would not take
        ranks = np.empty(task.num_grams, np.int64)
        span_kernels.fill_ranks(task, chooser.source, chooser.ranks, (0, task.num_grams), ranks)
        seen = Row(
            bases=job.bases[i, :num_bases],
            token_ids=job.ids[i, :num_tokens],
            ranks=ranks,
            n=chooser.n,
            stage=stage,
            key=int(job.rows.keys[i]),
        )
        centre = np.empty(num_bases, np.int64)
        masked = np.empty(num_tokens + 2 * before, np.int64)
        count = 0
        if not exact:
            count = centre_kernels.bernoulli_centres(task.key, num_bases, rate.tail, rate.guide, centre)
        while True:
            if exact:
                centre_kernels.shuffled_centres(task.key, num_bases, max(0, count - 1), count, centre)
            spans = _written(strategy.place(seen, centre[:count].copy()), task, layout.marks)
            spans = spans[: shown_kernels.keep_shown(task, layout.marks, spans, len(spans), masked)]
            if not exact:
                break
            end = budget_kernels.trim(task, layout.marks, spans, len(spans), masked)
            if end >= 0 or count == num_bases:
                spans = spans[: len(spans) if end < 0 else end]
                break
            count += 1
        placed.append(spans)
        ends[i + 1] = ends[i] + len(spans)
    return kernels.SpanList(ends, np.concatenate(placed))


def _written(chosen: object, task: layout_kernels.Task, marks: np.ndarray) -> np.ndarray:
    """Return the spans of a Python strategy as int32[m, 4], each anchored at the middle of its bases."""
    pairs = np.clip(np.array(chosen, np.int64).reshape(-1, 2), 0, task.num_bases)
    spans = np.zeros((len(pairs), 4), np.int32)
    count = 0
    for first, end in pairs.tolist():
        if first < end:
            count = span_kernels.write_span(task, marks, (first, end), ((first + end - 1) // 2, 0), spans, count)
    return spans[:count]


def bases_of_kmers(ids: np.ndarray, num_tokens: np.ndarray, k: int) -> np.ndarray:
    """Return the bases of rows of overlapping k-mers, uint8[B, L+k-1], 4 where no k-mer shows one."""
    bases = np.empty((ids.shape[0], ids.shape[1] + k - 1), np.uint8)
    kmer.bases_of_kmers(ids, num_tokens, k, bases)
    return bases
