"""What an evaluation reports: kinds of masked tokens, hidden bases, and the baselines beside them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from gemsdata.masking.token_rows import Vocabulary
from gemsdata.views.options import ViewOptions
from gemsdata.views.tokens import resolve_tokens
from tests.stream_support import make_set
from tests.train_support import _fresh_accelerate  # noqa: F401
from train.baselines import (
    baselines,
    choose_order,
    markov_posterior,
    row_bases,
    transition_probabilities,
)
from train.evaluate import KINDS, ValidationRows, evaluate, hidden_bases, kinds_of, validation_rows
from train.masked_lm import IGNORED, MaskedLM
from train.models import build_model
from train.rows import open_rows
from train.token_bases import TokenBases

K = 3
MASK, FIRST = 4, 5


def rows_of(sequence: str, masked: dict[int, str]) -> ValidationRows:
    """One row of 3-mers; ``masked`` says what is shown at a token: "[MASK]", "kept", or a random k-mer."""
    ids = [sum("ATCG".index(base) * 4 ** (K - 1 - i) for i, base in enumerate(sequence[t : t + K])) + FIRST
           for t in range(len(sequence) - K + 1)]  # fmt: skip
    shown, labels = list(ids), [-100] * len(ids)
    for t, what in masked.items():
        labels[t] = ids[t]
        if what != "kept":
            shown[t] = MASK if what == "[MASK]" else FIRST + "ATCG".index(what[0]) * 16
    tensors = [[2, *shown, 3], [-100, *labels, -100], [1] * (len(ids) + 2)]
    return ValidationRows(
        *(torch.tensor([values], dtype=torch.int32) for values in tensors), TokenBases.of(resolve_tokens(f"kmer:{K}"))
    )


def test_kinds_are_told_apart_by_what_is_shown():
    rows = rows_of("ACGTACGTAC", {1: "[MASK]", 2: "kept", 3: "C", 5: "[MASK]"})
    kinds = kinds_of(rows.input_ids, rows.labels, MASK)
    assert [KINDS[i] for i in kinds] == ["mask", "kept", "random", "mask"]


def test_a_base_is_hidden_when_no_token_shows_it():
    """Tokens 2, 3 and 4 cover base 4 only together; a kept token among them shows it; a random one does not."""
    for what, hidden in (("[MASK]", [4]), ("kept", []), ("C", [4])):
        rows = rows_of("ACGTACGTAC", {2: "[MASK]", 3: what, 4: "[MASK]"})
        bases, shown = row_bases(rows)
        assert "".join("ATCG.."[digit] for digit in bases[0, 1:11]) == "ACGTACGTAC"
        assert np.flatnonzero(~shown[0, 1:11]).tolist() == hidden
        batch = {"input_ids": rows.input_ids.long(), "labels": rows.labels.long()}
        given_p = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])
        found = hidden_bases(batch, given_p, rows.tokens)
        if what == "[MASK]":
            assert found.tolist() == pytest.approx([(0.3 + 0.5 + 0.7) / 3])
        elif what == "C":
            assert found.tolist() == pytest.approx([(0.3 + 0.7) / 2]), "only [MASK] tokens predict"
        else:
            assert not len(found)


@pytest.mark.parametrize(("what", "kept"), [("[MASK]", [4]), ("kept", []), ("C", [4])])
def test_the_loss_can_be_computed_at_fully_hidden_tokens_only(what, kept):
    """Masked tokens 2 to 6 hide bases 4 to 6, which are token 4; a kept token 3 shows two of them."""
    rows = rows_of("ACGTACGTACGTA", {2: "[MASK]", 3: what, 4: "[MASK]", 5: "[MASK]", 6: "[MASK]"})
    twice = [torch.cat([part, part]).long() for part in (rows.input_ids, rows.labels)]
    found = rows.tokens.hidden_labels(*twice, IGNORED)
    for row in found[:, 1:-1]:
        assert torch.nonzero(row != IGNORED).flatten().tolist() == kept
    assert (found[found != IGNORED] == twice[1][found != IGNORED]).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_the_markov_posterior_is_that_of_all_sequences_enumerated(order, seed):
    rng = np.random.default_rng(seed)
    length = 5
    transitions = rng.dirichlet(np.ones(4), 4**order)
    bases, shown = rng.integers(0, 4, (2, length)), rng.random((2, length)) < 0.5
    found = markov_posterior(bases, shown, transitions)
    for row in range(2):
        totals = np.zeros((length, 4))
        for start in itertools.product(range(4), repeat=order):
            for sequence in itertools.product(range(4), repeat=length):
                if any(shown[row, i] and sequence[i] != bases[row, i] for i in range(length)):
                    continue
                whole, p = (*start, *sequence), 1.0
                for i in range(length):
                    context = 0
                    for base in whole[i : i + order]:
                        context = context * 4 + base
                    p *= transitions[context, sequence[i]]
                for i, base in enumerate(sequence):
                    totals[i, base] += p
        assert np.allclose(found[row], totals / totals.sum(1, keepdims=True), atol=1e-4)


def test_the_order_of_a_chain_is_found_on_rows_left_out():
    rng = np.random.default_rng(0)
    transitions = rng.dirichlet(np.full(4, 0.3), 16)
    rows = rng.integers(0, 4, (600, 60))
    for row in rows:
        for i in range(2, 60):
            row[i] = rng.choice(4, p=transitions[row[i - 2] * 4 + row[i - 1]])
    assert choose_order(rows) == 2
    assert np.abs(transition_probabilities(rows, 2) - transitions).max() < 0.15
    assert choose_order(rng.integers(0, 4, (600, 60))) == 0


@pytest.mark.compiled
def test_an_untrained_model_and_the_baselines_need_two_bits_a_base(tmp_path):
    """On a random genome nothing can be predicted; a model that shows all its probability on the truth needs none."""
    training = open_rows([str(make_set(tmp_path / "set"))], ViewOptions())
    rows = validation_rows(training, "genemask", max_rows=16)
    found = baselines(training, rows)
    assert 60 < found.unigram_perplexity < 70
    assert found.unigram_bits_per_base == pytest.approx(2, abs=0.05)
    assert found.markov_bits_per_base == pytest.approx(2, abs=0.2)
    torch.manual_seed(0)
    model = MaskedLM(build_model("smoke", Vocabulary.of_kmers(3), max_positions=32))
    report = evaluate(model, rows, Accelerator(cpu=True), micro_batch_rows=5)
    assert report.bits_per_base == pytest.approx(2, abs=0.2)
    assert report.all.num_tokens == sum(score.num_tokens for score in report.by_kind.values())
    mean = sum(score.loss * score.num_tokens for score in report.by_kind.values() if score.num_tokens)
    assert mean / report.all.num_tokens == pytest.approx(report.all.loss)
    assert report.all.perplexity == pytest.approx(math.exp(report.all.loss))
    bases, shown = row_bases(rows)
    assert report.num_hidden_bases <= (~shown & (bases < 4)).sum()
    assert report.num_hidden_bases > 0
