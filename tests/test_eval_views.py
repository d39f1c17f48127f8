"""Few-shot evaluation and GUE of models that were pretrained on views: of single bases, and of a BPE tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from eval.fewshot import __main__ as fewshot
from eval.gue import __main__ as gue
from eval.gue.tasks import task
from eval.results import runs
from tests.genomes import random_dna
from tests.test_fewshot import published
from tests.test_finetune import task as rows_of_a_task
from tests.test_finetune import write
from tests.test_gue import in_this_process
from tests.test_views_tokens import bpe_folder
from tests.train_support import _fresh_accelerate, arguments, run  # noqa: F401
from tests.view_support import packed_set
from train.encoder import load_encoder

pytestmark = [pytest.mark.once, pytest.mark.compiled]

NUM_IDS = {"base": 9, "bpe": 200}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """The folder of a model of each kind of tokens, as `pretrain` writes it after two updates."""
    folder = tmp_path_factory.mktemp("eval")
    packed = packed_set(folder, {"a": random_dna(4000, 1)}, valid_fraction=0.1)
    bpe = bpe_folder(folder / "tokenizer")
    for name, tokens in (("base", "base"), ("bpe", str(bpe))):
        options = {"tokens": tokens, "row_bases": 48, "max_steps": 2, "eval_every": 2, "masking": "genemask"}
        assert run(packed, folder / name, **options) == 0
    return {name: folder / name / "final" for name in NUM_IDS}


@pytest.mark.parametrize("name", NUM_IDS)
def test_the_tokenizer_of_a_model_gives_its_own_ids(models, name):
    """Of single bases exactly one token each, none unknown, whatever the case."""
    config = json.loads((models[name] / "config.json").read_text())
    assert config["vocab_size"] == NUM_IDS[name]
    encoder = load_encoder(models[name], num_ids=NUM_IDS[name], max_positions=config["max_position_embeddings"])
    sequences = [random_dna(30, 1), random_dna(30, 2)]
    for sequence, ids in zip(sequences, encoder.encode(sequences), strict=True):
        texts = encoder.tokenizer.convert_ids_to_tokens(ids.tolist())
        inner = [text for text in texts if not text.startswith("[")]
        assert "".join(inner) == sequence
        assert (len(inner) == 30) == (name == "base")


def models_of(models: dict[str, Path]) -> tuple[str, ...]:
    return tuple(f"{name}={folder}" for name, folder in models.items())


def test_few_shots(models, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "run_jobs", in_this_process)
    published(tmp_path / "data" / "one")
    words = arguments(data=tmp_path / "data", models=models_of(models), output_dir=tmp_path / "out", shots=4, seeds=1)
    assert fewshot.main(words) == 0
    found = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert sorted(found["model"]) == ["base", "bpe"]
    assert found["accuracy"].between(0, 1).all()


def test_gue(models, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "run_jobs", in_this_process)
    folder = tmp_path / "gue" / task("tf_0").folder
    folder.mkdir(parents=True)
    for number, split in enumerate(("train", "dev", "test")):
        write(folder / f"{split}.csv", rows_of_a_task(16, seed=number), comma=True)
    out = tmp_path / "out"
    words = arguments(data=tmp_path / "gue", models=models_of(models), output_dir=out, seeds=1, max_steps=2)
    assert gue.main(words) == 0
    found = pd.read_parquet(out / "gue.parquet")
    assert sorted(found["model"]) == ["base", "bpe"]
    assert found["mcc"].between(-1, 1).all()
