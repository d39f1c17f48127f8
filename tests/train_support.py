"""Small pretraining runs for the tests, in this process or in several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

from tests.ports import free_port
from tests.stream_support import make_set
from train import pretrain
from train.program import Interrupt
from train.run_log import read_metrics

REPOSITORY = Path(__file__).parents[1]
FAST = {
    "model": "smoke",
    "masking": "cm-gems",
    "max_steps": 24,
    "batch_rows": 8,
    "eval_every": 6,
    "save_every": 100,
    "eval_rows": 16,
    "log_every": 1,
    "switch_threshold": 1000.0,
    "switch_lag": 5,
    "peak_lr": 5e-3,
    "threads": 1,
}
"""cm-gems decides at the second evaluation, after 12 updates, and switches at batch 11 + 5"""


def reset_accelerate() -> None:
    """Let the next Accelerator of this process have other settings."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    reset_accelerate()
    yield
    reset_accelerate()


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """137 training rows of 3-mers, at most 30 tokens each."""
    return make_set(tmp_path_factory.mktemp("train") / "set")


def arguments(**options) -> list[str]:
    """The command line of options given by their field names."""
    words: list[str] = []
    for name, value in options.items():
        if value is not False:
            words.append("--" + name.replace("_", "-"))
            words += (
                [] if value is True else [str(entry) for entry in (value if isinstance(value, tuple) else (value,))]
            )
    return words


def run(shards: Path, out: Path, *, stop_after: int | None = None, **options) -> int:
    """Pretrain in this process; ``stop_after``: as if ^C came during that update. Returns the exit status."""
    reset_accelerate()
    with pytest.MonkeyPatch.context() as patch:
        if stop_after is not None:
            patch.setattr(pretrain, "Interrupt", lambda: StopAfter(stop_after))
        return pretrain.main(arguments(shards=str(shards), output_dir=str(out), **{**FAST, **options}))


class StopAfter(Interrupt):
    """Pretends that ^C came during some update of the run; `received` is read once in each."""

    def __init__(self, num_updates: int) -> None:
        super().__init__()
        self._left = num_updates

    @property
    def received(self) -> bool:
        self._left -= 1
        return self._left <= 0

    @received.setter
    def received(self, value: bool) -> None:
        pass


def lines(out: Path, name: str) -> dict[int, float]:
    """{step: value} of one entry of metrics.jsonl."""
    return {line["step"]: line[name] for line in read_metrics(out / "metrics.jsonl") if name in line}


def same_run(one: Path, other: Path) -> None:
    """Assert that two runs have the same weights, losses and stages."""
    weights, again = load_file(one / "final" / "model.safetensors"), load_file(other / "final" / "model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    for name in ("loss", "valid_perplexity", "gradient_norm", "lr", "stage", "stage_log"):
        assert lines(one, name) == lines(other, name)


SCRIPT = """
import faulthandler, json, os, sys
from accelerate.state import DistributedType, PartialState
faulthandler.dump_traceback_later(120, exit=True)  # a hang becomes a failure that says where
from train import pretrain
from tests.train_support import StopAfter

stop_after, notes, *arguments = sys.argv[1:]
if "ACCELERATE_USE_FSDP" in os.environ:  # which accelerate heeds on GPUs only, though torch's FSDP runs on CPU too
    PartialState(cpu=True)._shared_state["distributed_type"] = DistributedType.MULTI_GPU
seen = []
counted = pretrain.batch_counts

def spy(batch, stop, accelerator):
    seen.append([batch["step"], batch["stage"]])
    kind = str(accelerator.distributed_type)
    note = {"num_processes": accelerator.num_processes, "type": kind, "stages": seen}
    open(f"{notes}-{accelerator.process_index}.json", "w").write(json.dumps(note))
    return counted(batch, stop, accelerator)

pretrain.batch_counts = spy
if int(stop_after):
    pretrain.Interrupt = lambda: StopAfter(int(stop_after))
sys.exit(pretrain.main(arguments))
"""


def run_two_processes(
    shards: Path, out: Path, *, notes: Path, stop_after: int = 0, environment: dict[str, str] | None = None, **options
) -> tuple[subprocess.CompletedProcess, list[dict]]:
    """Pretrain in two processes under `accelerate launch` on CPU; return also what each of them noted."""
    script = notes.with_suffix(".py")
    script.write_text(SCRIPT)
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--main_process_port", str(free_port())]
    command = arguments(shards=str(shards), output_dir=str(out), **{**FAST, **options})
    done = subprocess.run(
        [sys.executable, *launch, str(script), str(stop_after), str(notes), *command],
        env={
            **os.environ,
            "ACCELERATE_USE_CPU": "1",
            "PYTHONPATH": str(REPOSITORY),
            "CUDA_VISIBLE_DEVICES": "",
            **(environment or {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    found = [Path(f"{notes}-{rank}.json") for rank in range(2)]
    return done, [json.loads(path.read_text()) for path in found if path.exists()]
