"""GUE: the published layout, the recipes, small runs from end to end."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from eval.gue import __main__ as gue
from eval.gue import published
from eval.gue.tasks import TASKS, task, unseen
from eval.results import runs
from eval.results.jobs import Job
from tests.checkpoints import build
from tests.genomes import COMPLEMENT
from tests.test_finetune import task as rows_of_a_task
from tests.test_finetune import write
from tests.train_support import _fresh_accelerate, arguments  # noqa: F401
from train.recipes import finetune_recipe

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[str, str]:
    base = tmp_path_factory.mktemp("models")
    return f"ours={build('ours', base / 'ours')}", f"theirs={build('bpe', base / 'theirs')}"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two complete tasks, one without train; four rows of tf_0/test stand in train or dev."""
    base = tmp_path / "gue"
    for name in ("tf_0", "emp_H3", "mouse_0"):
        (base / task(name).folder).mkdir(parents=True)
        for number, split in enumerate(("train", "dev", "test")):
            rows = rows_of_a_task(24, seed=number)
            if name == "tf_0" and split == "test":
                rows[:4] = [rows_of_a_task(24, seed=number)[i] for number in (0, 1) for i in (0, 1)]
                rows[0] = (rows[0][0].translate(COMPLEMENT)[::-1], rows[0][1])
                rows[5] = ("N" + rows[5][0][1:], rows[5][1])
            if (name, split) != ("mouse_0", "train"):
                write(base / task(name).folder / f"{split}.csv", rows, comma=True)
    return base


def run(capsys, **options) -> tuple[int, str, str]:
    status = gue.main(arguments(**options))
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def cells_of(text: str, *, heading: str = "# GUE") -> list[list[str]]:
    """The lines of a Markdown table, each a list of its runs, under a heading."""
    lines = text.split(heading + "\n", 1)[1].split("\n## ")[0].splitlines()
    return [[run.strip() for run in line.strip("|").split("|")] for line in lines if line.startswith("|")]


@pytest.fixture(scope="module")
def published_rows(data_dir) -> list[dict[str, str]]:
    with open(data_dir / "papers" / "cmgems_gue_mcc_table.csv") as stream:
        return list(csv.DictReader(stream))


def in_this_process(jobs: Sequence[Job], **_: object) -> None:
    for job in jobs:
        job.run(*job.arguments)


