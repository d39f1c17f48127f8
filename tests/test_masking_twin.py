"""The kernels agree bit for bit with naive_masking, which is written from the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemsdata.genome.vocab import token_dtype
from gemsdata.masking import masker as masking
from gemsdata.masking.strategies import resolve
from tests import naive_masking as naive

DEFAULT_RATE = {
    "random-token": lambda k, stage: 0.15,
    "dnabert": lambda k, stage: round(0.15 / k, 4),
    "random-span": lambda k, stage: round(0.15 / (2 * k - 1), 4),
    "genemask": lambda k, stage: round(0.15 / ((3 * k - 1) / 2), 4),
    "genemask-released": lambda k, stage: round(0.15 / ((3 * k - 1) / 2), 4),
    "global": lambda k, stage: round(0.15 / (2 * k - 1), 4),
    "global-nms": lambda k, stage: round(0.15 / (2 * k - 1), 4),
    "global-released": lambda k, stage: round(0.15 / (2 * k - 1), 4),
    "randommask": lambda k, stage: round(0.15 / (k + min(stage, k)), 4),
}


def assert_same(name, ids, num_tokens, ranks, k, *, rate=None, budget=None, unit="token", corruption="token", stage=0):
    strategy = resolve(name, rate=rate, budget=budget, budget_unit=unit, corruption=corruption)
    masker = masking.Masker(strategy, ranks=ranks, k=k, seed=7)
    row_ids = np.arange(len(ids)) * 1_000_003 + 5
    batch = masker.batch(ids, num_tokens, row_ids, epoch=3, stage=stage)
    mask = masker.mask(ids, num_tokens, row_ids, epoch=3, stage=stage)
    for i, tokens in enumerate(num_tokens.tolist()):
        key = naive.row_key(7, 3, stage, int(row_ids[i]))
        masked, *expected = naive.row_batch(
            name,
            key,
            ids[i, :tokens].tolist(),
            ranks.tolist(),
            k,
            ids.shape[1],
            stage,
            rate or DEFAULT_RATE[name](k, stage),
            budget,
            unit,
            corruption,
        )
        assert np.flatnonzero(mask[i]).tolist() == sorted(masked)
        for column, values in zip(("input_ids", "labels", "attention_mask"), expected, strict=True):
            assert batch[column][i].tolist() == values, column


@pytest.mark.parametrize("corruption", ["token", "span"])
@pytest.mark.parametrize("goal", ["rate", "token", "nucleotide"])
@pytest.mark.parametrize("name", DEFAULT_RATE)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    k=st.sampled_from([3, 4, 5, 6, 7, 8]),
    length=st.integers(1, 70),
    letters=st.sampled_from([1, 3, 4**8]),
    num_ranks=st.sampled_from([1, 5, 4**8]),
    share=st.sampled_from([0.05, 0.15, 0.5, 1.0]),
    stage=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
def test_random_rows_are_masked_as_by_the_twin(
    name, goal, corruption, k, length, letters, num_ranks, share, stage, seed
):
    """Few distinct tokens and few distinct ranks make ties; short rows make clipped spans."""
    rng = np.random.default_rng(seed)
    ids = (5 + rng.integers(0, min(letters, 4**k), (3, length))).astype(token_dtype(k))
    ranks = rng.integers(1, min(num_ranks, 4**k) + 1, 4**k + 5).astype(token_dtype(k))
    num_tokens = np.array([length, rng.integers(0, length + 1), 1])
    ids[np.arange(length) >= num_tokens[:, None]] = 0
    goals = {"rate": {"rate": share}, "token": {"budget": share}, "nucleotide": {"budget": share, "unit": "nucleotide"}}
    if goal == "nucleotide":
        ids, num_tokens = ids[:, :40], np.minimum(num_tokens, 40)
    assert_same(name, ids, num_tokens, ranks, k, stage=stage, corruption=corruption, **goals[goal])


def test_masking_without_random_or_kept_tokens_is_that_of_the_twin(dna_rows, dna_ranks):
    assert_same("genemask", dna_rows[:3], np.array([510, 510, 77]), dna_ranks, 6, corruption="mask")


@pytest.mark.parametrize("budget", [None, 0.15])
@pytest.mark.parametrize("name", DEFAULT_RATE)
def test_real_rows_are_masked_as_by_the_twin(name, budget, human_rows, published_ranks):
    rows = human_rows[::512]
    num_tokens = np.full(len(rows), 510)
    assert_same(name, rows, num_tokens, published_ranks, 6, budget=budget)
    assert_same(
        name, rows[:3, :100].copy(), num_tokens[:3] * 0 + 100, published_ranks, 6, budget=0.15, unit="nucleotide"
    )
