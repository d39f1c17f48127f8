"""Two processes under `accelerate launch` are one process with the same batch, through a stage switch and a resume.

With DDP, and with weights and optimizer split by FSDP.
"""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from tests.train_support import _fresh_accelerate, lines, run, run_two_processes, shards  # noqa: F401
from train import checkpoint

pytestmark = pytest.mark.compiled

OPTIONS = {"model": "logo", "peak_lr": 1e-3, "max_steps": 20}  # logo has no dropout, which differs between processes


def test_two_processes_resumed_between_decision_and_effect_are_one(shards, tmp_path):  # noqa: F811
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(shards, one, **OPTIONS) == 0
    done, before = run_two_processes(shards, two, notes=tmp_path / "before", stop_after=14, **OPTIONS)
    assert [note["num_processes"] for note in before] == [2, 2], done.stderr
    state = checkpoint.read_state(checkpoint.folder_of(two, 14))
    assert state["loader"]["stage_log"] == [[16, 1]], "stopped after the decision, before its effect"
    done, after = run_two_processes(shards, two, notes=tmp_path / "after", resume=True, **OPTIONS)
    assert done.returncode == 0, done.stderr
    for note in (before, after):
        assert note[0]["stages"] == note[1]["stages"]
    assert before[0]["stages"] + after[0]["stages"] == [[step, int(step >= 16)] for step in range(20)]
    for name, tolerance in (("loss", 1e-4), ("valid_perplexity", 1e-3), ("gradient_norm", 1e-3)):
        assert lines(two, name) == pytest.approx(lines(one, name), rel=tolerance)
    weights, others = (load_file(out / "final" / "model.safetensors") for out in (one, two))
    assert max((weights[name] - others[name]).abs().max() for name in weights) < 1e-3


FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "ModernBertEncoderLayer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}


@pytest.mark.slow
def test_fsdp_trains_saves_and_resumes_the_whole_model(shards, tmp_path):  # noqa: F811
    """Also from a checkpoint of one process, and on in one process."""
    one, two = tmp_path / "one", tmp_path / "two"
    options = {"model": "modern-small", "peak_lr": 1e-3, "max_steps": 6, "eval_every": 2, "masking": "genemask"}
    assert run(shards, one, **options) == 0
    assert run(shards, two, stop_after=2, **options) == 130
    done, notes = run_two_processes(
        shards, two, notes=tmp_path / "notes", stop_after=2, resume=True, environment=FSDP, **options
    )
    assert [(note["num_processes"], note["type"]) for note in notes] == [(2, "DistributedType.FSDP")] * 2, done.stderr
    assert checkpoint.all_of(two)[-1].name == "step-00000004", done.stderr
    assert run(shards, two, resume=True, **options) == 0
    for name in ("loss", "valid_perplexity", "valid_bits_per_base", "gradient_norm"):
        assert lines(two, name) == pytest.approx(lines(one, name), rel=1e-3)
    weights, others = (load_file(out / "final" / "model.safetensors") for out in (one, two))
    assert set(weights) == set(others)
    assert max((weights[name] - others[name]).abs().max() for name in weights) < 1e-3
