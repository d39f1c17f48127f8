"""Masking of any tokens: the kernels agree with the naive twin, and what is promised for all tokens holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gemsdata as gd
from gemsdata.genome import vocab
from gemsdata.kernels.keys import row_keys
from gemsdata.masking.masker import Masker
from gemsdata.masking.selection import bases_of_kmers
from gemsdata.masking.strategies import resolve
from gemsdata.masking.token_rows import TokenRows, Vocabulary, hidden_bases
from tests import naive_masking_bases as naive

NAMES = [
    "random-token",
    "dnabert",
    "random-span",
    "genemask",
    "genemask-released",
    "global",
    "global-nms",
    "global-released",
    "randommask",
]
KINDS = ["base", "kmer", "strided", "apart", "gaps", "varying"]
SIZE = 4**5 + 5


def token_rows(rng, kind, length, n, *, unknown=False, restricted=False):
    """Three rows of at most ``length`` tokens: a whole one, one of random length and one of a single token."""
    token_bases = {"base": 1, "kmer": int(rng.integers(2, 6)), "strided": 5, "apart": 4, "gaps": 3, "varying": 3}[kind]
    stride = {"base": 1, "kmer": 1, "strided": int(rng.integers(2, 5)), "apart": 4, "gaps": 5, "varying": 3}[kind]
    num_tokens = np.array([length, rng.integers(0, length + 1), 1])
    starts = None
    if kind == "varying":
        starts = np.zeros((3, length + 1), np.int32)
        starts[:, 1:] = np.cumsum(rng.integers(1, 6, (3, length)), axis=1)
        num_bases = starts[np.arange(3), num_tokens].astype(np.int64)
    else:
        num_bases = np.where(num_tokens > 0, (num_tokens - 1) * stride + token_bases, 0)
        num_bases[0] += rng.integers(0, stride)  # bases that no token covers, or only part of one
    width = int(num_bases.max()) + int(rng.integers(0, 4))
    letters = int(rng.choice([1, 2, 4]))  # few letters make equal n-grams
    bases = rng.integers(0, letters, (3, width)).astype(np.uint8)
    if unknown:
        bases[rng.random(bases.shape) < 0.05] = 4
    maskable = rng.random((3, width)) < 0.85 if restricted else None
    ids = rng.integers(5, SIZE, (3, length)).astype(np.uint16)
    if kind == "kmer":
        for i, t in np.ndindex(3, length):
            letters = bases[i, t : t + token_bases].tolist()
            real = t < num_tokens[i] and max(letters) < 4
            ids[i, t] = 5 + int("".join(map(str, letters)), 4) if real else vocab.UNK_ID
    return TokenRows(
        input_ids=ids,
        num_tokens=num_tokens,
        bases=bases,
        num_bases=num_bases,
        token_bases=token_bases,
        token_stride=stride,
        token_start=starts,
        maskable=maskable,
    )


def naive_row(rows, i, n):
    num_tokens, num_bases = int(rows.num_tokens[i]), int(rows.num_bases[i])
    if rows.token_start is not None:
        tokens = [(int(rows.token_start[i, t]), int(rows.token_start[i, t + 1])) for t in range(num_tokens)]
    else:
        firsts = [t * rows.token_stride for t in range(num_tokens)]
        tokens = [(first, min(first + rows.token_bases, num_bases)) for first in firsts]
    num_bases = max([end for _, end in tokens], default=0)  # bases beyond the last token say nothing
    may = [True] * num_bases if rows.maskable is None else rows.maskable[i, :num_bases].tolist()
    grams = rows.token_start is None and rows.token_stride == 1 and rows.token_bases == n
    return naive.NaiveRow(
        bases=rows.bases[i, :num_bases].tolist(),
        tokens=tokens,
        ids=rows.input_ids[i, :num_tokens].tolist(),
        may=may,
        overlapping=rows.token_start is None and rows.token_stride < rows.token_bases,
        grams_are_tokens=grams,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("goal", ["rate", "token", "nucleotide"])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    n=st.integers(2, 4),
    length=st.integers(1, 24),
    amount=st.sampled_from([0.05, 0.15, 0.5, 1.0]),
    unknown=st.booleans(),
    restricted=st.booleans(),
    corruption=st.sampled_from(["token", "span", "mask"]),
    few_ranks=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_rows_of_any_tokens_are_masked_as_by_the_twin(
    name, goal, kind, n, length, amount, unknown, restricted, corruption, few_ranks, seed
):
    rng = np.random.default_rng(seed)
    rows = token_rows(rng, kind, length, n, unknown=unknown, restricted=restricted)
    ranks = rng.integers(1, 4 if few_ranks else 4**n + 1, 4**n + 5).astype(np.uint16)
    rate = amount if goal == "rate" else None
    budget = None if goal == "rate" else amount
    unit = "nucleotide" if goal == "nucleotide" else "token"
    strategy = resolve(name, rate=rate, budget=budget, budget_unit=unit, corruption=corruption)
    listed = rng.permutation(SIZE)[:20].astype(np.uint32)
    masker = Masker(strategy, ranks=ranks, vocabulary=Vocabulary(size=SIZE, random_ids=listed), seed=9)
    row_ids = np.array([3, 1_000_000_007, 5])
    batch = masker.batch_of(rows, row_ids, epoch=2, stage=1)
    mask = masker.mask_of(rows, row_ids, epoch=2, stage=1)
    targets = masker.targets_of(rows)
    for i, key in enumerate(row_keys(9, 2, 1, row_ids).tolist()):
        row = naive_row(rows, i, n)
        least = naive.least_gain(row, rows.token_bases, rows.token_stride, rows.token_start is not None)
        masked = naive.masked_tokens(name, key, row, ranks.tolist(), n, 1, rate, budget, unit, least - 1)
        assert np.flatnonzero(mask[i]).tolist() == sorted(masked)
        random_ids = list(range(SIZE)) if name.endswith("-released") else listed.tolist()
        expected = naive.row_batch(key, row, masked, random_ids, corruption, length)
        for column, values in zip(("input_ids", "labels", "attention_mask"), expected, strict=True):
            assert batch[column][i].tolist() == values, column
        hidden = hidden_bases(rows, mask)[i]
        assert np.flatnonzero(hidden).tolist() == sorted(row.hidden_by(masked))
        assert all(row.may[b] for b in row.hidden_by(masked))
        if budget is not None:
            assert (len(row.hidden_by(masked)) if unit == "nucleotide" else len(masked)) <= targets[i]


def base_rows(num_rows, width, *, seed=0):
    bases = np.random.default_rng(seed).integers(0, 4, (num_rows, width)).astype(np.uint8)
    counts = np.full(num_rows, width)
    return TokenRows(
        input_ids=(bases + 5).astype(np.uint16),
        num_tokens=counts,
        bases=bases,
        num_bases=counts,
        token_bases=1,
        token_stride=1,
    )


def retokenized(rows, token_bases, stride):
    """The same bases in other tokens; ids say nothing here."""
    counts = (rows.num_bases - token_bases) // stride + 1
    return TokenRows(
        input_ids=np.full((len(counts), int(counts.max())), 7, np.uint16),
        num_tokens=counts,
        bases=rows.bases,
        num_bases=rows.num_bases,
        token_bases=token_bases,
        token_stride=stride,
    )


@pytest.mark.parametrize("k", [3, 6, 8])
@pytest.mark.parametrize("options", [{}, {"budget": 0.15}, {"budget": 0.1, "budget_unit": "nucleotide"}])
@pytest.mark.parametrize("name", NAMES)
def test_overlapping_kmers_with_k_of_n_get_what_batch_gives_them(name, options, k):
    rng = np.random.default_rng(k)
    bases = rng.integers(0, 4, (12, 80 + k - 1)).astype(np.uint8)
    ids = (5 + sum(bases[:, i : i + 80].astype(int) * 4 ** (k - 1 - i) for i in range(k))).astype(vocab.token_dtype(k))
    counts = rng.integers(0, 81, 12)
    num_bases = np.where(counts > 0, counts + k - 1, 0)
    assert (bases_of_kmers(ids, np.full(12, 80), k) == bases).all()
    ranks = np.append(np.full(5, 4**k), rng.permutation(4**k) + 1).astype(vocab.token_dtype(k))
    masker = Masker(resolve(name, **options), ranks=ranks, seed=1)
    rows = TokenRows(input_ids=ids, num_tokens=counts, bases=bases, num_bases=num_bases, token_bases=k, token_stride=1)
    one = masker.batch(ids, counts, np.arange(12), epoch=1, stage=2)
    other = masker.batch_of(rows, np.arange(12), epoch=1, stage=2)
    everything = TokenRows(**{**vars(rows), "maskable": np.ones(bases.shape, bool)})
    third = masker.batch_of(everything, np.arange(12), epoch=1, stage=2)
    for column, values in one.items():
        assert (values == other[column]).all()
        assert (values == third[column]).all()
    assert (masker.targets(counts) == masker.targets_of(rows)).all()


@pytest.mark.parametrize("token", [(1, 1), (3, 1), (6, 6), (6, 4)])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "random-token"])
def test_masked_are_exactly_the_tokens_that_touch_a_hidden_base(name, token):
    """Whatever the tokens: a token is unmasked if and only if all of its bases can be seen."""
    rows = retokenized(base_rows(40, 300), *token)
    ranks = np.append(np.full(5, 4**4), np.random.default_rng(1).permutation(4**4) + 1).astype(np.uint16)
    masker = Masker(name, ranks=ranks, vocabulary=Vocabulary.of_kmers(6))
    mask = masker.mask_of(rows, np.arange(40))
    hidden = hidden_bases(rows, mask)
    token_bases, stride = token
    for t in range(mask.shape[1]):
        touches = hidden[:, t * stride : t * stride + token_bases].any(axis=1)
        assert (touches == mask[:, t]).all()
    assert 0.02 < mask.mean() < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bases_are_hidden_whatever_the_tokens_at_one_rate(name):
    """With one probability of a centre the choice of bases follows from the key and the bases alone."""
    if name == "random-token":
        return
    rows = base_rows(30, 250)
    ranks = np.append(np.full(5, 4**5), np.random.default_rng(1).permutation(4**5) + 1).astype(np.uint16)
    masker = Masker(resolve(name, rate=0.01), ranks=ranks, vocabulary=Vocabulary.of_kmers(6))
    single = masker.mask_of(rows, np.arange(30))
    longer = retokenized(rows, 3, 1)
    hidden = hidden_bases(longer, masker.mask_of(longer, np.arange(30)))
    inner = slice(2, -2)  # at the ends of a row the last tokens over a base hide those beyond it as well
    assert (hidden | ~single)[:, inner].all()
    assert (hidden ^ single)[:, inner].mean() < 0.01  # bases between two spans, which no token shows any more


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["dnabert", "genemask", "global", "random-token"])
def test_no_masked_token_holds_what_may_not_be_masked(kind, name):
    rng = np.random.default_rng(5)
    for seed in range(30):
        rows = token_rows(np.random.default_rng(seed), kind, 30, 3, unknown=True, restricted=True)
        ranks = np.append(np.full(5, 64), rng.permutation(64) + 1).astype(np.uint16)
        masker = Masker(resolve(name, rate=0.2), ranks=ranks, vocabulary=Vocabulary(size=SIZE))
        mask = masker.mask_of(rows, np.arange(3))
        for i in range(3):
            row = naive_row(rows, i, 3)
            for t in np.flatnonzero(mask[i]):
                first, end = row.tokens[t]
                assert max(row.bases[first:end]) < 4
                assert row.overlapping or rows.maskable[i, first:end].all()
                assert name != "random-token" or rows.maskable[i, first:end].all()


@pytest.mark.compiled
@pytest.mark.parametrize("options", [{"budget": 0.15}, {"budget": 0.1, "budget_unit": "nucleotide"}])
@pytest.mark.parametrize("token", [(1, 1), (4, 1), (3, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_budgets_are_exact_for_long_rows(name, token, options):
    rows = retokenized(base_rows(3, 12_000), *token)
    ranks = np.append(np.full(5, 4**6), np.random.default_rng(1).permutation(4**6) + 1).astype(np.uint16)
    masker = Masker(resolve(name, **options), ranks=ranks, vocabulary=Vocabulary.of_kmers(4))
    mask = masker.mask_of(rows, np.arange(3))
    if "budget_unit" in options:
        reached = hidden_bases(rows, mask).sum(1)
        assert (reached == 1200 // token[1] * token[1]).all()
    else:
        assert (mask.sum(1) == np.rint(0.15 * rows.num_tokens)).all()


@pytest.mark.compiled
@pytest.mark.parametrize("letters", ["random", "one repeat"])
def test_a_row_of_a_million_tokens_is_masked_by_the_best_of_it(letters):
    width = 1 << 20
    rows = base_rows(1, width)
    if letters == "one repeat":
        rows.bases[:] = rows.bases[:, :7][:, np.arange(width) % 7]
    ranks = np.append(np.full(5, 4**6), np.random.default_rng(1).permutation(4**6) + 1).astype(np.uint16)
    masker = Masker("global", ranks=ranks, vocabulary=Vocabulary.of_kmers(1))
    spans = masker.spans_of(rows, np.array([7]))
    values = sum(rows.bases[0, i : width - 5 + i].astype(int) * 4 ** (5 - i) for i in range(6))
    rank = ranks[values + 5].astype(int)
    chosen = rank[spans.anchor]
    assert len(set(spans.anchor.tolist())) == len(chosen) > 25_000
    assert (np.diff(chosen) >= 0).all()
    assert np.sort(rank)[: len(chosen)].tolist() == chosen.tolist()
    best = spans.anchor[chosen == chosen[-1]]
    assert abs(best.mean() / width - 0.5) < 0.5 / np.sqrt(len(best))  # ties are drawn, not taken from the left


def test_random_replacements_are_real_tokens_of_the_vocabulary():
    rows = base_rows(200, 100)
    listed = np.array([9, 30, 31], np.uint32)
    words = Vocabulary(size=40, pad_id=35, cls_id=36, sep_id=37, mask_id=38, unk_id=39, random_ids=listed)
    batch = Masker("dnabert", vocabulary=words).batch_of(rows, np.arange(200))
    masked = batch["labels"] != -100
    seen = batch["input_ids"][masked]
    other = seen[(seen != 38) & (seen != batch["labels"][masked])]
    assert set(other.tolist()) == {9, 30, 31}
    assert (batch["input_ids"][:, 0] == 36).all()
    assert (batch["input_ids"][:, -1] == 37).all()
    wide = Vocabulary(size=70_000, first_random_id=69_990)
    batch = Masker("dnabert", vocabulary=wide).batch_of(rows, np.arange(200))
    assert [batch[name].dtype for name in ("input_ids", "labels")] == [np.uint32, np.int32]
    seen = batch["input_ids"][batch["labels"] != -100]
    assert set(seen[seen > 100].tolist()) == set(range(69_990, 70_000))


@pytest.mark.parametrize(("k", "n"), [(1, 6), (2, 2), (9, 9), (10, 10), (11, 10), (12, 10)])
def test_kmers_of_one_to_twelve_bases_can_be_masked(k, n):
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 4, (4, 60))
    width = 60 - k + 1
    ids = 5 + sum(bases[:, i : i + width] * 4 ** (k - 1 - i) for i in range(k))
    ranks = np.append(np.full(5, 4**n), rng.permutation(4**n) + 1)
    for masker in (
        Masker("genemask", ranks=ranks, k=None if k == n else k) if k == n else None,
        Masker(gd.GeneMask(n=n, budget=0.3), ranks=ranks, k=k),
        Masker("genemask", ranks=lambda n: np.append(np.full(5, 4**n), np.arange(4**n) + 1), k=k),
    ):
        if masker is None:
            continue
        assert masker.n == n
        batch = masker.batch(ids, np.full(4, width), np.arange(4))
        masked = batch["labels"][:, 1:-1] != -100
        assert (batch["labels"][:, 1:-1][masked] == ids[masked]).all()
        assert batch["labels"].dtype == (np.int16 if k < 8 else np.int32)
    assert Masker(gd.GeneMask(n=n, budget=0.3), ranks=ranks, k=k).mask(ids, np.full(4, width), np.arange(4)).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_bases": np.array([9, 9])}, "bases of shape .* do not fit 3 rows"),
        ({"num_bases": np.array([40, 40, 40])}, r"num_bases has 40\.\.40, outside 0\.\.30"),
        ({"num_tokens": np.array([30, 30, 30]), "num_bases": np.array([29, 30, 30])}, "row 0 has 30 tokens over 29"),
        ({"token_stride": 0}, "token_stride = 0: give 1 or more"),
        ({"maskable": np.ones((3, 9), bool)}, "maskable of shape"),
        ({"token_start": np.zeros((3, 30), np.int32)}, "token_start of shape"),
        ({"token_start": np.zeros((3, 31), np.int32)}, "token_start must rise"),
    ],
)
def test_token_rows_that_do_not_fit_are_refused(changes, message):
    rows = TokenRows(**{**vars(base_rows(3, 30)), **changes})
    with pytest.raises(ValueError, match=message):
        Masker("dnabert", vocabulary=Vocabulary.of_kmers(1)).batch_of(rows, np.arange(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "mask_id = 4 is not an id of a vocabulary of 4 tokens"),
        ({"size": 9, "random_ids": np.array([9])}, "random_ids must be a list of ids below 9"),
        ({"size": 9, "random_ids": np.array([], int)}, "random_ids must be a list of ids below 9"),
        ({"size": 9, "num_random_ids": 5}, r"real tokens 5\.\.9 are not ids"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(**options)
