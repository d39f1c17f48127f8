"""Few-shot evaluation: draws and test rows, runs that run once, tables, what happens when something fails."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.fewshot import __main__ as fewshot
from eval.fewshot.tasks import find_set, prepare
from eval.results import runs
from eval.results.jobs import Job
from tests.checkpoints import build
from tests.genomes import COMPLEMENT, random_dna
from tests.train_support import _fresh_accelerate, arguments  # noqa: F401
from train import finetune
from train.labelled import read_labelled

pytestmark = pytest.mark.once

NUM_BASES = 24


def rows_of(num_of_class: dict[str, int], seed: int) -> list[tuple[str, str]]:
    """Random rows; the first base of each tells its class, A or T or C."""
    found = []
    for number, (label, num) in enumerate(num_of_class.items()):
        found += [
            ("ATC"[number] + random_dna(NUM_BASES - 1, seed * 1000 + number * 300 + i), label) for i in range(num)
        ]
    random.Random(seed).shuffle(found)
    return found


def write(path: Path, rows: list[tuple[str, str]], *, column: str = "sequence", quote: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells_ = [(column, "label"), *rows]
    path.write_text("".join(f"{quote}{bases}{quote}\t{quote}{label}{quote}\n" for bases, label in cells_))
    return path


def published(folder: Path) -> Path:
    """A set with one training set of each size, as Prom-core; quoted, as the published files are."""
    for shots in (4, 12):
        write(folder / str(shots) / "train.tsv", rows_of({"0": shots, "1": shots}, shots), quote='"')
    write(folder / "test.tsv", rows_of({"0": 20, "1": 10}, 99))
    return folder


def pooled(folder: Path, *, runs: int = 5) -> Path:
    """A set whose training file pools several runs, as Splice-40."""
    write(folder / "4" / "train_4.tsv", rows_of({"0": 4 * runs, "1": 4 * runs, "2": 4 * runs}, 5))
    write(folder / "test_standin" / "test.tsv", rows_of({"0": 9, "1": 9, "2": 9}, 98), column="seq")
    return folder


def rows_in(path: Path) -> list[tuple[str, str]]:
    found = read_labelled(path)
    return list(zip(found.sequences, found.labels, strict=True))


def test_draw_0_is_the_published_set_and_others_come_from_the_largest(tmp_path):
    found = find_set(published(tmp_path / "one"))
    tasks, remarks = prepare(found, tmp_path / "out", shots=[4, 12], num_draws=3, max_test_rows=None)
    assert [(task.shots, task.draw) for task in tasks] == [(4, 0), (4, 1), (4, 2), (12, 0)]
    assert sorted(rows_in(tasks[0].train)) == sorted(rows_in(found.train[4]))
    largest = set(rows_in(found.train[12]))
    for task in tasks[1:3]:
        assert set(rows_in(task.train)) <= largest
        assert Counter(label for _, label in rows_in(task.train)) == {"0": 4, "1": 4}
    assert rows_in(tasks[1].train) != rows_in(tasks[2].train)
    assert any("12 shots allows 1 draws, not 3" in remark for remark in remarks)


@settings(max_examples=10, deadline=None)
@given(runs=st.integers(2, 6), num_draws=st.integers(1, 8))
def test_pooled_runs_are_dealt_into_disjoint_balanced_draws(tmp_path_factory, runs, num_draws):
    base = tmp_path_factory.mktemp("pooled")
    found = find_set(pooled(base / "two", runs=runs))
    tasks, _ = prepare(found, base / "out", shots=[4], num_draws=num_draws, max_test_rows=None)
    assert len(tasks) == min(runs, num_draws)
    dealt = [row for task in tasks for row in rows_in(task.train)]
    assert len(set(dealt)) == len(dealt) == 12 * len(tasks)
    assert set(dealt) <= set(rows_in(found.train[4]))
    assert all(set(Counter(label for _, label in rows_in(task.train)).values()) == {4} for task in tasks)


def test_no_test_row_is_a_training_row_on_either_strand(tmp_path):
    folder = published(tmp_path / "one")
    test = rows_in(folder / "test.tsv")
    (first, _), (second, _) = rows_in(folder / "12" / "train.tsv")[:2]
    leaks = [(first, "0"), (second.translate(COMPLEMENT)[::-1], "1")]
    write(folder / "test.tsv", [*test, *leaks, test[3], ("N" + test[4][0][1:], "0")])
    tasks, remarks = prepare(find_set(folder), tmp_path / "out", shots=[4], num_draws=1, max_test_rows=None)
    assert rows_in(tasks[0].test) == test
    assert "of 34 test rows (test.tsv) 1 with other letters, 1 repeated and 2 that are training rows" in remarks[0]


def test_a_shortened_test_file_is_a_choice_of_its_rows_and_always_the_same(tmp_path):
    found = find_set(published(tmp_path / "one"))
    files = []
    for out in ("a", "b"):
        tasks, _ = prepare(found, tmp_path / out, shots=[4, 12], num_draws=2, max_test_rows=11)
        files.append([path.read_bytes() for task in tasks for path in (task.train, task.test)])
    assert files[0] == files[1]
    kept, rows = rows_in(tasks[0].test), rows_in(found.test[0])
    assert len(kept) == 11
    assert kept == [row for row in rows if row in set(kept)]


def test_the_real_sets_are_cleaned_of_the_traps_that_are_known(data_dir, tmp_path):
    tasks, remarks, chance = fewshot.find_tasks(data_dir / "fewshot", tmp_path, shots=[10, 1000], num_draws=10)
    assert list(chance.values()) == pytest.approx([1 / 2, 1 / 2, 1 / 2, 1 / 3, 1 / 2])
    draws = Counter((task.set_name, task.shots) for task in tasks)
    assert draws == {
        ("Prom-core", 10): 10, ("Prom-core", 1000): 1, ("Prom-300", 10): 10, ("Prom-300", 1000): 1,
        ("Cohn-enh", 10): 10, ("Splice-40", 10): 10, ("Silencer", 10): 10,
    }  # fmt: skip
    text = "\n".join(remarks)
    assert "Prom-core: of 5920 test rows (test.tsv) 0 with other letters, 2 repeated and 1 that" in text
    assert "Prom-300: of 11840 test rows (dev.csv and test.csv) 1 with other letters" in text
    for task in tasks:
        if task.shots == 10:
            assert set(Counter(label for _, label in rows_in(task.train)).values()) == {10}
    prom_300 = next(task.test for task in tasks if task.set_name == "Prom-300")
    trained = {bases for bases, _ in rows_in(data_dir / "fewshot/Prom-300/1000/train.tsv")}
    assert not trained & {bases for bases, _ in rows_in(prom_300)}


@pytest.fixture
def in_process(monkeypatch):
    """Run the jobs here, one after the other; return the names of those that ran."""
    ran = []

    def run_here(jobs: list[Job], **_: object) -> None:
        for job in jobs:
            ran.append(job.name)
            job.run(*job.arguments)

    monkeypatch.setattr(runs, "run_jobs", run_here)
    return ran


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(build("ours", tmp_path_factory.mktemp("models") / "ours"))


def evaluate(tmp_path, model, **options) -> int:
    data = tmp_path / "data"
    if not data.exists():
        published(data / "one")
        pooled(data / "two")
    return fewshot.main(
        arguments(
            **{
                "data": str(data),
                "models": f"ours={model}",
                "output_dir": str(tmp_path / "out"),
                "shots": 4,
                "seeds": (1, 2),
                **options,
            }
        )
    )


def copies(model, tokens, accelerator, *, pad_id):
    """The probabilities of a model that knows what the first base means."""
    first = np.array([(row[1] - 5) // 4**2 for row in tokens])
    return np.eye(model.model.config.num_labels)[first]


def constant(model, tokens, accelerator, *, pad_id):
    return np.tile(np.eye(model.model.config.num_labels)[0], (len(tokens), 1))


@pytest.mark.parametrize("guess", [copies, constant])
def test_who_copies_labels_scores_1_and_who_says_always_the_same_has_mcc_0(
    tmp_path, model, in_process, monkeypatch, guess
):
    monkeypatch.setattr(finetune, "probabilities", guess)
    assert evaluate(tmp_path, model) == 0
    found = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert len(found) == 4
    if guess is copies:
        assert (found[["accuracy", "mcc", "f1", "auroc"]] == 1.0).all(axis=None)
    else:
        assert (found["mcc"] == 0.0).all()
        assert dict(zip(found["dataset"], found["accuracy"], strict=True)) == pytest.approx(
            {"one": 2 / 3, "two": 1 / 3}
        )


def test_an_evaluation_ends_in_tables_and_figures_and_runs_no_cell_twice(tmp_path, model, in_process, capsys):
    assert evaluate(tmp_path, model, controls=True, draws=2) == 0
    assert len(in_process) == 2 * 2 * 2 * 2, "sets, draws, models, seeds"
    out = tmp_path / "out"
    found = pd.read_parquet(out / "results.parquet")
    assert found.groupby(["dataset", "model"]).size().tolist() == [4] * 4
    assert found["accuracy"].between(0, 1).all()
    assert set(found["train_rows"]) == {8, 12}
    text = (out / "results.md").read_text()
    assert text in capsys.readouterr().out
    for wanted in ("| one | 4 |", "| two | 4 |", "ours − ours-random", "2 seeds and 2 draws", "## MCC"):
        assert wanted in text, wanted
    line = found[(found["dataset"] == "one") & (found["model"] == "ours")]
    assert f"{line['accuracy'].mean():.3f} [" in text
    for name in ("accuracy.png", "accuracy.svg", "comparisons.parquet"):
        assert (out / name).stat().st_size > 1000
    assert not list(out.glob("runs/**/final")), "no model folder for a run"

    capsys.readouterr()
    assert evaluate(tmp_path, model, controls=True, draws=2, json=True, quiet=True) == 0
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 16
    assert printed.err == ""

    in_process.clear()
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/**/run.json")}
    assert evaluate(tmp_path, model, controls=True, draws=2, seeds=(1, 2, 3)) == 0
    assert len(in_process) == 8, "only the third seed"
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_published_figures_stand_beside_ours(tmp_path, model, in_process, capsys):
    figures = tmp_path / "paper.csv"
    figures.write_text("dataset,shots,model,accuracy\none,4,theirs,0.9\none,99,theirs,0.8\n")
    assert evaluate(tmp_path, model, published=str(figures)) == 0
    accuracy, mcc = (tmp_path / "out/results.md").read_text().split("## MCC")
    assert "| dataset | shots | ours | theirs (published) |" in accuracy
    assert accuracy.count("**0.900**") == 1
    assert "theirs" not in mcc
    figures.write_text("dataset,shots,model,accuracy\none,4,theirs,90\n")
    assert evaluate(tmp_path, model, published=str(figures)) == 2
    assert "give fractions, such as 0.715" in capsys.readouterr().err


def test_a_cell_is_the_same_wherever_it_runs_and_half_a_cell_is_begun_anew(tmp_path, model, in_process):
    assert evaluate(tmp_path, model, seeds=(1,)) == 0
    run = tmp_path / "out/runs/one/shots-4/draw-0/ours/seed-1/run.json"
    first = json.loads(run.read_text())
    run.unlink()
    assert evaluate(tmp_path, model, seeds=(1,)) == 0
    again = json.loads(run.read_text())
    assert in_process[-1] == "one/shots-4/draw-0/ours/seed-1"
    assert len(in_process) == 3
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


def test_results_of_other_files_or_options_are_not_mixed(tmp_path, model, in_process, capsys, monkeypatch):
    assert evaluate(tmp_path, model, seeds=(1,)) == 0
    for path in (tmp_path / "out/runs").rglob("run.json"):  # as written before the option existed
        content = json.loads(path.read_text())
        assert content["inputs"].pop("pooling") is None
        path.write_text(json.dumps(content))
    with monkeypatch.context() as patch:
        patch.setattr(fewshot, "write_results", lambda *_, **__: None)
        assert evaluate(tmp_path, model, seeds=(1,)) == 0
    write(tmp_path / "data/one/4/train.tsv", rows_of({"0": 4, "1": 4}, 77))
    assert evaluate(tmp_path, model, seeds=(1,)) == 2
    assert "was made with another train; choose another --output-dir" in capsys.readouterr().err
    assert evaluate(tmp_path, model, seeds=(1,), sets="two", mixed_precision="bf16") == 2
    assert "another mixed_precision" in capsys.readouterr().err
    assert evaluate(tmp_path, model, seeds=(1,), sets="two", pooling="mean") == 2
    assert "another pooling;" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": "ours"}, "give NAME=FOLDER"),
        ({"sets": "three"}, "is not a few-shot set"),
        ({"shots": 7}, "has training files of 7 shots"),
        ({"draws": 0}, "--draws 0"),
        ({"max_test_rows": 0}, "--max-test-rows 0"),
        ({"test": "nine=x.tsv"}, "give SET=FILE"),
        ({"data": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_mistakes_are_one_line(tmp_path, model, capsys, options, message):
    assert evaluate(tmp_path, model, **options) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_code_of_a_checkpoint_is_refused_before_anything_runs_and_does_not_spoil_what_ran(
    tmp_path, model, in_process, capsys
):
    own_code = tmp_path / "own_code"
    own_code.mkdir()
    (own_code / "config.json").write_text('{"auto_map": {"AutoConfig": "code.Config"}}')
    assert evaluate(tmp_path, model, sets="one", models=(f"ours={model}", f"theirs={own_code}")) == 2
    assert "--trust-remote-code" in capsys.readouterr().err
    assert evaluate(tmp_path, model, sets="one", models=f"nobody={tmp_path / 'nowhere'}") == 2
    assert "nowhere is not a Hugging Face model folder" in capsys.readouterr().err
    assert in_process == []
    assert evaluate(tmp_path, model, sets="one") == 0
    assert evaluate(tmp_path, model, sets="one", trust_remote_code=True) == 0
    assert len(in_process) == 2


@pytest.mark.slow
def test_cells_run_in_processes_and_one_that_fails_does_not_stop_the_others(tmp_path, model, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    models = (f"broken={broken}", f"ours={model}")
    assert evaluate(tmp_path, model, models=models, sets="one", seeds=1, workers=2) == 1
    error = capsys.readouterr().err
    assert "1 of 2 jobs failed; one/shots-4/draw-0/broken/seed-1: " in error
    assert (tmp_path / "out/runs/one/shots-4/draw-0/ours/seed-1/run.json").exists()
    assert "Git LFS pointer" in error
    assert "| one | 4 | " in (tmp_path / "out/results.md").read_text(), "the table of those that did not fail"
