"""Checkpoints of others compete with their own tokenizers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, RobertaConfig, RobertaForMaskedLM, dynamic_module_utils

from gemsdata.views.tokenizer import KmerTokenizer
from tests.checkpoints import KINDS, TINY, build, kmer_text, ours
from tests.genomes import random_dna
from tests.ports import free_port
from tests.test_finetune import task, tune, write
from tests.train_support import REPOSITORY, _fresh_accelerate, arguments  # noqa: F401
from train.classifier import load_classifier
from train.labelled import batches, tokenise

pytestmark = pytest.mark.once

CLASSES = ["0", "1"]
SEQUENCES = [random_dna(length, seed) for seed, length in enumerate((5, 6, 20, 37, 63))] + ["ACGTNACGTACGT", "AC"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Iterator[dict[str, Path]]:
    base = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:  # where transformers copies the code of a checkpoint to
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(base / "modules"))
        yield {kind: build(kind, base / kind.replace(" ", "-")) for kind in KINDS}


def load(folder: Path, **options):
    return load_classifier(folder, CLASSES, trust_remote_code=True, **options)


def kmers(sequence: str, k: int) -> str:
    return " ".join(sequence[i : i + k] for i in range(len(sequence) - k + 1))


@pytest.mark.parametrize(("kind", "k"), [("bpe", None), ("esm", None), ("kmer text", 3), ("ours", 3)])
def test_token_ids_are_those_of_the_checkpoints_own_tokenizer(folders, kind, k):
    encoder = load(folders[kind]).encoder
    tokenizer = AutoTokenizer.from_pretrained(folders[kind])
    texts = [kmers(sequence, 3) if kind == "kmer text" else sequence for sequence in SEQUENCES]
    expected = [tokenizer(text, truncation=True, max_length=encoder.max_tokens)["input_ids"] for text in texts]
    assert [row.tolist() for row in encoder.encode(SEQUENCES)] == expected
    assert (encoder.k, encoder.pad_id) == (k, tokenizer.pad_token_id)


def test_kmer_text_is_what_our_tokenizer_makes_of_the_bases(folders):
    encoder = load(folders["kmer text"]).encoder
    ours, theirs = KmerTokenizer(3), encoder.tokenizer
    for sequence, row in zip(SEQUENCES[:4], encoder.encode(SEQUENCES[:4]), strict=True):
        assert theirs.convert_ids_to_tokens(row) == ours.convert_ids_to_tokens(ours(sequence)["input_ids"])


def test_dnaberts_own_vocabulary_takes_the_fast_path(tmp_path):
    encoder = load(kmer_text(tmp_path / "dnabert", letters="ATCG")).encoder
    assert encoder.as_dnabert
    assert [row.tolist() for row in encoder.encode(SEQUENCES)] == [
        tokenise(sequence, k=3, max_tokens=40).tolist() for sequence in SEQUENCES
    ]
    assert not load(kmer_text(tmp_path / "other")).encoder.as_dnabert


def test_without_tokenizer_a_vocabulary_of_dnaberts_size_is_dnaberts(tmp_path):
    folder = ours(tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    encoder = load(folder).encoder
    assert (encoder.k, encoder.max_tokens, encoder.as_dnabert) == (3, 64, True)


@pytest.mark.parametrize(("kind", "longest"), [("bpe", 48), ("esm", 30), ("kmer text", 40), ("ours", 64)])
def test_rows_are_cut_to_what_tokenizer_and_positions_take(folders, kind, longest):
    model = load(folders[kind])
    assert model.encoder.max_tokens == longest
    sequences = [random_dna(400, 1), random_dna(12, 2)]
    rows = model.encoder.encode(sequences)
    assert len(rows[0]) == longest
    assert model.encoder.num_cut(sequences, rows) == 1
    _, batch = next(batches(rows, np.arange(2), 2, pad_id=model.encoder.pad_id))
    assert torch.isfinite(model.model(**batch).logits).all()


def test_a_row_that_just_fits_is_not_cut(folders):
    encoder = load(folders["esm"]).encoder
    sequences = [random_dna(6 * 29, 1), random_dna(6 * 29 + 1, 1)]
    assert encoder.num_cut(sequences, encoder.encode(sequences)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_change_the_answer(folders, kind):
    model = load(folders[kind])
    model.model.eval()
    rows = model.encoder.encode([random_dna(20, 1), random_dna(60, 2)])
    logits = []
    for order in ([0, 1], [0]):
        _, batch = next(batches(rows, np.array(order), 2, pad_id=model.encoder.pad_id))
        logits.append(model.model(**batch).logits[0].detach())
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_a_task(folders, kind, tmp_path, capsys):
    rows = [("AACC" * 10, "no") if i % 2 else ("TTAG" * 10, "yes") for i in range(48)]
    train, test = write(tmp_path / "train.tsv", rows), write(tmp_path / "test.tsv", rows[:8])
    options = {"epochs": 2, "batch_rows": 4, "peak_lr": 2e-3, "train": train, "test": test}
    code = {"trust_remote_code": True} if kind == "own code" else {}
    status, _, errors = tune(capsys, model=folders[kind], output_dir=tmp_path / "out", **options, **code)
    assert status == 0, errors
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["test"]["accuracy"] == 1.0
    with open(tmp_path / "out" / "test.predictions.tsv") as stream:
        predicted = list(csv.DictReader(stream, delimiter="\t"))
    assert found["rows"]["test"] == {"used": 8, "dropped": 0, "cut": 0}
    assert [row["label"] for row in predicted] == [row["prediction"] for row in predicted]
    assert list(predicted[0]) == ["label", "prediction", "p_no", "p_yes"]
    status, _, errors = tune(capsys, model=tmp_path / "out" / "final", output_dir=tmp_path / "again", test=test, **code)
    assert status == 0, errors
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again["test"] == pytest.approx(found["test"])
    assert again["k"] == (3 if kind in ("kmer text", "ours", "own code") else None)


@pytest.mark.slow
@pytest.mark.compiled
def test_two_processes_train_a_model_with_weights_that_a_classifier_does_not_use(folders, tmp_path):
    """ESM's head for contacts gets no gradient, which processes that wait for all gradients must know."""
    rows = write(tmp_path / "rows.tsv", task(9, 1))
    out = tmp_path / "out"
    options = {"model": folders["esm"], "train": rows, "test": rows, "epochs": 2, "batch_rows": 4, "threads": 1}
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--main_process_port", str(free_port()), "train/finetune.py"]
    done = subprocess.run(
        [sys.executable, *launch, *arguments(output_dir=out, **options)],
        env={**os.environ, "ACCELERATE_USE_CPU": "1", "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads((out / "metrics.json").read_text())["curve"]) == 2


def test_code_of_a_checkpoint_runs_on_request_only(folders, tmp_path, capsys):
    train = write(tmp_path / "train.tsv", task(4, 1))
    status, _, errors = tune(capsys, model=folders["own code"], output_dir=tmp_path / "out", train=train)
    assert (status, errors.count("\n")) == (2, 1)
    assert "comes with its own Python code (config.json has an auto_map)" in errors
    assert "--trust-remote-code" in errors
    assert not (tmp_path / "out").exists()
    for random_weights in (False, True):
        model = load(folders["own code"], random_weights=random_weights).model
        assert type(model).__name__ == "OwnClassifier"
        assert (model.slopes.tolist(), model.frequencies.tolist()) == ([0.0, 3.0], [7.0, 7.0])


def test_no_model_and_scores_only(folders, tmp_path, capsys):
    train = write(tmp_path / "train.tsv", task(8, 1))
    for option, files in (("no_model", {"metrics.json", "test.predictions.tsv"}), ("scores_only", {"metrics.json"})):
        out = tmp_path / option
        options = {"train": train, "test": train, "max_steps": 1, option: True}
        assert tune(capsys, model=folders["ours"], output_dir=out, **options)[0] == 0
        assert {path.name for path in out.iterdir()} == files
    status, _, errors = tune(
        capsys, model=folders["ours"], output_dir=tmp_path / "out", train=train, predict=train, scores_only=True
    )
    assert (status, "writes no predictions" in errors) == (2, True)


def test_dropout_is_set_where_a_model_has_it_and_pretrained_weights_are_taken(folders):
    for kind in KINDS:
        model = load(folders[kind], dropout=0.3)
        assert {module.p for module in model.model.modules() if isinstance(module, torch.nn.Dropout)} == {0.3}
        embedding = model.model.get_input_embeddings().weight
        assert torch.equal(load(folders[kind]).model.get_input_embeddings().weight, embedding)
        assert not torch.equal(load(folders[kind], random_weights=True).model.get_input_embeddings().weight, embedding)


def test_positions_of_roberta_begin_behind_the_padding(tmp_path):
    folder = kmer_text(tmp_path / "roberta", model_max_length=10**6)
    RobertaForMaskedLM(
        RobertaConfig(vocab_size=69, max_position_embeddings=34, pad_token_id=0, **TINY)
    ).save_pretrained(folder)
    model = load(folder)
    rows = model.encoder.encode([random_dna(100, 1)])
    assert model.encoder.max_tokens == len(rows[0]) == 33
    model.model(input_ids=torch.from_numpy(rows[0])[None])


def test_the_form_of_the_text_can_be_given(folders):
    assert load(folders["esm"], text_form="kmers").encoder.k == 6
    with pytest.raises(ValueError, match="does not know plain bases"):
        load(folders["kmer text"], text_form="bases")
    with pytest.raises(ValueError, match="--text-form 'soup' is unknown: use bases or kmers"):
        load(folders["ours"], text_form="soup")


def test_folders_that_do_not_fit_end_with_one_line(folders, tmp_path):
    with pytest.raises(ValueError, match=r'knows neither plain bases nor overlapping k-mers.*"do_lower_case": false'):
        load(kmer_text(tmp_path / "lower", do_lower_case=True))

    folder = ours(tmp_path / "more")
    KmerTokenizer(4).save_pretrained(folder)
    with pytest.raises(ValueError, match="the tokenizer has 261 ids, the model 69; they do not belong"):
        load(folder)

    folder = ours(tmp_path / "weights")
    RobertaForMaskedLM(RobertaConfig(vocab_size=69, **TINY)).save_pretrained(tmp_path / "roberta")
    (tmp_path / "roberta" / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks \d+ of the \d+ tensors of BertForSequenceClassification"):
        load(folder)

    folder = build("bpe", tmp_path / "no-tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match="has no tokenizer, and 256 token ids, which is 4\\*\\*k \\+ 5 for no k"):
        load(folder)


def test_weights_of_other_shapes_are_refused_but_a_head_for_other_classes_is_not(tmp_path):
    folder = ours(tmp_path / "ours")
    load_classifier(folder, CLASSES).model.save_pretrained(folder)
    load_classifier(folder, ["a", "b", "c"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 128}))
    with pytest.raises(ValueError, match=r"position_embeddings.weight has another shape"):
        load_classifier(folder, CLASSES)