def test_two_contestants_run_from_end_to_end_and_again(folder, models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "run_jobs", in_this_process)  # processes of their own are slow to start
    out = tmp_path / "out"
    options = {
        "data": folder, "models": models, "output_dir": out, "seeds": (1, 2), "max_steps": 2,
        "workers": 99,
    }  # fmt: skip
    status, printed, errors = run(capsys, **options)
    assert status == 0, errors
    assert printed.strip() == (out / "gue.md").read_text().strip()
    assert "note: mouse_0 lacks train.csv" in errors
    found = pd.read_parquet(out / "gue.parquet")
    assert len(found) == 2 * 2 * 2
    assert list(found["task"].unique()) == ["tf_0", "emp_H3"]
    assert list(found["model"].unique()) == ["ours", "theirs"]
    assert found["score"].to_numpy() == pytest.approx(found["mcc"].to_numpy())
    assert set(zip(found["task"], found["unseen_rows"], strict=True)) == {("tf_0", 20), ("emp_H3", 24)}
    whole = found[found["task"] == "emp_H3"]
    assert (whole["score"] == whole["unseen_score"]).all()
    assert not list(out.rglob("*.safetensors"))

    text = (out / "gue.md").read_text()
    assert "**Not the published protocol:** every training ended after 2 updates." in text
    table = cells_of(text)
    assert table[0] == ["task", "dataset", *published.CM_GEMS, "ours", "theirs"]
    (h3,) = (line for line in table if line[1] == "H3")
    assert h3[2] == "77.08"
    means = 100 * found[found["task"] == "emp_H3"].groupby("model")["score"].mean()
    assert [float(run.split()[0]) for run in h3[-2:]] == pytest.approx(means[["ours", "theirs"]].tolist(), abs=0.01)
    assert re.fullmatch(r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]", h3[-1])
    assert "* mouse_0: no train.csv" in text
    assert "* virus_covid: no train.csv, dev.csv, test.csv" in text
    assert str(tmp_path) not in text
    (repeated,) = (
        line for line in cells_of(text, heading="## Test rows that are also in train or dev") if "TFP" in line[0]
    )
    assert repeated[:4] == ["TFP (Human)", "0", "24", "4"]

    done = {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    lost = out / "runs" / "tf_0" / "theirs" / "seed-2" / "run.json"
    lost.unlink()
    (out / "gue.md").unlink()
    status, printed, errors = run(capsys, **options, json=True, quiet=True)
    assert (status, errors) == (0, "")
    assert [(row["task"], row["seed"]) for row in json.loads(printed)] == list(
        found[["task", "seed"]].itertuples(index=False, name=None)
    )
    again = {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    assert {path for path in done if again[path] != done[path]} == {lost}
    assert (out / "gue.md").read_text() == text
    status, _, errors = run(capsys, **{**options, "max_steps": 3})
    assert (status, "was made with another max_steps" in errors) == (2, True)


def test_the_layout_is_the_published_tables(published_rows, models):
    table = cells_of(gue.report(results(TASKS[:27]), published=list(published.CM_GEMS), missing={}, max_steps=None))
    means = [line for line in table[2:] if "Mean" in line[0]]
    assert [line[0].strip("*") for line in means] == ["Mean (Human)", "Mean (non-Human)"]
    expected = [
        [row["task"], *([row["dataset"]] if row["dataset"] != "__mean__" else []), *list(row.values())[5:]]
        for row in published_rows
    ]
    for line, row in zip(table[2:], expected, strict=True):
        names = [run.strip("*") for run in line[:2]]
        figures = line[2:-1]
        assert names[: len(row) - 12] == row[:-12]
        tolerance = 0.011 if "Mean" in row[0] else 0  # the paper's means are of figures with more digits
        assert [float(run) for run in figures] == pytest.approx([float(run) for run in row[-12:]], abs=tolerance)


def test_a_mean_over_some_tasks_says_so_and_stands_beside_the_published_of_the_same():
    some = [task("tf_0"), task("tf_1"), task("mouse_0")]
    table = cells_of(gue.report(results(some), published=["dnabert"], missing={}, max_steps=None))
    lines = {tuple(line[:2]): line[2:] for line in table if "Mean" in line[0]}
    assert lines == {
        ("**Mean (Human)**", "all 12"): ["72.12", "–"],
        ("Mean (Human)", "the 2 that ran"): [f"{(66.84 + 70.14) / 2:.2f}", "50.00"],
        ("**Mean (non-Human)**", "all 15"): ["51.55", "–"],
        ("Mean (non-Human)", "the 1 that ran"): ["44.42", "50.00"],
    }


def test_covid_stands_below_when_it_ran_with_the_other_papers_figure():
    text = gue.report(results([task("virus_covid")]), published=["dnabert-2-paper:dnabert-6"], missing={}, max_steps=9)
    assert cells_of(text)[-1] == ["Covid", "covid, F1", "55.50", "50.00"]


def test_a_pooling_of_ones_own_is_used_and_is_not_the_published_protocol(tmp_path):
    config = gue.GueConfig(data="GUE", models=("mine=M",), output_dir="OUT", pooling="mean")
    assert gue._cell(config, tmp_path, task("tf_0"), runs.Model("mine", "M"), 1, 1).config.pooling == "mean"
    text = gue.report(results([task("tf_0")]), published=["dnabert"], missing={}, max_steps=None, pooling="mean")
    assert "**Not the published protocol:** classifiers have mean pooling." in text


def results(tasks) -> pd.DataFrame:
    """One model, one seed, half of everything right."""
    rows = [{"task": one.name, "model": "ours", "seed": 42, "score": 0.5, "unseen_score": 0.5} for one in tasks]
    return pd.DataFrame(rows).assign(test_rows=10, unseen_rows=10, test_rows_cut=0)


def test_rows_that_a_model_sees_in_part_are_reported():
    found = results([task("tf_0"), task("tf_1")])
    found.loc[1, "test_rows_cut"] = 7
    text = gue.report(found, published=["dnabert"], missing={}, max_steps=None)
    assert "were truncated:\n\n* ours: 7 of 10 of tf_1\n" in text


def test_published_figures_are_the_papers(published_rows, data_dir):
    figures = [row for row in published_rows if row["gue_name"] != "__mean__"]
    assert [row["gue_name"] for row in figures] == [one.name for one in TASKS[:27]]
    for column, name in zip(list(figures[0])[5:], published.CM_GEMS, strict=True):
        assert tuple(float(row[column]) for row in figures) == published.CM_GEMS[name]
    with open(data_dir / "papers" / "dnabert2_gue_table4.csv") as stream:
        theirs = {row["gue_name"]: row for row in csv.DictReader(stream)}
    for number, name in enumerate(published.DNABERT_2, start=2):
        assert tuple(float(list(theirs[one.name].values())[number]) for one in TASKS) == published.DNABERT_2[name]


def test_recipes_are_the_published_ones(data_dir):
    with open(data_dir / "papers" / "gue_datasets_and_hyperparameters.csv") as stream:
        theirs = {row["gue_name"]: row for row in csv.DictReader(stream)}
    for one in TASKS:
        recipe, row = finetune_recipe(one.recipe, num_rows=1, num_classes=2), theirs[one.name]
        first = {name: row[name].split()[0] if row[name] else "" for name in row}
        length = (None, int(row["max_steps_override"])) if row["max_steps_override"] else (int(first["epochs"]), None)
        assert (recipe.epochs, recipe.max_steps) == length
        assert (recipe.eval_every, recipe.warmup_steps) == (int(row["eval_save_steps"]), int(first["warmup_steps"]))
        assert (recipe.batch_rows, recipe.peak_lr) == (int(first["global_batch"]), float(row["lr_dnabert"]))
        assert one.metric == row["metric"].lower()


def test_the_list_names_missing_files(folder, capsys):
    status, printed, _ = run(capsys, data=folder, list=True)
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert status == 0
    assert list(lines) == [one.name for one in TASKS]
    assert (lines["tf_0"], lines["mouse_0"]) == ("complete", "no train.csv")
    assert lines["tf_1"] == "no train.csv, dev.csv, test.csv"


def test_repeated_rows_of_the_real_task(data_dir):
    """43 of the 5,920 test rows stand in train, 8 in dev."""
    folder = data_dir / "gue" / "prom" / "prom_core_all"
    if not (folder / "train.csv").exists():
        pytest.skip("GUE is not here")
    found = unseen(folder)
    assert (len(found), (~found).sum()) == (5920, 51)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "nowhere"}, "nowhere has no task of GUE; give the folder with prom/prom_300_all"),
        ({}, "give --models and --output-dir, or --list"),
        ({"models": "ours"}, "--models 'ours': give NAME=FOLDER"),
        ({"models": ("a=x", "a=y")}, "--models has the name 'a' twice"),
        ({"models": "a=x", "output_dir": "out", "tasks": "soup"}, "task 'soup' is unknown: use prom_300_all,"),
        ({"models": "a=x", "output_dir": "out", "tasks": "mouse_0"}, "mouse/0 lacks train.csv; see --list"),
        ({"models": "a=x", "output_dir": "out", "published": "soup"}, "published column 'soup' is unknown"),
    ],
)
def test_mistakes_end_with_one_line(folder, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    status, _, errors = run(capsys, **{"data": folder, **options})
    lines = [line for line in errors.splitlines() if not line.startswith("note: ")]
    assert (status, len(lines)) == (2, 1)
    assert message in lines[0]
