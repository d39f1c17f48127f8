"""Pretraining in one process: outputs, stop and resume, mistakes, divergence."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from gemsdata.masking.curriculum import CMGems
from gemsdata.views.options import ViewOptions
from tests.stream_support import make_set
from tests.train_support import FAST, REPOSITORY, _fresh_accelerate, arguments, lines, run, same_run, shards  # noqa: F401
from train import checkpoint, pretrain, run_log
from train.evaluate import validation_rows
from train.figure import switch_note
from train.rows import open_rows
from train.run_log import read_metrics

pytestmark = pytest.mark.compiled


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):  # noqa: F811
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(shards, out) == 0
    return out


def test_the_final_folder_loads_with_hugging_face_classes(whole):
    model = AutoModelForMaskedLM.from_pretrained(whole / "final")
    tokenizer = AutoTokenizer.from_pretrained(whole / "final")
    encoded = tokenizer("ACGTACGT", return_tensors="pt")
    assert model(**encoded).logits.shape == (1, 8, 69)
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 32


def test_metrics_hold_everything_that_is_promised(whole):
    first, *_ = read_metrics(whole / "metrics.jsonl")
    promised = {"loss", "masked_accuracy", "stage", "rows_per_s", "tokens_per_s", "data_wait_share", "lr", "epoch"}
    assert promised <= set(first)
    assert sorted(lines(whole, "valid_perplexity")) == [6, 12, 18, 24]
    assert all(60 < value < 70 for value in lines(whole, "unigram_perplexity").values())
    assert (whole / "training.png").read_bytes()[:4] == b"\x89PNG"


def test_the_stage_switches_at_the_exact_step(whole):
    stages = lines(whole, "stage")  # of the batch of update s, which is batch s - 1
    assert [stages[s] for s in range(1, 25)] == [0] * 16 + [1] * 8
    assert read_metrics(whole / "metrics.jsonl")[-1]["stage_log"] == [[16, 1]]
    note = " ".join(switch_note(read_metrics(whole / "metrics.jsonl"), CMGems(threshold=1000.0), "valid_loss").split())
    assert "changes from genemask to global at step 16. The validation perplexity" in note
    assert "from step 6 to step 12; the curriculum goes on when it falls by less than 1000" in note


@pytest.mark.parametrize("stop_after", [random.Random(5).randint(1, 23), 14])
def test_stop_and_resume_gives_the_same_parameters_bit_for_bit(shards, whole, tmp_path, stop_after):  # noqa: F811
    """At a random step, and between the decision to switch (after 12) and its effect (batch 16)."""
    assert run(shards, tmp_path / "run", stop_after=stop_after) == 130, f"stopped after {stop_after}"
    assert not (tmp_path / "run" / "final").exists()
    assert run(shards, tmp_path / "run", resume=True) == 0
    same_run(whole, tmp_path / "run")


def test_micro_batches_change_nothing_but_the_dropout(shards, tmp_path):  # noqa: F811
    at_once, cut = tmp_path / "at_once", tmp_path / "cut"
    common = {"model": "logo", "max_steps": 4, "peak_lr": 1e-3, "masking": "genemask"}
    assert run(shards, at_once, **common) == 0
    assert run(shards, cut, micro_batch_rows=3, **common) == 0
    assert list(lines(cut, "loss").values()) == pytest.approx(list(lines(at_once, "loss").values()), rel=1e-4)


@pytest.mark.parametrize("eval_rows", [5, 16])
def test_validation_rows_and_masks_depend_on_nothing_but_their_number(shards, eval_rows):  # noqa: F811
    """The same rows and masks for any micro-batch and any number of processes, none twice and none left out."""
    opened = open_rows([str(shards)], ViewOptions())
    rows = validation_rows(opened, "genemask", max_rows=eval_rows)
    assert len(rows) == min(eval_rows, opened.sources[0].num_rows("valid"))
    again = validation_rows(opened, "genemask", max_rows=eval_rows)
    assert torch.equal(rows.input_ids, again.input_ids)
    expected = sorted(labels[labels != -100].tolist() for labels in rows.labels)
    for num_processes in (1, 2, 3, 7):
        for micro_batch_rows in (1, 3, 64):
            found, num_batches = [], set()
            for process in range(num_processes):
                place = SimpleNamespace(process_index=process, num_processes=num_processes, device=torch.device("cpu"))
                batches = list(rows.batches(place, micro_batch_rows))
                num_batches.add(len(batches))
                assert all(len(batch["labels"]) <= micro_batch_rows for batch in batches)
                found += [labels[labels != -100].tolist() for batch in batches for labels in batch["labels"]]
            assert sorted(entry for entry in found if entry) == [entry for entry in expected if entry]
            assert len(num_batches) == 1, "FSDP waits where a process has a batch more"


def test_the_micro_batch_does_not_change_the_validation_loss(shards, tmp_path):  # noqa: F811
    common = {"model": "logo", "max_steps": 1, "eval_every": 1, "eval_rows": 5, "peak_lr": 1e-9, "masking": "genemask"}
    for name, micro_batch_rows in (("at_once", 64), ("cut", 3)):
        assert run(shards, tmp_path / name, micro_batch_rows=micro_batch_rows, **common) == 0
    at_once, cut = (lines(tmp_path / name, "valid_loss")[1] for name in ("at_once", "cut"))
    assert cut == pytest.approx(at_once, rel=1e-5)


def test_only_the_last_checkpoints_are_kept_and_older_states_are_dropped(shards, tmp_path):  # noqa: F811
    assert run(shards, tmp_path / "run", max_steps=8, save_every=2, keep_last=3) == 0
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000006", "step-00000008"]


def error_of(capsys, status: int) -> str:
    printed = capsys.readouterr().err
    assert status == 2, printed
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    return printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "bert-huge"}, "--model 'bert-huge' is unknown: use one of logo, dnabert, small, smoke"),
        ({"masking": "magic"}, "masking 'magic' is unknown: use a strategy ("),
        ({"eval_masking": "magic"}, "masking 'magic' is unknown: use a strategy ("),
        ({"corruption": "row"}, "corruption = 'row' is unknown: use token, span, mask"),
        ({"loss_on": "some"}, "--loss-on 'some' is unknown: use masked or hidden"),
        ({"recipe": "mine"}, "recipe 'mine' is unknown: use one of papers"),
        ({"shards": "nowhere"}, "nowhere"),
        ({"init_from": "nowhere"}, "nowhere is not a Hugging Face model folder"),
        ({"batch_rows": 0}, "--batch-rows 0; give 1 or more"),
        ({"max_steps": "many"}, "Invalid value for '--max-steps': 'many' is not a valid integer"),
        ({"mixed_precision": "int3"}, "--mixed-precision 'int3' is unknown: use no, bf16, fp16"),
        ({"tracker": "abacus"}, "--tracker abacus"),
        ({"switch_lag": 4, "workers": 2}, "--switch-lag 4: --workers 2 compute 4 batches ahead; give 5 or more"),
        ({"colour": "red"}, "No such option '--colour'"),
    ],
)
def test_mistakes_end_with_one_line(shards, tmp_path, capsys, options, message):  # noqa: F811
    given = {"shards": str(shards), "output_dir": str(tmp_path / "run"), **FAST, **options}
    assert message in error_of(capsys, pretrain.main(arguments(**given)))


def test_a_batch_that_does_not_divide_among_processes_is_refused(shards, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(pretrain.Accelerator, "num_processes", 3)
    assert "--batch-rows 8 cannot be divided among 3 processes; give 6 or 9" in error_of(
        capsys, run(shards, tmp_path / "run")
    )


def test_a_run_is_not_overwritten_and_not_resumed_with_other_options(shards, whole, tmp_path, capsys):  # noqa: F811
    assert "already has a run, up to step-00000024; continue with --resume" in error_of(capsys, run(shards, whole))
    other = make_set(tmp_path / "other", genome_seed=2)
    assert "the state has fingerprint" in error_of(capsys, run(other, whole, resume=True))
    assert "was made with --peak-lr 0.005, this run has 0.1" in error_of(
        capsys, run(shards, whole, resume=True, peak_lr=0.1)
    )
    assert "the state has config_hash" in error_of(capsys, run(shards, whole, resume=True, masking="dnabert"))


def test_shards_of_another_k_do_not_fit_a_checkpoint(shards, whole, tmp_path, capsys):  # noqa: F811
    other = make_set(tmp_path / "other", k=4)
    status = run(other, tmp_path / "run", init_from=str(whole / "final"))
    assert "has 69 token ids, the rows have 261" in error_of(capsys, status)


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(shards, tmp_path, capsys, monkeypatch):  # noqa: F811
    forward = pretrain.MaskedLM.forward
    calls = []

    def poisoned(self, *arguments, **named):
        found = forward(self, *arguments, **named)
        calls.append(self.training)
        return found._replace(losses=found.losses * (float("nan") if sum(calls) == 4 else 1))

    monkeypatch.setattr(pretrain.MaskedLM, "forward", poisoned)
    assert run(shards, tmp_path / "run") == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: at step 3 the loss is nan")
    folder = tmp_path / "run" / "diverged" / "step-00000003"
    rows = json.loads((folder / "rows.json").read_text())
    assert rows["step"] == 3
    assert len(rows["sample_ids"]) == 8
    assert f"on rows {rows['sample_ids'][0]}, " in printed
    weights = load_file(folder / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_sigterm_saves_and_resume_goes_on(shards, tmp_path):  # noqa: F811
    out = tmp_path / "run"
    options = {**FAST, "max_steps": 100_000, "log_every": 1}
    command = arguments(shards=str(shards), output_dir=str(out), **options)
    with subprocess.Popen(
        [sys.executable, "train/pretrain.py", *command], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not ((out / "metrics.jsonl").exists() and lines(out, "loss")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
        printed = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    assert "interrupted after step-" in printed
    (saved,) = checkpoint.all_of(out)
    assert checkpoint.read_state(saved)["step"] == max(lines(out, "loss"))


@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "optimizer.pt", "rng-0.pt", "config.json"])
@pytest.mark.parametrize("how", ["truncated", "mutated", "removed", "emptied"])
def test_a_damaged_checkpoint_is_refused_in_one_line(shards, whole, tmp_path, capsys, name, how):  # noqa: F811
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    path = checkpoint.all_of(out)[-1] / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    new = {"truncated": path.read_bytes()[: len(content) // 2], "mutated": bytes(content), "emptied": b""}
    path.unlink()
    if how != "removed":
        path.write_bytes(new[how])
    printed = error_of(capsys, run(shards, out, resume=True))
    assert "is not a complete checkpoint" in printed
    assert name in printed
    assert "remove it to resume from the one before" in printed


def test_what_a_kill_left_of_a_checkpoint_is_removed(shards, tmp_path):  # noqa: F811
    folder = tmp_path / "run" / "checkpoints"
    for name in ("_step-00000002.tmp", "_step-00000001.old"):
        (folder / name).mkdir(parents=True)
        (folder / name / "optimizer.pt").write_bytes(b"half")
    assert run(shards, tmp_path / "run", max_steps=2, resume=True) == 0
    assert [path.name for path in folder.iterdir()] == ["step-00000002"]


def test_progress_goes_to_a_log_in_lines(shards, tmp_path, capsys, monkeypatch):  # noqa: F811
    """With step, loss, rate and time left; the last update always has one."""
    monkeypatch.setattr(run_log, "SECONDS_BETWEEN_LINES", 0.0)
    assert run(shards, tmp_path / "run", max_steps=3) == 0
    printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert len(printed) == 3
    assert re.fullmatch(r"step 3 of 3, loss [\d.]+, stage 0, [\d.]+ steps/s, 0:00:00 left", printed[-1]), printed
    monkeypatch.setattr(run_log, "SECONDS_BETWEEN_LINES", 1e9)
    assert run(shards, tmp_path / "again", max_steps=3) == 0
    printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert len(printed) == 1


def test_the_log_tells_the_kinds_of_masked_tokens_apart(whole):
    line = [line for line in read_metrics(whole / "metrics.jsonl") if "valid_loss" in line][-1]
    assert {"valid_loss_mask", "valid_loss_kept", "valid_loss_random", "valid_bits_per_base"} <= set(line)
    assert 1.8 < line["markov_bits_per_base"] < 2.3
    assert line["valid_loss_kept"] != line["valid_loss_mask"]


def test_cm_gems_can_follow_the_tokens_shown_as_mask(shards, tmp_path):  # noqa: F811
    assert run(shards, tmp_path / "run", switch_on="mask", max_steps=20) == 0
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")
    saved = checkpoint.read_state(checkpoint.all_of(tmp_path / "run")[-1])
    found = [math.exp(line["valid_loss_mask"]) for line in last if "valid_loss_mask" in line]
    assert [value for _, value in saved["loader"]["perplexities"]] == pytest.approx(found)


def test_masked_tokens_are_hidden_whole_and_the_loss_is_of_those_that_nothing_shows(shards, tmp_path, monkeypatch):  # noqa: F811
    seen = []

    def backward(model, batch, *others):
        seen.append((batch["input_ids"].clone(), batch["labels"].clone()))
        return compute(model, batch, *others)

    compute = pretrain._backward
    monkeypatch.setattr(pretrain, "_backward", backward)
    options = {"masking": "random-span", "corruption": "mask", "max_steps": 2, "eval_every": 2}
    for loss_on in ("masked", "hidden"):
        assert run(shards, tmp_path / loss_on, loss_on=loss_on, **options) == 0
    for (input_ids, labels), (same_ids, fewer) in zip(seen[:2], seen[2:], strict=True):
        assert ((labels != -100) == (input_ids == 4)).all()
        assert (same_ids == input_ids).all()
        assert ((fewer == -100) | (fewer == labels)).all()
        assert 0 < (fewer != -100).sum() < (labels != -100).sum() / 2, "one of the five tokens of a span of 3-mers"
