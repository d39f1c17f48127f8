"""Classifiers on pooled hidden states: what is pooled, and that a fine-tuned one can be loaded again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM

from gemsdata.masking.token_rows import Vocabulary
from tests.test_finetune import task, write
from tests.train_support import _fresh_accelerate, arguments  # noqa: F401
from train import finetune
from train.classifier import load_classifier
from train.models import build_model
from train.pooling import HEAD_FILE, POOLINGS, pooled

pytestmark = pytest.mark.once


def checkpoint(folder: Path, model: str) -> Path:
    torch.manual_seed(0)
    build_model(model, Vocabulary.of_kmers(3), max_positions=64).save_pretrained(folder)
    return folder


def tune(out: Path, **options) -> int:
    return finetune.main(arguments(output_dir=str(out), threads=1, **options))


def test_padding_does_not_count_in_the_mean():
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [50.0, 50.0]], [[1.0, 1.0], [2.0, 2.0], [6.0, 0.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pooled(hidden, mask, "cls").tolist() == [[1, 2], [1, 1]]
    assert pooled(hidden, mask, "mean").tolist() == [[2, 4], [3, 1]]
    assert pooled(hidden, mask, "cls+mean").tolist() == [[1, 2, 2, 4], [1, 1, 3, 1]]


@pytest.mark.parametrize("name", ["smoke", "modern-small"])
def test_the_states_are_those_of_the_pretrained_encoder(tmp_path, name):
    folder = checkpoint(tmp_path / "model", name)
    classifier = load_classifier(folder, ["0", "1", "2"], pooling="cls+mean", dropout=0.0)
    reference = AutoModelForMaskedLM.from_pretrained(folder).eval()
    row = torch.from_numpy(classifier.encoder.encode(["ACGTTGCATTAC"])[0])[None]
    mask = torch.ones_like(row)
    hidden = reference.base_model(row, attention_mask=mask)[0]
    model = classifier.model.eval()
    expected = model.head(torch.cat([hidden[:, 0], hidden.mean(1)], 1))
    assert torch.allclose(model(row, mask), expected, atol=1e-5)
    assert expected.shape == (1, 3)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_fine_tuned_model_is_loaded_with_its_head(tmp_path, pooling):
    folder = checkpoint(tmp_path / "model", "smoke")
    rows = write(tmp_path / "train.tsv", task(24, seed=1))
    options = {"model": str(folder), "train": str(rows), "test": str(rows), "max_steps": 3, "pooling": pooling}
    assert tune(tmp_path / "tuned", **options) == 0
    final = tmp_path / "tuned" / "final"
    assert tune(tmp_path / "again", model=str(final), test=str(rows)) == 0
    one, other = (json.loads((tmp_path / name / "metrics.json").read_text())["test"] for name in ("tuned", "again"))
    assert one == other
    assert load_classifier(final, ["a", "b", "c"]).model.config.gemsdata_pooling is None, "a new classifier"

    (final / HEAD_FILE).unlink()
    with pytest.raises(ValueError, match=f"has no {HEAD_FILE}, which a fine-tuned model with"):
        load_classifier(final, None)


def test_mistakes(tmp_path, capsys):
    folder = checkpoint(tmp_path / "model", "smoke")
    rows = str(write(tmp_path / "train.tsv", task(4, seed=1)))
    assert tune(tmp_path / "out", model=str(folder), train=rows, pooling="max") == 2
    assert "--pooling 'max' is unknown: use cls, mean, cls+mean" in capsys.readouterr().err
    assert tune(tmp_path / "out", model=str(folder), test=rows, pooling="cls") == 2
    assert "--pooling is for a new classifier, but no --train is given" in capsys.readouterr().err
