"""Studies: pretrainings and fine-tunings that go on where they stopped, one table, one figure."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from eval.compare import __main__ as compare
from eval.compare import pretraining
from eval.compare.pretraining import pretraining_of
from eval.compare.study import RANDOM, Arm, Study, load_study
from eval.results import runs as run_files
from eval.results.jobs import Job
from eval.results.statistics import interval
from tests.stream_support import make_set
from tests.test_fewshot import pooled, published
from tests.train_support import FAST, _fresh_accelerate, reset_accelerate  # noqa: F401
from train.program import Stopped

pytestmark = pytest.mark.compiled

OPTIONS = {name: value for name, value in FAST.items() if name not in ("masking", "threads", "switch_lag")}
STUDY = Study(
    arms=[
        Arm("random-token", masking="random-token"),
        Arm("cm-gems", masking="cm-gems"),
        Arm("genemask-30", masking="genemask", pretrain={"masking_budget": 0.3}),
    ],
    pretrain={**OPTIONS, "max_steps": 12, "eval_every": 3, "masking_budget": 0.15, "switch_lag": 3},
    finetune={"epochs": 2},
    seeds=(1, 2, 3),
    sets=("one", "two"),
    shots=(4,),
    comparisons=[("cm-gems", "random-token"), ("genemask-30", RANDOM)],
)


@pytest.fixture
def in_process(monkeypatch):
    """Run the jobs here, one after the other; return the names of those that ran."""
    ran: list[str] = []

    def run_here(jobs: list[Job], **_: object) -> None:
        for job in jobs:
            reset_accelerate()
            ran.append(job.name)
            job.run(*job.arguments)

    monkeypatch.setattr(run_files, "run_jobs", run_here)
    monkeypatch.setattr(compare, "run_jobs", run_here)
    return ran


@pytest.fixture
def config(tmp_path) -> compare.CompareConfig:
    published(tmp_path / "data" / "one")
    pooled(tmp_path / "data" / "two")
    shards = make_set(tmp_path / "set")
    return compare.CompareConfig(shards=(str(shards),), data=str(tmp_path / "data"), output_dir=str(tmp_path / "out"))


@pytest.mark.slow
def test_a_study_goes_on_where_it_stopped_and_ends_in_a_table_and_a_figure(config, in_process, monkeypatch, capsys):
    out = Path(config.output_dir)
    finetune = run_files.finetune

    def fails_in_the_second_seed(options):
        if options.seed == 2:
            raise Stopped("the power went")
        return finetune(options)

    monkeypatch.setattr(run_files, "finetune", fails_in_the_second_seed)
    with pytest.raises(Stopped, match="the power went"):
        compare.compare(STUDY, config)
    monkeypatch.setattr(run_files, "finetune", finetune)
    first = (out / "results.md").read_text()
    assert "1 of 3 seeds" in first, "what is complete is shown"
    done = in_process[:-1]
    in_process.clear()

    found = compare.compare(STUDY, config)
    assert not set(done) & set(in_process)
    assert len(done) + len(in_process) == 3 * (3 + 2 * 4), "three pretrainings and eight fine-tunings a seed"
    assert len(found) == 24
    text = (out / "results.md").read_text()
    for wanted in ("3 of 3 seeds", "| random-weights |", "cm-gems − random-token", "genemask-30 − random-weights"):
        assert wanted in text, wanted
    assert "random-token − " not in text, "only the comparisons that were named beforehand"
    mine = found[(found["model"] == "cm-gems") & (found["dataset"] == "one")]["accuracy"]
    mean, low, high, _ = interval(mine.to_numpy())
    assert f"{mean:.3f} [{low:.3f}, {high:.3f}]" in text
    runs = pd.read_parquet(out / "pretrainings.parquet")
    assert runs.groupby("arm")["seed"].apply(list).tolist() == [[1, 2, 3]] * 3
    assert (runs["rows"] == 12 * 8).all()
    assert runs[runs["arm"] == "cm-gems"]["switched_at"].notna().all()
    assert runs[runs["arm"] != "cm-gems"]["switched_at"].isna().all()
    assert set(runs[runs["arm"] == "genemask-30"]["masking_budget"]) == {0.3}
    assert {json.loads(path.read_text())["inputs"]["epochs"] for path in out.glob("runs/**/run.json")} == {2}
    for name in ("study.png", "study.svg", "comparisons.parquet", "results.parquet"):
        assert (out / name).stat().st_size > 1000

    in_process.clear()
    compare.compare(STUDY, config)
    assert in_process == []
    without = dataclasses.replace(STUDY, arms=[arm for arm in STUDY.arms if arm.name != "cm-gems"], comparisons=())
    compare.compare(without, config)
    assert in_process == []
    assert "| –, –, – |" in (out / "results.md").read_text(), "no arm that switches"
    other = dataclasses.replace(STUDY, pretrain={**STUDY.pretrain, "peak_lr": 1e-3})
    with pytest.raises(ValueError, match="pretrained with other options"):
        compare.compare(other, config)


def test_a_pretraining_that_was_begun_with_other_options_is_not_gone_on_with(config, in_process, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "train", lambda run: False)
        with pytest.raises(Stopped, match="was interrupted; run the same command again"):
            compare.compare(STUDY, config)
    longer = dataclasses.replace(STUDY, pretrain={**STUDY.pretrain, "max_steps": 18})
    with pytest.raises(ValueError, match="pretrained with other options"):
        compare.compare(longer, config)


def test_every_arm_masks_the_same_number_of_tokens(config):
    """The budget is exact in every row, whatever the strategy and the stage."""
    study = load_study(Path(__file__).parents[1] / "eval/studies/masking.py")
    for arm in study.arms:
        run = pretraining_of(study, arm, 1, Path("out"), shards=config.shards)
        assert {masking.budget for masking in run.curriculum().maskings()} == {0.3 if "30" in arm.name else 0.15}
        assert (run.max_steps, run.batch_rows) == (study.pretrain["max_steps"], study.pretrain["batch_rows"])
    assert len(study.arms) == 11


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (1, 2)}, "at least three"),
        ({"arms": [Arm("a", "global"), Arm("a", "dnabert")]}, "different names"),
        ({"comparisons": [("cm-gems", "nobody")]}, "comparisons name nobody"),
        ({"finetune": {"epoch": 3}}, "fine-tuning has no option epoch;"),
        ({"arms": [Arm("cm-gems", "cm-gems", {"steps": 3})], "comparisons": ()}, "no option steps"),
        ({"arms": [Arm("x", "nothing")], "comparisons": ()}, "masking 'nothing' is unknown"),
    ],
)
def test_studies_that_make_no_sense_are_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        compare.compare(dataclasses.replace(STUDY, **changes), config)


def test_a_study_is_a_python_file(tmp_path, capsys):
    path = tmp_path / "study.py"
    path.write_text("STUDY = 3\n")
    arguments = ["--shards", "x", "--data", "y", "--output-dir", str(tmp_path)]
    assert compare.main([str(path), *arguments]) == 2
    assert "does not define STUDY" in capsys.readouterr().err
    assert compare.main(["nowhere.py", *arguments]) == 2
    assert "nowhere.py does not exist" in capsys.readouterr().err
    assert compare.main(arguments) == 2
    assert "no study is given" in capsys.readouterr().err
