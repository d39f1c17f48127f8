"""The masked-LM loss beside BertForMaskedLM's own, and the sizes of the models."""

from __future__ import annotations

import os

import pytest
import torch

from eval.results.jobs import threads_of_each
from train.models import MaskedLM, build_model
from train.optimizer import learning_rate
from train.program import num_cores


def batch(num_rows: int = 5, length: int = 40, *, padded: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(5, 69, (num_rows, length), generator=generator)
    labels = torch.where(torch.rand(num_rows, length, generator=generator) < 0.2, input_ids, -100)
    attention_mask = torch.ones_like(input_ids)
    if padded:
        for row, tokens in enumerate((3, 40, 17, 1, 39)):
            attention_mask[row, tokens:] = 0
    labels[2] = -100  # a row with nothing to guess
    labels[attention_mask == 0] = -100
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


@pytest.mark.parametrize("padded", [False, True])
def test_loss_and_gradients_are_those_of_bert_for_masked_lm(padded):
    torch.manual_seed(0)
    bert = build_model("logo", k=3, max_positions=64)
    given = batch(padded=padded)
    masked = given["labels"] != -100
    plain = bert(**given)
    plain.loss.backward()
    gradients = {name: value.grad.clone() for name, value in bert.named_parameters()}
    bert.zero_grad()
    loss_sum, num_correct = MaskedLM(bert)(**given)
    (loss_sum / masked.sum()).backward()
    assert torch.allclose(loss_sum / masked.sum(), plain.loss, rtol=1e-5)
    assert num_correct == (plain.logits.argmax(-1) == given["labels"])[masked].sum()
    for name, value in bert.named_parameters():
        assert torch.allclose(value.grad, gradients[name], rtol=1e-3, atol=1e-6), name


def test_a_batch_with_nothing_to_guess_has_no_loss():
    given = batch(padded=True)
    given["labels"][:] = -100
    loss_sum, num_correct = MaskedLM(build_model("smoke", k=3, max_positions=64))(**given)
    loss_sum.backward()
    assert (loss_sum, num_correct) == (0, 0)


@pytest.mark.parametrize(("name", "millions"), [("logo", 4.93), ("dnabert", 89.2)])
def test_models_have_the_papers_sizes(name, millions):
    with torch.device("meta"):
        model = build_model(name)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2 if millions < 10 else 1) == millions


def test_the_learning_rate_rises_and_falls_linearly():
    rates = [learning_rate(step, peak=8.0, warmup_steps=4, num_steps=12) for step in range(13)]
    assert rates == [2, 4, 6, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_more_threads_than_the_system_can_tell_are_not_asked_for(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert num_cores() == 6
    assert threads_of_each(4) == 1
    assert threads_of_each(2) == 3
