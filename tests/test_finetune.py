"""Fine-tuning: files as people have them, recipes, choosing by dev loss, predicting, mistakes."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from gemsdata.masking.token_rows import Vocabulary
from gemsdata.views.tokenizer import KmerTokenizer
from tests.genomes import random_dna
from tests.train_support import _fresh_accelerate, arguments, reset_accelerate  # noqa: F401
from train import finetune
from train.labelled import class_names, read_labelled, tokenise
from train.metrics import scores
from train.models import build_model
from train.recipes import finetune_recipe

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "final"
    torch.manual_seed(0)  # not the state that other tests have left
    build_model("smoke", Vocabulary.of_kmers(3), max_positions=64).save_pretrained(folder)
    return folder


def task(num_rows: int, seed: int, classes: tuple[str, ...] = ("0", "1")) -> list[tuple[str, str]]:
    """Sequences of 40 bases; each class but the first has a motif of its own."""
    rng = random.Random(seed)
    motifs = ("", "GGGCGGGG", "TATATATA")
    rows = []
    for i in range(num_rows):
        sequence, motif = random_dna(40, seed * 1000 + i), motifs[i % len(classes)]
        at = rng.randrange(0, 32)
        rows.append((sequence[:at] + motif + sequence[at + len(motif) :], classes[i % len(classes)]))
    return rows


def write(path: Path, rows: list[tuple[str, str]], *, quoted: bool = False, kmers: bool = False, comma: bool = False):
    delimiter, quoting = "," if comma else "\t", csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, quoting=quoting)
        writer.writerow(["sequence", "label"])
        for sequence, label in rows:
            text = " ".join(sequence[i : i + 6] for i in range(len(sequence) - 5)) if kmers else sequence
            writer.writerow([text, label])
    return path


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("kmers", [False, True])
@pytest.mark.parametrize("comma", [False, True])
def test_all_ways_to_write_a_file_read_the_same(tmp_path, quoted, kmers, comma):
    rows = task(7, seed=1)
    found = read_labelled(write(tmp_path / "rows", rows, quoted=quoted, kmers=kmers, comma=comma))
    assert list(zip(found.sequences, found.labels, strict=True)) == rows


def test_published_files_read_whole_with_their_first_and_last_kmer(data_dir):
    """Quoted training files made naive readers turn the first and last 6-mer of each row into [UNK]."""
    found = read_labelled(data_dir / "fewshot" / "Prom-core" / "10" / "train.tsv")
    assert len(found) == 20
    assert found.sequences[0].startswith("AAACGGAAAAG")
    assert {len(sequence) for sequence in found.sequences} == {70}


def test_rna_is_read_as_dna(tmp_path):
    (tmp_path / "rna.tsv").write_text("sequence\tlabel\nAUGcuu\t0\nACG CGU\t1\n")
    assert read_labelled(tmp_path / "rna.tsv").sequences == ["ATGCTT", "ACGT"]


@pytest.mark.parametrize("sequence", ["ACGTACGTAC", "acgtnacgt", "ACG", "AC", "acgUACGU"])
def test_token_ids_are_the_tokenizers(sequence):
    assert tokenise(sequence, k=3, max_tokens=64).tolist() == KmerTokenizer(3)(sequence)["input_ids"]


def test_long_sequences_are_cut():
    ids = tokenise(random_dna(100, 1), k=3, max_tokens=64)
    assert (len(ids), ids[0], ids[-1]) == (64, 2, 3)


def test_classes_are_ordered_by_value():
    assert class_names(["10", "9", "0"]) == ["0", "9", "10"]
    assert class_names(["no", "yes", "no"]) == ["no", "yes"]


def test_recipes_are_the_papers():
    small, large = (finetune_recipe("fewshot", num_rows=2 * shots, num_classes=2) for shots in (100, 500))
    assert (small.peak_lr, small.epochs, small.batch_rows, small.warmup_share, small.dropout) == (1e-4, 20, 5, 0.1, 0.1)
    assert (large.peak_lr, large.epochs, large.batch_rows, large.warmup_share, large.dropout) == (5e-5, 5, 15, 0.1, 0.1)
    mouse = finetune_recipe("gue-mouse", num_rows=1, num_classes=2)
    assert (mouse.peak_lr, mouse.batch_rows, mouse.warmup_steps, mouse.max_steps, mouse.epochs) == (
        3e-5, 32, 30, 1000, None
    )  # fmt: skip


def test_scores_by_hand():
    truth = np.array([0, 0, 1, 1])
    found = scores(np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]]), truth)
    assert found["accuracy"] == 0.75
    assert found["mcc"] == pytest.approx(1 / np.sqrt(3))
    assert found["f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["auroc"] == 1.0
    assert scores(np.eye(3)[[0, 1]], np.array([0, 1]))["auroc"] is None


def tune(capsys, **options) -> tuple[int, str, str]:
    reset_accelerate()
    status = finetune.main(arguments(threads=1, **options))
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_learns_a_task_of_three_classes_chooses_by_dev_loss_and_predicts(model, tmp_path, capsys):
    classes = ("none", "sp1", "tata")
    train, dev, test = (
        write(tmp_path / f"{name}.tsv", task(size, seed, classes))
        for name, size, seed in (("train", 300, 1), ("dev", 60, 2), ("test", 90, 3))
    )
    out = tmp_path / "out"
    options = {"epochs": 12, "batch_rows": 16, "peak_lr": 3e-3, "train": train, "dev": dev, "test": test}
    status, printed, errors = tune(capsys, model=model, output_dir=out, **options)
    assert status == 0, errors
    assert "test: loss" in printed
    found = json.loads((out / "metrics.json").read_text())
    assert found["classes"] == list(classes)
    assert found["test"]["accuracy"] > 0.6, "guessing is right in a third"
    assert {"accuracy", "mcc", "f1", "auroc"} <= set(found["test"])
    chosen = min(found["curve"], key=lambda line: line["dev_loss"])
    assert (found["best_step"], found["dev"]["loss"]) == (chosen["step"], pytest.approx(chosen["dev_loss"]))
    loaded = AutoModelForSequenceClassification.from_pretrained(out / "final")
    assert loaded.config.id2label == dict(enumerate(classes))
    assert AutoTokenizer.from_pretrained(out / "final")("ACGT")["input_ids"] == KmerTokenizer(3)("ACGT")["input_ids"]

    unlabelled = tmp_path / "new.tsv"
    unlabelled.write_text("sequence\n" + "\n".join(sequence for sequence, _ in task(90, 3, classes)) + "\n")
    options = {"predict": unlabelled, "test": test, "json": True, "quiet": True}
    status, printed, errors = tune(capsys, model=out / "final", output_dir=tmp_path / "predicted", **options)
    assert (status, errors) == (0, "")
    assert json.loads(printed)["test"]["accuracy"] == found["test"]["accuracy"]
    with open(tmp_path / "predicted" / "new.predictions.tsv") as stream:
        predicted = list(csv.DictReader(stream, delimiter="\t"))
    right = sum(row["prediction"] == label for row, (_, label) in zip(predicted, task(90, 3, classes), strict=True))
    assert right / 90 == pytest.approx(found["test"]["accuracy"])
    assert sum(float(predicted[0][f"p_{name}"]) for name in classes) == pytest.approx(1, abs=1e-5)


def test_the_same_seed_gives_the_same_scores_and_random_weights_others(model, tmp_path, capsys):
    train, test = write(tmp_path / "a.tsv", task(20, 1)), write(tmp_path / "b.tsv", task(40, 2))
    found = []
    for name, options in (("one", {}), ("two", {}), ("random", {"random_weights": True})):
        tune(capsys, model=model, output_dir=tmp_path / name, train=train, test=test, epochs=2, **options)
        found.append(json.loads((tmp_path / name / "metrics.json").read_text())["test"]["loss"])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sequence\tlabel\nACGTACGT\t0\nACGNACGT\t1\n", "line 3: the sequence has the letter 'N'"),
        ("sequence\tlabel\nACGTACGT\t0\nACGTACGT\t\n", "line 3: the label is missing"),
        ("sequence\tlabel\nACGTACGT\t0\nACGTACGT\n", "line 3: the label is missing"),
        ("sequence\tlabel\nACGTACGT\t0\n\t1\n", "line 3: the sequence is empty"),
        ("sequence\tlabel\nACGTAC TTTTTT\t0\n", "line 2: words are not overlapping k-mers"),
        ("sequence\tlabel\nACGTACGT\t0\nACGTACGT\t0\n", "all training rows have the label '0'"),
        ("sequence,target\nACGTACGT,0\n", "has no column 'label', only sequence, target"),
        ("text,label\nACGTACGT,0\n", "has no column 'sequence', only text, label"),
        ("sequence,label\n", "has no rows"),
        ("", "an empty header"),
    ],
)
def test_mistakes_in_a_file_end_with_one_line(model, tmp_path, capsys, content, message):
    path = tmp_path / "train.tsv"
    path.write_text(content)
    status, _, errors = tune(capsys, model=model, output_dir=tmp_path / "out", train=path)
    assert (status, errors.count("\n")) == (2, 1)
    assert errors.startswith("error: ")
    assert message in errors
    assert not (tmp_path / "out").exists()


def test_other_letters_are_dropped_or_kept_on_request(model, tmp_path, capsys):
    path = write(tmp_path / "train.tsv", [*task(10, 1), ("ACGTNACGTACG", "1")])
    for other_letters, rows in (
        ("drop", {"used": 10, "dropped": 1, "cut": 0}),
        ("unk", {"used": 11, "dropped": 0, "cut": 0}),
    ):
        out = tmp_path / other_letters
        options = {"train": path, "max_steps": 1, "other_letters": other_letters}
        assert tune(capsys, model=model, output_dir=out, **options)[0] == 0
        assert json.loads((out / "metrics.json").read_text())["rows"]["train"] == rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "nowhere", "predict": "x.tsv"}, "x.tsv does not exist"),
        ({"train": "x.tsv"}, "x.tsv does not exist"),
        ({}, "nothing to do: give --train, --test or --predict files"),
        ({"epochs": 2, "max_steps": 2, "train": "x.tsv"}, "give --epochs or --max-steps, not both"),
        ({"recipe": "soup"}, "nothing to do"),
    ],
)
def test_mistakes_in_options_end_with_one_line(model, tmp_path, capsys, options, message):
    status, _, errors = tune(capsys, **{"model": model, "output_dir": tmp_path / "out", **options})
    assert (status, errors.count("\n")) == (2, 1)
    assert message in errors


def test_a_label_that_the_model_does_not_know_and_a_model_that_cannot_predict(model, tmp_path, capsys):
    train = write(tmp_path / "a.tsv", task(10, 1))
    test = write(tmp_path / "b.tsv", task(9, 2, ("0", "1", "7")))
    status, _, errors = tune(capsys, model=model, output_dir=tmp_path / "out", train=train, test=test, max_steps=1)
    assert status == 2
    assert "b.tsv has the label '7'; the classes of the model are 0, 1" in errors
    status, _, errors = tune(capsys, model=model, output_dir=tmp_path / "out", predict=train)
    assert status == 2
    assert "is not fine-tuned, so it cannot predict" in errors
