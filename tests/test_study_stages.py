"""Studies of two stages: a screening that ranks arms, and a confirmation of the best on other data and seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from eval.compare import __main__ as compare
from eval.compare import report
from eval.compare.pretraining import named_sets, pretraining_of, shards_of
from eval.compare.report import write_results
from eval.compare.study import Arm, Study, load_study, set_means
from tests.test_fewshot import published

pytestmark = pytest.mark.once

RECIPE = Path(__file__).parents[1] / "eval/studies/recipe.py"
STUDY = Study(
    arms=[
        Arm("base", "genemask"),
        Arm("pooled", "genemask", finetune={"pooling": "mean"}, weights_of="rotary"),
        Arm("rotary", "cm-gems", pretrain={"model": "modern-small"}, finetune={"pooling": "cls", "peak_lr": 1e-3}),
    ],
    pretrain={"model": "smoke", "max_steps": 10},
    finetune={"epochs": 2, "peak_lr": 1e-4},
    seeds=(1, 2, 3),
    sets=("one", "two"),
    shots=(4,),
    comparisons=[("pooled", "base"), ("rotary", "base")],
    baseline="base",
    num_best=1,
)


def results(scores: dict[str, float], seeds: tuple[int, ...] = (1, 2, 3)) -> pd.DataFrame:
    """Two sets, of which the second has two sizes; the first is 0.2 above the score, the second 0.2 below.

    Differences of two arms are slightly different, because p with ties takes long.
    """
    tasks = {("one", 4): 0.2, ("two", 4): -0.2, ("two", 8): -0.2}
    return pd.DataFrame([
        {"dataset": name, "shots": shots, "draw": 0, "model": arm, "seed": seed,
         "accuracy": score * (1 + seed * (shots + above) / 1e5) + above + seed / 100}
        for arm, score in scores.items() for seed in seeds for (name, shots), above in tasks.items()
    ])  # fmt: skip


def test_the_score_of_an_arm_gives_each_set_the_same_weight():
    found = set_means(results({"base": 0.5}))
    assert found["accuracy"].tolist() == pytest.approx([0.51, 0.52, 0.53], abs=1e-3)


def test_the_best_arms_of_a_screening_are_confirmed_against_the_baseline():
    chosen = STUDY.best_after(results({"base": 0.9, "pooled": 0.6, "rotary": 0.5}))
    assert [arm.name for arm in chosen.arms] == ["base", "pooled"]
    assert chosen.arms[1] == Arm("pooled", "cm-gems", {"model": "modern-small"}, {"pooling": "mean"}), "its own weights"
    assert chosen.comparisons == [("pooled", "base")]
    both = dataclasses.replace(STUDY, num_best=2).best_after(results({"base": 0.9, "pooled": 0.6, "rotary": 0.5}))
    assert both.arms == STUDY.arms
    with pytest.raises(ValueError, match="no results of rotary"):
        STUDY.best_after(results({"base": 0.9, "pooled": 0.6}))


def test_arms_share_a_pretrained_model_and_have_their_own_fine_tuning(tmp_path, monkeypatch):
    published(tmp_path / "data" / "one")
    published(tmp_path / "data" / "two")
    config = compare.CompareConfig(shards=("set",), data=str(tmp_path / "data"), output_dir=str(tmp_path / "out"))
    jobs, runs = [], []
    monkeypatch.setattr(compare, "open_rows", lambda *_: None)
    monkeypatch.setattr(compare, "pretrainings", lambda done: None)
    monkeypatch.setattr(compare, "run_jobs", lambda given, **_: jobs.extend(job.name for job in given))
    monkeypatch.setattr(compare, "run_all", lambda given, *_, **__: runs.extend(given))
    compare.compare(dataclasses.replace(STUDY, random_weights=False, seeds=(1,), tested=False), config)
    assert jobs == ["base, seed 1", "rotary, seed 1"]
    found = {run.key["model"]: run.config for run in runs}
    assert Path(found["pooled"].model).parts[-3:] == ("rotary", "seed-1", "final")
    assert (found["pooled"].pooling, found["pooled"].peak_lr, found["pooled"].epochs) == ("mean", 1e-4, 2)
    assert (found["rotary"].pooling, found["rotary"].peak_lr, found["rotary"].epochs) == ("cls", 1e-3, 2)
    assert (found["base"].pooling, found["base"].peak_lr, found["base"].epochs) == (None, 1e-4, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": [Arm("base", "global"), Arm("b", "global", weights_of="c")]}, "the study has no arm c;"),
        ({"arms": [Arm("base", "global", finetune={"pool": "cls"})]}, "fine-tuning has no option pool"),
        ({"baseline": "nobody"}, "the study has no arm nobody"),
        (
            {"arms": [*STUDY.arms, Arm("b", "global", weights_of="pooled")]},
            "arm b has the weights of pooled, which has none of its own",
        ),
    ],
)
def test_arms_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(STUDY, **{"comparisons": (), **changes}).check()


def test_shard_sets_have_names():
    sets = named_sets(["A", "unique=B", "s3://bucket/x=1", "unique=C"])
    assert sets == {None: ("A", "s3://bucket/x=1"), "unique": ("B", "C")}
    assert shards_of(Arm("a", "global", shards="unique"), sets) == ("B", "C")
    with pytest.raises(ValueError, match="arm a needs --shards other=FOLDER"):
        shards_of(Arm("a", "global", shards="other"), sets)


def test_stages_of_the_command_line(tmp_path, capsys):
    arguments = ["--shards", "x", "--data", "y", "--output-dir", str(tmp_path / "out")]

    def error(*more: str) -> str:
        assert compare.main([str(RECIPE), *arguments, *more]) == 2
        return capsys.readouterr().err

    assert "has two stages; give --stage screening or confirmation" in error()
    assert "--stage 'final' is unknown" in error("--stage", "final")
    assert "--after is for a stage that runs the best arms" in error("--stage", "screening", "--after", str(tmp_path))
    assert "give the folder of the complete screening" in error("--stage", "confirmation", "--after", str(tmp_path))
    results({"cm-gems": 0.5}, seeds=(1,)).to_parquet(tmp_path / "results.parquet")
    assert "lacks seeds 2; finish the screening" in error("--stage", "confirmation", "--after", str(tmp_path))


@pytest.mark.parametrize("stage", ["screening", "confirmation"])
def test_the_recipes_study_compares_at_equal_size_and_rows(stage):
    study = load_study(RECIPE, stage)
    study.check()
    runs = {arm.name: pretraining_of(study, arm, 1, Path("out"), shards=("x",)) for arm in study.pretrained_arms}
    assert {(run.max_steps, run.batch_rows, run.view.row_tokens) for run in runs.values()} == {
        (study.pretrain["max_steps"], 8, 300)
    }
    assert {run.model for run in runs.values()} == {"small", "modern-small"}
    assert [name for name, run in runs.items() if run.model == "small"] == ["cm-gems"]
    baseline, rotary = runs["cm-gems"], runs["rotary"]
    assert dataclasses.replace(rotary, model="small", output_dir=baseline.output_dir) == baseline
    assert len({str(dataclasses.replace(run, output_dir="")) for run in runs.values()}) == len(runs) - 1, "unique-ranks"
    assert all(pair[1] == "cm-gems" for pair in study.comparisons)


def test_screening_and_confirmation_share_no_set_and_no_seed():
    one, other = load_study(RECIPE, "screening"), load_study(RECIPE, "confirmation")
    assert not set(one.sets) & set(other.sets)
    assert not set(one.seeds) & set(other.seeds)
    assert len(other.seeds) >= 8
    assert other.pretrain["max_steps"] * other.pretrain["batch_rows"] * 300 >= 10_000_000


def test_a_screening_ranks_and_a_confirmation_tests_over_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw_arms", lambda *_, **__: None)
    found = results({"base": 0.50, "pooled": 0.52, "rotary": 0.49}, seeds=(1, 2, 3, 4, 5))
    runs = pd.DataFrame([
        {"arm": name, "seed": seed, "valid_perplexity": 900.0, "switched_at": None, "tokens": 2_400_000, "hours": 0.25}
        for name in ("base", "rotary") for seed in range(1, 6)
    ])  # fmt: skip
    write_results(found, study=STUDY, runs=runs, remarks=["a remark"], out=tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| pooled | **0.550 [" in text
    assert "| all | pooled − base | 5 | 0.020 [0.020, 0.020] | 5/0/0 | 0.062 | 0.12 |" in text, "five seeds, two tests"
    assert "pooled (genemask, pooling = mean, weights_of = rotary)" in text
    assert "| rotary | 900 [900, 900] | –, –, –, –, – | 2,400,000 | 0.25 |" in text
    write_results(found, study=dataclasses.replace(STUDY, tested=False), runs=runs, remarks=[], out=tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "it ranks the arms and tests nothing" in text
    assert "Holm" not in text
