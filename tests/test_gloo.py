"""Two processes that train together under gloo: one is killed, the other ends with a message, both resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.ports import free_port
from tests.stream_support import make_set

pytestmark = pytest.mark.compiled
LIMIT_S = 60
"""the other process ends within this time: gloo notices a closed connection at once"""

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
import torch.distributed as dist
import gemsdata as gd

shards, out, kill_at, num_steps = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Embedding(69, 4), torch.nn.Linear(4, 69))
loader = gd.build_loader(shards, masking="cm-gems", global_batch_size=8, num_steps=num_steps, num_workers=1,
                         threads=True, stage_lag=4, seed=3)
state = out / "state.pt"
if state.exists():
    saved = torch.load(state)
    model.load_state_dict(saved["model"])
    loader.load_state_dict(saved["loader"])
for batch in loader:
    if batch["step"] == kill_at and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    loss = torch.nn.functional.cross_entropy(model(batch["input_ids"]).flatten(0, 1), batch["labels"].flatten())
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter -= 0.05 * parameter.grad
            parameter.grad = None
    if batch["step"] in (2, 3, 6):
        loader.observe({2: 30.0, 3: 20.0, 6: 19.5}[batch["step"]])
    with open(out / f"losses-{rank}.jsonl", "a") as stream:
        stream.write(json.dumps([batch["step"], batch["stage"], loss.item()]) + "\\n")
    if batch["step"] % 5 == 4:
        dist.barrier()
        if rank == 0:
            torch.save({"model": model.state_dict(), "loader": loader.state_dict()}, state)
        dist.barrier()
dist.destroy_process_group()
"""


def start(script, shards, out, kill_at):
    port, processes = free_port(), []
    for rank in range(2):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        environment |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, script, shards, out, str(kill_at), "20"]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    return processes


def losses(out, rank):
    lines = [json.loads(line) for line in (out / f"losses-{rank}.jsonl").read_text().splitlines()]
    return {step: (stage, loss) for step, stage, loss in lines}  # the later of equal steps


def test_one_of_two_is_killed_and_both_resume_to_the_same_losses(tmp_path):
    shards = make_set(tmp_path / "set")
    script, whole, broken = tmp_path / "run.py", tmp_path / "whole", tmp_path / "broken"
    script.write_text(SCRIPT)
    whole.mkdir()
    broken.mkdir()
    for process in start(script, shards, whole, -1):
        _, error = process.communicate(timeout=200)
        assert process.returncode == 0, error
    survivor, victim = start(script, shards, broken, 12)
    victim.communicate(timeout=200)
    assert victim.returncode == -signal.SIGKILL
    began = time.monotonic()
    _, error = survivor.communicate(timeout=LIMIT_S)
    assert time.monotonic() - began < LIMIT_S
    assert survivor.returncode not in (0, None)
    assert "RuntimeError" in error, error
    assert any(word in error.lower() for word in ("connection", "peer", "closed")), error
    assert max(losses(broken, 0)) == 11
    for process in start(script, shards, broken, -1):
        _, error = process.communicate(timeout=200)
        assert process.returncode == 0, error
    for rank in range(2):
        assert losses(broken, rank) == losses(whole, rank)
        assert {stage for stage, _ in losses(whole, rank).values()} == {0, 1}
