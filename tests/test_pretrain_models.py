"""Pretraining of other models, from other weights, and with other precisions, curricula and strategies."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, BertConfig, BertForPreTraining

from tests.train_support import FAST, _fresh_accelerate, arguments, lines, run, same_run, shards  # noqa: F401
from train import pretrain

pytestmark = pytest.mark.compiled


@pytest.mark.parametrize("precision", ["bf16"])
def test_other_precisions_train(shards, tmp_path, precision):  # noqa: F811
    assert run(shards, tmp_path / "run", max_steps=3, mixed_precision=precision) == 0
    assert all(loss < 6 for loss in lines(tmp_path / "run", "loss").values())


@pytest.mark.parametrize("masking", ["cm-gems-released", "cm-step"])
def test_other_curricula_train(shards, tmp_path, masking):  # noqa: F811
    assert run(shards, tmp_path / "run", masking=masking, max_steps=20) == 0
    assert set(lines(tmp_path / "run", "stage").values()) == {0, 1}


def test_starts_from_a_checkpoint_published_as_dnabert_is(shards, tmp_path, capsys):  # noqa: F811
    """A pytorch_model.bin with pooler, next-sentence head and old LayerNorm names, and unknown keys in the config."""
    config = BertConfig(vocab_size=69, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    model = BertForPreTraining(config)
    weights = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in model.state_dict().items()
    }
    folder = tmp_path / "dnabert"
    folder.mkdir()
    torch.save(weights, folder / "pytorch_model.bin")
    published = config.to_dict() | {
        "architectures": ["BertForMaskedLM"],
        "num_rnn_layer": 1,
        "rnn": "lstm",
        "split": 10,
    }
    (folder / "config.json").write_text(json.dumps(published))
    assert run(shards, tmp_path / "run", init_from=str(folder), max_steps=1, peak_lr=1e-12) == 0
    final = load_file(tmp_path / "run" / "final" / "model.safetensors")
    name = "bert.encoder.layer.0.output.LayerNorm.weight"
    assert torch.allclose(final[name], model.state_dict()[name])
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.allclose(final[name], model.state_dict()[name], atol=1e-6)


@pytest.mark.parametrize("model", ["modern-small", "roformer"])
def test_other_architectures_train_and_resume(shards, tmp_path, model):  # noqa: F811
    if model == "roformer":
        (tmp_path / "config.json").write_text(json.dumps({
            "model_type": "roformer", "embedding_size": 32, "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 64,
        }))  # fmt: skip
        model = str(tmp_path / "config.json")
    options = {"model": model, "max_steps": 6, "gradient_checkpointing": True}
    assert run(shards, tmp_path / "whole", **options) == 0
    assert run(shards, tmp_path / "run", stop_after=3, **options) == 130
    assert run(shards, tmp_path / "run", resume=True, **options) == 0
    same_run(tmp_path / "whole", tmp_path / "run")
    AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "final")


OWN_STRATEGY = """
from dataclasses import dataclass
from gemsdata.masking.registry import register
from gemsdata.masking.strategies import RandomToken

@register("third-token")
@dataclass(frozen=True, kw_only=True)
class ThirdToken(RandomToken):
    \"\"\"A strategy outside gemsdata.\"\"\"

    def centre_rate(self, *arguments):
        return 1 / 3
"""


def test_a_strategy_of_ones_own_trains_by_name(shards, tmp_path, monkeypatch, capsys):  # noqa: F811
    (tmp_path / "own_masking_of_a_test.py").write_text(OWN_STRATEGY)
    monkeypatch.syspath_prepend(tmp_path)
    options = {"imports": "own_masking_of_a_test", "masking": "third-token", "max_steps": 2}
    words = arguments(shards=str(shards), output_dir=str(tmp_path / "run"), **{**FAST, **options})
    assert pretrain.main([*(word.replace("--imports", "--import") for word in words), "--json", "--quiet"]) == 0
    assert (tmp_path / "run" / "final" / "model.safetensors").exists()
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert (summary["complete"], summary["last"]["step"]) == (True, 2)
    assert summary["last"]["valid_perplexity"] > 1
    assert printed.err == ""
