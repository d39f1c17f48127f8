"""The masked-LM loss against that of the unmodified model, and the sizes of the models."""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch.nn import functional
from transformers import BertForSequenceClassification

from eval.results.jobs import threads_of_each
from gemsdata.masking.token_rows import Vocabulary
from train.classifier import ClassLogits
from train.masked_lm import MaskedLM
from train.models import build_model, num_positions
from train.optimizer import learning_rate
from train.program import num_cores

pytestmark = pytest.mark.once


def batch(num_rows: int = 5, length: int = 40, *, padded: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(5, 69, (num_rows, length), generator=generator)
    labels = torch.where(torch.rand(num_rows, length, generator=generator) < 0.2, input_ids, -100)
    attention_mask = torch.ones_like(input_ids)
    if padded:
        for row, tokens in enumerate((3, 40, 17, 1, 39)):
            attention_mask[row, tokens:] = 0
    labels[2] = -100  # a row with nothing to predict
    labels[attention_mask == 0] = -100
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def reference(model: torch.nn.Module, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Loss, logits and gradients of an unmodified model."""
    found = model(**given)
    found.loss.backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return found.loss, found.logits, gradients


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("options", [{}, {"checkpointed": True}], ids=["", "checkpointed"])
@pytest.mark.parametrize("name", ["logo", "modern-small", "three layers"])
def test_loss_and_gradients_are_those_of_the_unmodified_model(name, padded, options, tmp_path):
    """Rows are longer than the window of ModernBERT's local layers, and one of three layers comes last."""
    if name == "three layers":
        config = build_model("modern-small", Vocabulary.of_kmers(6)).config
        config.num_hidden_layers, config.local_attention = 4, 16
        config.layer_types = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
        config.save_pretrained(tmp_path)
        name = str(tmp_path)
    torch.manual_seed(0)
    model = build_model(name, Vocabulary.of_kmers(3), max_positions=200)
    given = batch(length=200, padded=padded)
    masked = given["labels"] != -100
    loss, logits, gradients = reference(model, given)
    wrapped = MaskedLM(model, **options)
    found = wrapped(**given, with_bases=True)
    found.losses.mean().backward()
    assert torch.allclose(found.losses.mean(), loss, rtol=1e-5)
    assert torch.equal(found.correct, (logits.argmax(-1) == given["labels"])[masked])
    for key, value in model.named_parameters():
        assert torch.allclose(value.grad, gradients[key], rtol=1e-3, atol=2e-6), key
    probabilities = logits[masked][:, 5:].softmax(-1)
    kmers = torch.cartesian_prod(*[torch.arange(4)] * 3)
    original = kmers[given["labels"][masked] - 5]
    for j in range(3):
        naive = (probabilities * (kmers[:, j] == original[:, j, None])).sum(1)
        assert torch.allclose(found.base_probabilities[:, j], naive, atol=1e-6)


@pytest.mark.parametrize("name", ["smoke", "modern-small"])
def test_attention_step_by_step_is_that_of_the_fused_kernel(name, monkeypatch):
    """Loss and gradients in fp32, which a CPU otherwise computes with the fused kernel."""
    torch.manual_seed(0)
    model = MaskedLM(build_model(name, Vocabulary.of_kmers(3), max_positions=40).eval())
    found = []
    for chosen in (False, True):
        monkeypatch.setattr("train.masked_lm._is_faster_step_by_step", lambda query, key, chosen=chosen: chosen)
        loss = model(**batch(padded=True)).losses.mean()
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for fused, own in zip(*found, strict=True):
        assert torch.allclose(fused, own, rtol=1e-4, atol=1e-6)


def test_attention_in_bf16_on_a_cpu_is_fused_only_if_its_scores_need_much_memory(monkeypatch):
    fused = []
    attention = functional.scaled_dot_product_attention
    monkeypatch.setattr(
        functional, "scaled_dot_product_attention", lambda *a, **k: fused.append(a[0].dtype) or attention(*a, **k)
    )
    model = MaskedLM(build_model("smoke", Vocabulary.of_kmers(3), max_positions=40).eval())
    losses = []
    for limit in (5 * 2 * 40 * 40, 5 * 2 * 40 * 40 - 1):  # the scores of the first layer; the last one has fewer
        monkeypatch.setattr("train.masked_lm._MAX_SCORES", limit)
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(model(**batch(padded=True)).losses.mean())
        fused.append(limit)
    assert fused == [16_000, torch.bfloat16, 15_999]
    assert torch.allclose(*losses, rtol=5e-3)


CONFIGS = {
    "roformer": {"embedding_size": 32},
    "esm": {"position_embedding_type": "rotary", "token_dropout": True},
    "esm absolute": {"model_type": "esm", "position_embedding_type": "absolute"},
    "roberta": {"type_vocab_size": 1},
    "deberta-v2": {},
    "electra": {"embedding_size": 32},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_any_architecture_trains_through_its_own_forward(kind, tmp_path):
    """From a config.json made for other tokens; vocabulary, special tokens and positions are those of the rows."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    content = {"model_type": kind, "vocab_size": 1000, "pad_token_id": 1, **sizes, **CONFIGS[kind]}
    (tmp_path / "config.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    model = build_model(str(tmp_path / "config.json"), Vocabulary.of_kmers(3), max_positions=40).eval()
    assert (model.config.vocab_size, model.config.pad_token_id) == (69, 0)
    assert num_positions(model) in (40, None)
    given = batch(padded=True)
    loss, _, gradients = reference(model, given)
    found = MaskedLM(model)(**given)
    found.losses.mean().backward()
    assert torch.allclose(found.losses.mean(), loss, rtol=1e-5)
    own = dict(model.named_parameters())
    assert all(torch.allclose(own[name].grad, gradient, atol=1e-5) for name, gradient in gradients.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not the configuration"),
        ('{"model_type": "gpt2"}', "cannot be a masked LM"),
        ("{}", "is not the configuration"),
    ],
)
def test_a_configuration_of_no_masked_lm_is_refused(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        build_model(str(tmp_path), Vocabulary.of_kmers(3))


@pytest.mark.parametrize("name", ["smoke", "modern-small"])
def test_a_batch_with_nothing_to_predict_has_no_loss(name):
    given = batch(padded=True)
    given["labels"][:] = -100
    found = MaskedLM(build_model(name, Vocabulary.of_kmers(3), max_positions=64))(**given)
    found.losses.sum().backward()
    assert len(found.losses) == len(found.correct) == 0


@pytest.mark.parametrize(
    ("name", "millions"), [("logo", 4.93), ("dnabert", 89.2), ("modern-small", 0.94), ("modern-base", 114.1)]
)
def test_models_have_the_papers_sizes(name, millions):
    with torch.device("meta"):
        model = build_model(name, Vocabulary.of_kmers(6))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2 if millions < 10 else 1) == millions


@pytest.mark.parametrize("padded", [False, True])
def test_logits_of_a_classifier_are_those_of_the_unmodified_model(padded):
    torch.manual_seed(0)
    encoder = build_model("logo", Vocabulary.of_kmers(3), max_positions=64)
    encoder.config.num_labels = 3
    model = BertForSequenceClassification(encoder.config)
    given = {name: values for name, values in batch(padded=padded).items() if name != "labels"}
    target = torch.tensor([0, 2, 1, 1, 0])
    expected = model(**given).logits
    functional.cross_entropy(expected, target).backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    found = ClassLogits(model)(**given)
    functional.cross_entropy(found, target).backward()
    assert torch.allclose(found, expected, atol=1e-5)
    for name, value in model.named_parameters():
        assert (value.grad is None) == (name not in gradients), name
        if value.grad is not None:
            assert torch.allclose(value.grad, gradients[name], rtol=1e-3, atol=1e-6), name


def test_the_learning_rate_rises_and_falls_linearly():
    rates = [learning_rate(step, peak=8.0, warmup_steps=4, num_steps=12) for step in range(13)]
    assert rates == [2, 4, 6, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_more_threads_than_the_system_can_tell_are_not_asked_for(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert num_cores() == 6
    assert threads_of_each(4) == 1
    assert threads_of_each(2) == 3
