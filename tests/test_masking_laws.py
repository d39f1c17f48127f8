"""Laws of masking for every kind of token that a view has, every strategy and every stage of every curriculum.

What a token covers is written down here as sets of bases, from the rows that the tokens themselves encode.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gemsdata as gd
from gemsdata.masking import curriculum as curricula
from gemsdata.masking import registry, strategies
from gemsdata.masking.curriculum import resolve_curriculum
from gemsdata.masking.masker import UNMASKED, Masker
from gemsdata.masking.strategies import resolve
from gemsdata.masking.token_rows import TokenRows
from gemsdata.views.tokens import Tokens, resolve_tokens
from gemsdata.views.view_reader import token_rows
from tests.test_views_tokens import bpe_folder

KINDS = ["base", "kmer:3", "kmer:6", "kmer:4:3", "kmer:6:4", "kmer:6:6", "bpe"]
STRATEGIES = [name for name in registry.names() if registry.find_strategy(name).__module__ == strategies.__name__]
CURRICULA = [
    name for name in registry.curriculum_names() if registry.find_curriculum(name).__module__ == curricula.__name__
]
ROW_IDS = np.array([3, 1_000_000_007])
kinds = pytest.mark.parametrize("kind", KINDS)
few = settings(max_examples=3, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def tokens_of(tmp_path_factory):
    """The tokens of a name, made once."""
    known: dict[str, Tokens] = {}

    def find(kind: str) -> Tokens:
        if kind not in known:
            known[kind] = resolve_tokens(bpe_folder(tmp_path_factory.mktemp("bpe")) if kind == "bpe" else kind)
        return known[kind]

    return find


def rows_of(tokens: Tokens, seed: int, width: int, *, restricted: bool = False) -> TokenRows:
    """A row of ``width`` bases and a shorter one; restricted: with unknown letters and bases that may not be hidden."""
    rng = np.random.default_rng(seed)
    bases = rng.integers(0, int(rng.choice([2, 4])), (2, width)).astype(np.uint8)  # few letters: equal n-grams
    maskable = None
    if restricted:
        bases[rng.random(bases.shape) < 0.03] = 4
        maskable = rng.random(bases.shape) < 0.85
    num_bases = np.array([width, rng.integers(1, width)])
    return token_rows(tokens.encode(bases, num_bases, tokens.row_tokens(width)), bases, tokens, maskable)


def ranks_of(seed: int) -> np.ndarray:
    """Ranks of 3-mers, with ties."""
    return np.random.default_rng(seed).integers(1, 40, 4**3 + 5).astype(np.uint16)


class Cover:
    """What the tokens of a row cover."""

    def __init__(self, rows: TokenRows, i: int) -> None:
        num_bases, count = int(rows.num_bases[i]), int(rows.num_tokens[i])
        firsts = [t * rows.token_stride for t in range(count)]
        self.spans = [set(range(first, min(first + rows.token_bases, num_bases))) for first in firsts]
        if rows.token_start is not None:
            self.spans = [set(range(a, b)) for a, b in itertools.pairwise(rows.token_start[i, : count + 1].tolist())]
        self.over: dict[int, set[int]] = {}
        for t, span in enumerate(self.spans):
            for b in span:
                self.over.setdefault(b, set()).add(t)
        letters = rows.bases[i].tolist()
        may = [True] * len(letters) if rows.maskable is None else rows.maskable[i].tolist()
        overlap = rows.token_start is None and rows.token_stride < rows.token_bases
        unknown = {t for t, span in enumerate(self.spans) if any(letters[b] > 3 for b in span)}
        self.blind = unknown if overlap else set()
        """tokens that show nothing: overlapping ones over an unknown letter"""
        self.frozen = (
            unknown if overlap else {t for t, s in enumerate(self.spans) if not all(may[b] for b in s)} | unknown
        )
        self.protected = {b for b in self.over if not may[b] and letters[b] < 4}

    def hidden(self, masked: set[int]) -> set[int]:
        """The bases of masked tokens that no other token shows."""
        return {b for b, over in self.over.items() if over & masked and over <= masked | self.blind}

    def touching(self, bases: set[int]) -> set[int]:
        return {t for b in bases for t in self.over.get(b, ())}


def masked_of(mask: np.ndarray) -> list[set[int]]:
    return [set(np.flatnonzero(row).tolist()) for row in mask]


@kinds
@few
@given(seed=seeds)
def test_masked_tokens_are_those_that_touch_a_hidden_base(tokens_of, kind, seed):
    """A span is the tokens over some bases, all of which it hides; exactly what spans cover is masked."""
    tokens = tokens_of(kind)
    rows, ranks = rows_of(tokens, seed, 48), ranks_of(seed)
    for name in STRATEGIES:
        masker = Masker(resolve(name, n=3, rate=0.06), ranks=ranks, vocabulary=tokens.vocabulary)
        for stage in range(2):
            spans = masker.spans_of(rows, ROW_IDS, stage=stage)
            for i, masked in enumerate(masked_of(masker.mask_of(rows, ROW_IDS, stage=stage))):
                cover = Cover(rows, i)
                assert masked == {t for lo, hi, _, _ in spans.row(i) for t in range(lo, hi)}
                if name != "random-token":
                    assert masked == cover.touching(cover.hidden(masked))
                for lo, hi, anchor, wide in spans.row(i) if name != "random-token" else ():
                    alone = cover.hidden(set(range(lo, hi)))
                    assert cover.touching(alone) == set(range(lo, hi))
                    assert not wide or set(range(anchor, anchor + 3)) & set(cover.over) <= alone


@kinds
@few
@given(seed=seeds)
def test_bases_that_may_not_be_hidden_are_shown_and_unknown_tokens_unmasked(tokens_of, kind, seed):
    tokens = tokens_of(kind)
    rows, ranks = rows_of(tokens, seed, 48, restricted=True), ranks_of(seed)
    goals = ({"rate": 0.3}, {"budget": 0.4}, {"budget": 0.3, "budget_unit": "nucleotide"})
    for name, goal in zip(STRATEGIES * 2, itertools.cycle(goals)):
        masker = Masker(resolve(name, n=3, **goal), ranks=ranks, vocabulary=tokens.vocabulary)
        for i, masked in enumerate(masked_of(masker.mask_of(rows, ROW_IDS))):
            cover = Cover(rows, i)
            assert not masked & cover.frozen
            assert not cover.hidden(masked) & cover.protected


@kinds
@few
@given(seed=seeds, share=st.sampled_from([0.05, 0.15, 0.4]))
def test_budgets_are_exact(tokens_of, kind, seed, share):
    """In tokens always; in bases so near that no other token would fit, which for overlapping tokens is exactly."""
    tokens = tokens_of(kind)
    rows, ranks = rows_of(tokens, seed, 60), ranks_of(seed)
    for name in STRATEGIES:
        exact = resolve(name, n=3, budget=share)
        mask = Masker(exact, ranks=ranks, vocabulary=tokens.vocabulary).mask_of(rows, ROW_IDS)
        long = rows.num_bases >= 3  # shorter rows have no n-gram
        assert (mask.sum(axis=1) == np.rint(share * rows.num_tokens))[long].all()
        exact = resolve(name, n=3, budget=share, budget_unit="nucleotide")
        masked = masked_of(Masker(exact, ranks=ranks, vocabulary=tokens.vocabulary).mask_of(rows, ROW_IDS))[0]
        cover = Cover(rows, 0)
        target, hidden = round(share * int(rows.num_bases[0])), len(cover.hidden(masked))
        assert hidden <= target
        if tokens.token_stride == 1 and not tokens.varying:
            assert hidden == target
        rest = set(range(len(cover.spans))) - masked
        assert hidden == target or min(len(cover.hidden(masked | {t})) for t in rest) > target


@kinds
@few
@given(seed=seeds)
def test_nothing_that_the_model_sees_depends_on_a_hidden_base(tokens_of, kind, seed):
    """Whatever stood at the hidden bases, unmasked tokens are the same; runs of masked tokens have one outcome."""
    tokens = tokens_of(kind)
    rows, ranks, rng = rows_of(tokens, seed, 48), ranks_of(seed), np.random.default_rng(seed)
    for name in STRATEGIES:
        masker = Masker(resolve(name, n=3, rate=0.1, corruption="span"), ranks=ranks, vocabulary=tokens.vocabulary)
        batch = masker.batch_of(rows, ROW_IDS)
        mask = batch["labels"][:, 1:-1] != UNMASKED
        seen = batch["input_ids"][:, 1:-1]
        others = rows.bases.copy()
        for i, masked in enumerate(masked_of(mask)):
            cover = Cover(rows, i)
            hidden = sorted(cover.hidden(masked))
            others[i, hidden] = rng.integers(0, 4, len(hidden))
            special = masker.strategy.random_specials  # [MASK] may stand for a random token then
            for t in masked & {t - 1 for t in masked} if not special else ():
                assert (seen[i, t] == masker.vocabulary.mask_id) == (seen[i, t + 1] == masker.vocabulary.mask_id)
            shown = "".join("ATCG"[b] for b in others[i])
            for t in set(range(int(rows.num_tokens[i]))) - masked:
                assert seen[i, t] == rows.input_ids[i, t]
                span = cover.spans[t]
                assert tokens.text(int(seen[i, t])) == shown[min(span) : max(span) + 1]


@kinds
@pytest.mark.parametrize("name", CURRICULA)
def test_every_stage_of_a_curriculum_keeps_the_laws(tokens_of, name, kind):
    tokens = tokens_of(kind)
    rows, ranks = rows_of(tokens, 5, 40), ranks_of(5)
    steps = gd.Steps(stages=("dnabert", "randommask", "global-nms"), boundaries=(10, 20))
    of_run = steps if name == "steps" else resolve_curriculum(name, num_steps=30)
    arms = of_run.with_options(n=3, budget=0.2).maskings()
    for step, logged in ((0, 0), (15, 1), (29, 2)):
        stage = of_run.stage(step, logged, 7)
        strategy = arms[min(stage, len(arms) - 1)]
        masker = Masker(strategy, ranks=ranks, vocabulary=tokens.vocabulary, seed=7)
        mask = masker.mask_of(rows, ROW_IDS, stage=stage)
        assert (mask.sum(axis=1) == np.rint(0.2 * rows.num_tokens))[rows.num_bases >= 3].all()
        labels = masker.batch_of(rows, ROW_IDS, stage=stage)["labels"][:, 1:-1]
        assert (labels == np.where(mask, rows.input_ids.astype(int), UNMASKED)).all()


def test_two_spans_do_not_hide_the_base_between_them():
    """Overlapping 3-mers: spans on both sides of a base mask all three tokens over it."""
    tokens = resolve_tokens("kmer:3")
    for seed in range(20):
        rows = rows_of(tokens, seed, 40)
        maskable = np.arange(40) % 4 != 2
        rows = token_rows(
            tokens.encode(rows.bases, rows.num_bases, 38), rows.bases, tokens, np.broadcast_to(maskable, (2, 40))
        )
        mask = Masker(gd.Dnabert(rate=0.6), k=3).mask_of(rows, ROW_IDS)
        for i, masked in enumerate(masked_of(mask)):
            hidden = Cover(rows, i).hidden(masked)
            assert all(maskable[b] for b in hidden)
        assert mask[0].sum() > 10
