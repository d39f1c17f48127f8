"""Masking at the limits of its options and of rows, against what the definitions say."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.kernels.spans import BEST_NEAR_CENTRE, BEST_OF_ROW, CENTRE_BASE, CENTRE_GRAM, LENGTH_RANGE, TOKEN
from gemsdata.masking import masker as masking
from gemsdata.masking.selection import default_n, gap_table, gram_length
from gemsdata.masking.strategies import MIN_RATE, RandomMask, Row, Strategy, resolve
from gemsdata.masking.token_rows import (
    TokenRows,
    Vocabulary,
)
from tests.masking_support import rows_of

SIZE = 69
ROW_IDS = np.array([7, 8, 9])
pytestmark = pytest.mark.once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fixed(Strategy):
    """Hides the same bases of every row."""

    spans: ClassVar[Sequence[tuple[int, int]]] = ((3, 5), (7, 7), (9, 8), (-2, 1), (11, 99))

    def place(self, row: Row, centres: np.ndarray) -> Sequence[tuple[int, int]]:
        return self.spans


@dataclasses.dataclass(frozen=True, kw_only=True)
class AtCentres(Strategy):
    """Hides the base at each centre, and notes with what it was called."""

    seen: ClassVar[list[tuple[Row, list[int]]]] = []

    def place(self, row: Row, centres: np.ndarray) -> Sequence[tuple[int, int]]:
        self.seen.append((row, centres.tolist()))
        return [(int(centre), int(centre) + 1) for centre in centres]


class Nowhere(Fixed):
    spans = ()


def test_the_spans_of_a_python_strategy_are_clipped_and_stand_by_their_middle() -> None:
    rows = rows_of([10, 4, 0], [12, 6, 0])
    found = masking.Masker(Fixed(rate=0.5), k=3).spans_of(rows, ROW_IDS)
    assert len(found) == 3
    assert list(found.row(0)) == [(1, 5, 3, False), (0, 1, 0, False), (9, 10, 11, False)]
    assert list(found.row(1)) == [(1, 4, 3, False), (0, 1, 0, False)]
    assert list(found.row(2)) == []
    assert found.ends.tolist() == [0, 3, 5, 5]
    mask = masking.Masker(Fixed(rate=0.5), k=3).mask_of(rows, ROW_IDS)
    assert np.flatnonzero(mask[0]).tolist() == [0, 1, 2, 3, 4, 9]
    assert np.flatnonzero(mask[1]).tolist() == [0, 1, 2, 3]
    assert not mask[2].any()


@pytest.mark.parametrize("budget", [0.0, 0.25, 0.5, 1.0])
def test_a_python_strategy_gets_one_centre_more_until_its_budget_is_met(budget: float) -> None:
    bases = np.random.default_rng(0).integers(0, 4, (1, 12)).astype(np.uint8)
    rows = TokenRows(
        input_ids=(bases + 5).astype(np.uint16),
        num_tokens=np.array([12]),
        bases=bases,
        num_bases=np.array([12]),
        token_bases=1,
        token_stride=1,
    )
    AtCentres.seen.clear()
    masker = masking.Masker(AtCentres(budget=budget, n=2), vocabulary=Vocabulary.of_kmers(1))
    mask = masker.mask_of(rows, np.array([5]), epoch=1, stage=3)
    target = round(12 * budget)
    centres = [given for _, given in AtCentres.seen]
    assert [len(given) for given in centres] == list(range(target + 1))
    assert all(more[:-1] == fewer for fewer, more in itertools.pairwise(centres))
    assert len(set(centres[-1])) == target
    assert np.flatnonzero(mask[0]).tolist() == sorted(centres[-1])
    row = AtCentres.seen[0][0]
    assert row.bases.tolist() == bases[0].tolist()
    assert row.token_ids.tolist() == rows.input_ids[0].tolist()
    assert (row.n, row.stage, len(row.ranks)) == (2, 3, 11)
    labels = masker.batch_of(rows, np.array([5]), epoch=1, stage=3)["labels"][:, 1:-1]
    assert ((labels != masking.UNMASKED) == mask).all()
    assert {row.stage for row, _ in AtCentres.seen} == {3}


def test_a_python_strategy_that_hides_nothing_ends() -> None:
    rows = rows_of([10, 4, 0], [12, 6, 0])
    assert not masking.Masker(Nowhere(budget=0.5), k=3).mask_of(rows, ROW_IDS).any()
    assert not masking.Masker(Nowhere(rate=0.5), k=3).mask_of(rows, ROW_IDS).any()


def test_a_budget_in_tokens_trims_the_last_span_of_a_python_strategy() -> None:
    rows = rows_of([10, 4, 0], [12, 6, 0])
    mask = masking.Masker(Fixed(budget=0.3), k=3).mask_of(rows, ROW_IDS)
    assert mask.sum(axis=1).tolist() == [3, 1, 0]
    assert set(np.flatnonzero(mask[0])) <= {1, 2, 3, 4}


def test_a_python_strategy_sees_every_rank_and_its_spans_of_a_base_that_may_not_be_hidden_are_left_out() -> None:
    rows = rows_of([10, 10, 10], [12, 12, 12])
    rows = dataclasses.replace(rows, maskable=np.arange(12) != 5 + np.zeros((3, 1)))
    AtCentres.seen.clear()
    ranks = np.append(np.full(5, 64), np.arange(64) % 7 + 1)
    spans = masking.Masker(AtCentres(rate=0.5), ranks=ranks).spans_of(rows, ROW_IDS)
    for i, (row, centres) in enumerate(AtCentres.seen):
        assert centres == sorted(set(centres))
        kept, over = [], set()
        for centre in centres:
            more = over | {3, 4, 5} & {centre - 2, centre - 1, centre}
            if more != {3, 4, 5}:  # the tokens over base 5
                kept, over = [*kept, centre], more
        assert [anchor for _, _, anchor, _ in spans.row(i)] == kept
        assert row.ranks.tolist() == ranks[rows.input_ids[i]].tolist()


@pytest.mark.parametrize("name", ["dnabert", "randommask", "genemask", "global-nms"])
@pytest.mark.parametrize(("epoch", "stage"), [(0, 0), (1, 0), (0, 1), (2, 3)])
def test_all_ways_to_the_same_rows_give_the_same_spans(name: str, epoch: int, stage: int) -> None:
    rows = rows_of([30, 17, 0], [32, 19, 0])
    ranks = np.append(np.full(5, 64), np.arange(64) * 11 % 64 + 1)
    masker = masking.Masker(resolve(name, rate=0.2), ranks=ranks, seed=4)
    key = {"epoch": epoch, "stage": stage}
    kmers = (rows.input_ids, rows.num_tokens, ROW_IDS)
    spans, same = masker.spans(*kmers, **key), masker.spans_of(rows, ROW_IDS, **key)
    assert [list(spans.row(i)) for i in range(3)] == [list(same.row(i)) for i in range(3)]
    expected = np.zeros((3, 30), bool)
    for i in range(3):
        for lo, hi, _, _ in spans.row(i):
            expected[i, lo:hi] = True
    assert expected[0].any()
    for mask in (masker.mask(*kmers, **key), masker.mask_of(rows, ROW_IDS, **key)):
        assert (mask == expected).all()
    for batch in (masker.batch(*kmers, **key), masker.batch_of(rows, ROW_IDS, **key)):
        assert ((batch["labels"][:, 1:-1] != masking.UNMASKED) == expected).all()
    others = [masker.mask(*kmers, epoch=e, stage=s) for e in range(3) for s in range(4) if (e, s) != (epoch, stage)]
    if name != "global-nms":
        assert not any((mask == expected).all() for mask in others)


@pytest.mark.parametrize("seed", [0, (1 << 64) - 1])
def test_the_least_and_the_greatest_seed_are_taken(seed: int) -> None:
    assert masking.Masker("dnabert", seed=seed).seed == seed


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_seeds_beyond_64_bits_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="is out of range: give an integer from 0"):
        masking.Masker("dnabert", seed=seed)


@pytest.mark.parametrize("kind", [np.uint16, np.int64])
def test_ids_up_to_the_last_of_the_vocabulary_are_taken(kind: type) -> None:
    masker = masking.Masker(gd.RandomToken(rate=1), k=3)
    ids = np.full((2, 4), SIZE - 1, kind)
    assert masker.mask(ids, np.array([4, 0]), np.arange(2)).tolist() == [[True] * 4, [False] * 4]
    assert masker.vocabulary.size == SIZE
    with pytest.raises(ValueError, match=r"token ids 69\.\.69 are not of k = 3, whose ids end at 68"):
        masker.mask(ids + kind(1), np.array([4, 0]), np.arange(2))
    if kind is np.int64:
        with pytest.raises(ValueError, match=r"token ids -1\.\.-1 are not of k = 3"):
            masker.mask(ids * 0 - 1, np.array([4, 0]), np.arange(2))
    with pytest.raises(ValueError, match=r"num_tokens has -1\.\.4, outside 0\.\.4"):
        masker.mask(ids, np.array([4, -1]), np.arange(2))
    assert masker.mask(ids[:0], np.array([], int), np.arange(0)).shape == (0, 4)
    other = masking.Masker("dnabert", vocabulary=Vocabulary(size=7))
    with pytest.raises(ValueError, match="are not of this vocabulary, whose ids end at 6"):
        other.mask(ids, np.array([4, 0]), np.arange(2))


def test_rows_of_no_bases_are_taken_and_counts_that_do_not_fit_are_refused() -> None:
    masker = masking.Masker(gd.Dnabert(rate=1), vocabulary=Vocabulary(size=SIZE))
    rows = rows_of([10, 4, 0], [12, 6, 0])
    assert masker.mask_of(rows, ROW_IDS).sum(axis=1).tolist() == [10, 4, 0]
    for changes, message in (
        ({"num_bases": np.array([12, 6])}, "do not fit 3"),
        ({"bases": rows.bases[:2]}, "do not fit 3"),
        ({"bases": rows.bases[0]}, "do not fit 3"),
        ({"num_bases": np.array([12, 6, -1])}, r"num_bases has -1\.\.12, outside 0\.\.12"),
        ({"num_bases": np.array([13, 6, 0])}, r"num_bases has 0\.\.13, outside 0\.\.12"),
    ):
        with pytest.raises(ValueError, match=message):
            masker.mask_of(dataclasses.replace(rows, **changes), ROW_IDS)


def test_mask_rows_says_what_does_not_fit() -> None:
    ids = rows_of([10, 10, 10], [12, 12, 12]).input_ids
    counts = np.array([10, 10, 10])
    for bad_ids, bad_counts in ((ids, counts[:2]), (ids[0], counts[:1]), (ids, counts[:, None])):
        with pytest.raises(ValueError, match=r"do not fit: give \[B, L\], \[B\] and \[B\]"):
            masking.mask_rows(bad_ids, bad_counts, masking="dnabert", k=3)
    with pytest.raises(ValueError, match="row 2 has the special id 4 at token 9"):
        masking.mask_rows(np.where(np.arange(30).reshape(3, 10) == 29, 4, ids), counts, masking="dnabert", k=3)
    with pytest.raises(ValueError, match="row 0 has the special id 0 at token 0"):
        masking.mask_rows(np.where(np.arange(30).reshape(3, 10) == 0, 0, ids), counts, masking="dnabert", k=3)
    padded = np.where(np.arange(10) == 9, 0, ids)
    found = masking.mask_rows(padded, counts - 1, masking=gd.Dnabert(rate=0.3), k=3, seed=2)
    masker = masking.Masker(gd.Dnabert(rate=0.3), k=3, seed=2)
    assert (found == masker.mask(padded, counts - 1, np.arange(3))).all()
    chosen = masking.mask_rows(padded, counts - 1, masking=gd.Dnabert(rate=0.3), k=3, seed=2, sample_ids=ROW_IDS)
    assert (chosen == masker.mask(padded, counts - 1, ROW_IDS)).all()


@pytest.mark.parametrize(
    "options",
    [
        {"rate": MIN_RATE},
        {"rate": 1},
        {"budget": 0},
        {"budget": 1},
        {"n": 2},
        {"n": 10},
        {"budget": 0.1, "budget_unit": "nucleotide", "corruption": "span"},
    ],
)
def test_options_at_their_limits_are_taken(options: dict[str, Any]) -> None:
    assert {**resolve("dnabert").describe(), **options} == resolve("dnabert", **options).describe()
    assert resolve(resolve("dnabert"), **options) == resolve("dnabert", **options)


@pytest.mark.parametrize(
    "options", [{"rate": 0.00009}, {"rate": 1.01}, {"budget": -0.01}, {"budget": 1.01}, {"n": 1}, {"n": 11}]
)
def test_options_beyond_their_limits_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} = .* is out of range"):
        resolve("dnabert", **options)


@pytest.mark.parametrize(
    ("name", "method", "span_bases"),
    [
        ("random-token", (TOKEN, 0, 0), 1),
        ("dnabert", (CENTRE_BASE, 0, 0), 1),
        ("random-span", (CENTRE_GRAM, 0, 0), 6),
        ("genemask", (BEST_NEAR_CENTRE, 0, 0), 3.5),
        ("genemask-released", (BEST_NEAR_CENTRE, 0, 5), 3.5),
        ("global", (BEST_OF_ROW, 0, 0), 6),
        ("global-nms", (BEST_OF_ROW, 10, 0), 6),
        ("randommask", (LENGTH_RANGE, 6, 6), 1),
    ],
)
def test_the_default_rate_follows_from_the_bases_of_a_span(name: str, method: tuple[int, ...], span_bases: int) -> None:
    strategy: Any = resolve(name)
    assert strategy.method(6, 0) == method
    assert strategy.span_bases(6, 0) == span_bases
    for token_bases in (1, 6):
        tokens = 1 if name == "random-token" else span_bases + token_bases - 1
        assert strategy.centre_rate(6, token_bases, 0) == round(0.15 / tokens, 4)
        assert resolve(name, rate=0.3).centre_rate(6, token_bases, 0) == 0.3


def test_randommask_has_the_lengths_of_its_stage() -> None:
    assert [RandomMask().lengths(6, stage) for stage in range(8)] == [
        (6, longest) for longest in (6, 8, 10, 12, 14, 16, 18, 18)
    ]
    assert [RandomMask().lengths(3, stage)[1] for stage in (0, 2, 3, 4)] == [3, 7, 9, 9]
    assert [RandomMask(min_tokens=7).lengths(6, stage) for stage in (0, 1, 5, 9)] == [(7, 7), (7, 9), (7, 17), (7, 17)]
    assert RandomMask(min_tokens=20).lengths(6, 3) == (20, 20)
    assert RandomMask(min_tokens=1, max_tokens=(1, 4)).lengths(6, 9) == (1, 4)
    assert RandomMask(max_tokens=(1,)).method(6, 2) == (LENGTH_RANGE, 6, 1)
    assert RandomMask().method(6, 2) == (LENGTH_RANGE, 6, 10)
    assert [RandomMask().span_bases(6, stage) for stage in range(3)] == [1, 2, 3]
    for options in ({"min_tokens": 0}, {"max_tokens": ()}, {"max_tokens": (0,)}, {"min_tokens": 3, "max_tokens": (2,)}):
        with pytest.raises(ValueError, match="do not fit: give 1 <= min_tokens"):
            RandomMask(**options)  # type: ignore[arg-type]


def test_the_length_of_ngrams_follows_from_ranks_from_the_strategy_or_from_k() -> None:
    assert [default_n(k) for k in (None, 1, 2, 9, 10, 11, 12)] == [6, 6, 2, 9, 10, 10, 10]
    plain = resolve("dnabert")
    assert [gram_length(plain, 4**n + 5, None) for n in (2, 6, 10)] == [2, 6, 10]
    assert gram_length(plain, 4**3 + 5, 3) == 3
    assert gram_length(plain, 4**6 + 5, 1) == 6
    assert gram_length(resolve("dnabert", n=3), 4**3 + 5, 5) == 3
    assert gram_length(resolve("dnabert", n=3), None, 5) == 3
    assert gram_length(plain, None, 5) == 5
    for num_ranks, k, message in (
        (9, None, "ranks of 1-mers"),
        (4**11 + 5, None, "ranks of 11-mers"),
        (70, None, r"ranks of shape \(70,\)"),
        (69, 5, "ranks are of n = 3, but k = 5"),
    ):
        with pytest.raises(ValueError, match=message):
            gram_length(plain, num_ranks, k)


@pytest.mark.parametrize("rate", [1.0, 0.5, 0.15])
def test_the_tables_of_a_rate_hold_the_gap_of_every_draw(rate: float) -> None:
    tail, guide = gap_table(rate)
    stay = (1 << 64) - round(rate * (1 << 64))
    exact, power = [], stay
    while power:
        exact.append(power)
        power = power * stay >> 64
    assert tail.tolist() == exact
    for h in (0, 1, 2, 511, 512, 1022, 1023):
        assert guide[h] == sum(entry > (h + 1) * (1 << 54) - 1 for entry in exact)
    assert guide.shape == (1024,)
