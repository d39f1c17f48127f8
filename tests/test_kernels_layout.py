"""Kernels over layouts of tokens against sets of bases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gemsdata.kernels import layout as kernels
from gemsdata.kernels.layout import BLOCKED, START, Layout, Task

UNIFORM = [(3, 1), (6, 1), (1, 1), (5, 2), (4, 3), (6, 4), (3, 3), (2, 5)]
"""bases of a token, bases from one token to the next"""
VARYING = (0, 0)


class Row:
    """One row of tokens as sets: ``spans[t]`` are the bases of token t."""

    def __init__(self, shape: tuple[int, int], num_tokens: int, seed: int, behind: int = 0) -> None:
        k, stride = shape
        rng = np.random.default_rng(seed)
        self.varies = shape == VARYING
        ends = np.cumsum(rng.integers(2, 5, num_tokens)) if self.varies else np.arange(num_tokens) * stride + k
        starts = [0, *ends[:-1].tolist()] if self.varies else (np.arange(num_tokens) * stride).tolist()
        self.spans = [set(range(start, end)) for start, end in zip(starts, ends.tolist(), strict=True)]
        self.num_bases = int(ends[-1]) + behind
        self.overlap = not self.varies and stride < k
        marks = np.zeros((1, 3, self.num_bases + 2), np.int32)
        marks[0, START, : num_tokens + 1] = [*starts, int(ends[-1])]
        self.layout = Layout(k, stride, self.varies, True, marks)
        self.bases = np.where(rng.random((1, self.num_bases)) < 0.12, 4, 0).astype(np.uint8)
        self.maskable = rng.random((1, self.num_bases)) < 0.85

    @property
    def task(self) -> Task:
        return kernels.row_task(self.layout, 0, len(self.spans), self.num_bases)

    def block(self, every_base: bool = False) -> None:
        """Let the kernel write what may not be hidden, and know it as sets."""
        maskable = np.empty((0, 0), bool) if every_base else self.maskable
        count = np.array([len(self.spans)]), np.array([self.num_bases])
        kernels.find_blocked(self.bases, maskable, *count, self.layout)
        unknown = {b for b in range(self.num_bases) if self.bases[0, b] == 4}
        may = np.ones(self.num_bases, bool) if every_base else self.maskable[0]
        self.blocked = unknown | {b for b in range(self.num_bases) if not may[b]}
        self.frozen = [bool(span & (unknown if self.overlap else self.blocked)) for span in self.spans]
        if not self.overlap:
            self.blocked |= set().union(*itertools.compress(self.spans, self.frozen))

    def only_of(self, tokens: set[int]) -> set[int]:
        """Return the bases that these tokens cover and no other."""
        covered = set().union(*(self.spans[t] for t in tokens))
        return covered.difference(*(span for t, span in enumerate(self.spans) if t not in tokens))


ROWS = pytest.mark.parametrize("seed", range(3))
SHAPES = pytest.mark.parametrize("shape", [*UNIFORM, VARYING])


@ROWS
@SHAPES
@pytest.mark.parametrize("every_base", [True, False])
def test_marks_say_which_bases_and_tokens_are_never_masked(shape, seed, every_base):
    row = Row(shape, 6, seed, behind=2)
    row.block(every_base)
    counts = [sum(b in row.blocked for b in range(end)) for end in range(row.num_bases + 1)]
    covered = len(counts) if row.overlap else max(row.spans[-1]) + 2
    assert row.layout.marks[0, BLOCKED, :covered].tolist() == counts[:covered]
    assert row.layout.marks[0, kernels.FROZEN, : len(row.spans)].tolist() == row.frozen


@ROWS
@SHAPES
def test_bases_may_be_hidden_where_none_that_goes_with_them_is_blocked(shape, seed):
    row = Row(shape, 6, seed, behind=2 if shape[1] < shape[0] else 0)
    row.block()
    marks, task = row.layout.marks, row.task
    for first in range(-1, max(row.spans[-1]) + 1):
        for end in range(max(1, first + 1), first + 5):
            wanted = set(range(max(0, first), min(end, row.num_bases)))
            touched = {t for t, span in enumerate(row.spans) if span & wanted}
            if not touched:
                continue
            assert kernels.may_hide(task, marks, first, end) == (not (wanted | row.only_of(touched)) & row.blocked)
            if first >= 0 and (row.varies or first in set().union(*row.spans)):
                assert set(range(*kernels.tokens_over(task, marks, first, end))) == touched
    assert kernels.may_hide(task._replace(restricted=False), marks, 0, row.num_bases)


@ROWS
@pytest.mark.parametrize("shape", UNIFORM)
def test_a_masked_token_hides_the_bases_that_no_other_shows(shape, seed):
    row = Row(shape, 7, seed)
    before = kernels.reach(*shape, False)
    rng = np.random.default_rng(seed)
    for token in range(7):
        mask = rng.random(7) < 0.6
        mask[token] = False
        masked = np.array([1] * before + mask.astype(int).tolist() + [1] * before)
        shown = set().union(*(row.spans[t] for t in range(7) if not mask[t] and t != token))
        assert kernels.newly_hidden(row.task, masked, token) == len(row.spans[token] - shown)


@SHAPES
def test_reach_and_least_gain_follow_from_the_spans(shape):
    row = Row(shape, 7, 5)
    far = max(s - t for t, s in itertools.combinations_with_replacement(range(7), 2) if row.spans[t] & row.spans[s])
    if row.varies:
        assert kernels.reach(3, 1, True) == far == 0
    else:
        assert kernels.reach(*shape, False) == far
    subsets = [set(itertools.compress(range(7), bits)) for bits in itertools.product((0, 1), repeat=7)]
    hidden = {frozenset(tokens): len(row.only_of(tokens)) for tokens in subsets}
    gains = {hidden[tokens | {t}] - hidden[tokens] for tokens in hidden for t in range(7)} - {0}
    found = kernels.smallest_gain(row.task, row.layout.marks)
    if shape == (4, 3):  # a bound: a token hides its own two bases before the one that it shares
        assert 0 < found <= min(gains)
    else:
        assert found == min(gains)


@ROWS
@SHAPES
@pytest.mark.parametrize("restricted", [True, False])
def test_maskable_bases_are_covered_and_not_blocked(shape, seed, restricted):
    row = Row(shape, 6, seed)
    row.block()
    out = np.full(1, -1)
    kernels.count_maskable(np.array([6]), np.array([row.num_bases]), row.layout._replace(restricted=restricted), out)
    assert out[0] == len(set().union(*row.spans) - (row.blocked if restricted else set()))


@ROWS
@SHAPES
def test_hidden_bases_are_those_of_masked_tokens_that_no_other_shows(shape, seed):
    row = Row(shape, 8, seed, behind=2)
    row.block()
    rng = np.random.default_rng(seed)
    masked = np.array([(rng.random(8) < 0.6) & ~np.array(row.frozen)])
    hidden = np.ones((1, row.num_bases + 1), bool)
    kernels.hidden_bases_of(masked, np.array([8]), np.array([row.num_bases]), row.layout, hidden)
    shows = [t for t in range(8) if not masked[0, t] and not (row.overlap and row.frozen[t])]
    wanted = set().union(*itertools.compress(row.spans, masked[0].tolist())).difference(*(row.spans[t] for t in shows))
    assert set(np.flatnonzero(hidden[0]).tolist()) == wanted
