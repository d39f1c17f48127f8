"""Intervals and paired tests of evaluations, against scipy, scikit-learn and hand-made cases."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score

from eval.results.statistics import interval, least_p, paired, summary, wilcoxon_p
from train.metrics import scores

pytestmark = pytest.mark.once

VALUES = st.lists(st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3)), min_size=2, max_size=30)


@given(VALUES)
def test_the_interval_is_students(values):
    found = interval(values)
    assert found.num == len(values)
    assert found.mean == pytest.approx(np.mean(values))
    if np.ptp(values) > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert (found.low, found.high) == pytest.approx((low, high))
    else:
        assert found.high - found.low < 1e-6


def test_the_interval_of_a_textbook():
    # 9.8 .. 10.2: mean 10, s = 0.1581, t(4) = 2.776, so 10 +- 0.1963
    assert interval([9.8, 9.9, 10.0, 10.1, 10.2])[:3] == pytest.approx((10.0, 9.8037, 10.1963), abs=1e-4)


def test_one_value_has_no_interval_and_none_is_refused():
    assert np.isnan(interval([0.5])[1:3]).all()
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_the_interval_covers_the_truth_95_times_of_100():
    rng = np.random.default_rng(0)
    found = [interval(rng.normal(3.0, 2.0, 5)) for _ in range(4000)]
    assert np.mean([low <= 3.0 <= high for _, low, high, _ in found]) == pytest.approx(0.95, abs=0.011)


@given(st.lists(st.integers(-200, 200).filter(bool), min_size=1, max_size=9, unique_by=abs))
def test_wilcoxon_is_the_share_of_all_signs_that_are_as_extreme(differences):
    """A naive twin: every assignment of signs to the ranks, counted."""
    ranks = stats.rankdata(np.abs(differences))
    total = ranks.sum()
    observed = abs(ranks[np.array(differences) > 0].sum() - total / 2)
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(ranks))]
    assert wilcoxon_p(differences) == pytest.approx(np.mean(np.abs(np.array(sums) - total / 2) >= observed - 1e-9))


def test_equal_results_have_p_1_and_few_pairs_a_least_p():
    assert wilcoxon_p([0.0, 0.0]) == 1.0
    for num in range(1, 8):
        assert wilcoxon_p(np.arange(1, num + 1)) == pytest.approx(least_p(num))


def runs(scores_of: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        {"dataset": f"set{i % 2}", "shots": 10, "draw": i // 2, "seed": 1, "model": name, "accuracy": value}
        for name, values in scores_of.items()
        for i, value in enumerate(values)
    )


PAIR_BY = ["dataset", "shots", "draw", "seed"]


@settings(max_examples=2)
@given(st.integers(0, 2**32 - 1))
def test_comparisons_do_not_depend_on_the_order_of_cells(seed):
    rng = np.random.default_rng(seed)
    table = runs({name: rng.random(8).tolist() for name in "abc"})
    shuffled = table.sample(frac=1, random_state=seed)
    pairs = [("a", "b"), ("a", "c")]
    one = paired(table, of="model", metric="accuracy", pair_by=PAIR_BY, pairs=pairs)
    two = paired(shuffled, of="model", metric="accuracy", pair_by=PAIR_BY, pairs=pairs)
    pd.testing.assert_frame_equal(one, two)
    a, b = (table[table["model"] == name]["accuracy"].to_numpy() for name in "ab")
    assert one["difference"][0] == pytest.approx((a - b).mean())
    assert one["p"][0] == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert (one["wins"] + one["ties"] + one["losses"] == 8).all()


def test_holm_is_computed_over_the_lines_of_all_and_over_the_others():
    rng = np.random.default_rng(1)
    table = runs({"a": (rng.random(12) + 0.3).tolist(), "b": rng.random(12).tolist(), "c": rng.random(12).tolist()})
    found = paired(table, of="model", metric="accuracy", pair_by=PAIR_BY, within="dataset")
    assert found["where"].tolist() == ["all"] * 3 + ["set0"] * 3 + ["set1"] * 3
    for family in (found[:3], found[3:]):
        order = np.argsort(family["p"], kind="stable")
        steps = family["p"].to_numpy()[order] * np.arange(len(family), 0, -1)
        assert family["p_holm"].to_numpy()[order] == pytest.approx(np.minimum(np.maximum.accumulate(steps), 1.0))


def test_the_interval_of_a_comparison_is_that_of_independent_units():
    rng = np.random.default_rng(2)
    table = runs({"a": rng.random(12).tolist(), "b": rng.random(12).tolist()})
    found = paired(table, of="model", metric="accuracy", pair_by=PAIR_BY, unit="draw").iloc[0]
    of_draws = table.groupby(["draw", "model"])["accuracy"].mean().unstack()
    assert found[["difference", "low", "high"]].tolist() == pytest.approx(interval(of_draws["a"] - of_draws["b"])[:3])
    assert found["num_pairs"] == 12


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000)), min_size=3, max_size=12))
def test_equal_differences_of_shares_tie_as_those_of_counts_do(counts):
    """k / n - m / n differs in its last bits from other shares that are as far apart."""
    shares = [k / 2000 - m / 2000 for k, m in counts]
    assert wilcoxon_p(shares) == pytest.approx(wilcoxon_p([k - m for k, m in counts]))


def test_only_cells_of_both_are_compared():
    table = runs({"a": [0.5, 0.6, 0.7], "b": [0.4, 0.5, 0.6]})
    found = paired(table.drop(index=4), of="model", metric="accuracy", pair_by=PAIR_BY)
    assert (found["num_pairs"][0], found["wins"][0]) == (2, 2)
    alone = paired(table[:3], of="model", metric="accuracy", pair_by=PAIR_BY)
    assert len(alone) == 0


def test_a_summary_has_a_row_for_each_combination():
    table = runs({"a": [0.5, 0.6, 0.7, 0.8], "b": [0.4, 0.5, 0.6, 0.7]})
    found = summary(table, by=["dataset", "model"], metric="accuracy")
    assert found["num"].tolist() == [2] * 4
    assert found["mean"].tolist() == pytest.approx([0.6, 0.7, 0.5, 0.6])


@given(st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_scores_are_those_of_scikit_learn(num_classes, seed):
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, 40)])
    probabilities = rng.dirichlet(np.ones(num_classes), len(truth))
    found = scores(probabilities, truth)
    guessed = probabilities.argmax(1)
    assert found["accuracy"] == accuracy_score(truth, guessed)
    assert found["mcc"] == pytest.approx(matthews_corrcoef(truth, guessed))
    assert found["f1"] == pytest.approx(f1_score(truth, guessed, average="macro"))
    values = probabilities[:, 1] if num_classes == 2 else probabilities
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, values, multi_class="ovr"))


def test_auroc_of_three_classes_breaks_ties_as_scikit_learn_does():
    """Rows that sum to 1 only within float tolerance: dividing by the sum would order these ties."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    probabilities = rng.choice([0.2, 0.3, 0.5], (300, 3)) + rng.choice([0.0, 1e-8], (300, 1))
    probabilities[:, 2] = 1 - probabilities[:, 0] - probabilities[:, 1] + rng.choice([0.0, 3e-8], 300)
    found = scores(probabilities, truth)["auroc"]
    assert found == pytest.approx(roc_auc_score(truth, probabilities, multi_class="ovr"), abs=1e-12)
    normalised = probabilities / probabilities.sum(axis=1, keepdims=True)
    assert abs(found - roc_auc_score(truth, normalised, multi_class="ovr")) > 1e-3, "the ties matter here"


@given(st.lists(st.integers(0, 2), min_size=6, max_size=60).filter(lambda labels: len(set(labels)) == 3))
def test_copied_labels_score_1_and_a_constant_guess_has_mcc_0(labels):
    truth = np.array(labels)
    copied = scores(np.eye(3)[truth], truth)
    assert (copied["accuracy"], copied["f1"], copied["auroc"]) == (1.0, 1.0, 1.0)
    assert copied["mcc"] == pytest.approx(1.0)
    constant = scores(np.tile([0.2, 0.5, 0.3], (len(truth), 1)), truth)
    assert constant["mcc"] == 0.0
    assert constant["accuracy"] == np.mean(truth == 1)
    assert constant["auroc"] == pytest.approx(0.5)
