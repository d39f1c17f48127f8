"""Two processes that train together under gloo: one is killed, the other ends with a message, both resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 60
"""the other process ends within this time: gloo notices a closed connection at once"""
NUM_STEPS = 20
_LONGEST_S = 300
_SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
import torch.distributed as dist
import gemsdata as gd

shards, out, kill_at, num_steps = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
rank = int(os.environ["RANK"])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[5]}", rank=rank, world_size=2)
torch.manual_seed(0)
loader = gd.build_loader(shards, masking="cm-gems", global_batch_size=8, num_steps=num_steps, num_workers=1,
                         threads=True, stage_lag=4, seed=3)
num_ids = 5 + 4 ** gd.ShardSet.open(shards).k
model = torch.nn.Sequential(torch.nn.Embedding(num_ids, 4), torch.nn.Linear(4, num_ids))
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


@dataclass(frozen=True)
class Survived:
    """Outcome for the other process when one of two is killed."""

    kill_at: int
    """the step before which process 1 was killed"""
    seconds: float
    """seconds from the kill until process 0 had ended"""
    status: int
    """exit status of process 0"""
    message: str
    """the last line that process 0 printed"""
    last_step: int
    """last step of process 0 before it ended"""


def train(shards: Path, out: Path) -> None:
    """Train both processes to the end, from the state in ``out`` if there is one; raise RuntimeError if one fails."""
    out.mkdir(exist_ok=True)
    for process in _start(shards, out, -1):
        _, error = process.communicate(timeout=_LONGEST_S)
        if process.returncode:
            raise RuntimeError(error)


def kill_one(shards: Path, out: Path, kill_at: int) -> Survived:
    """Train in ``out``; process 1 kills itself with SIGKILL before ``kill_at``, and process 0 has LIMIT_S to end."""
    out.mkdir()
    survivor, victim = _start(shards, out, kill_at)
    victim.communicate(timeout=_LONGEST_S)
    if victim.returncode != -signal.SIGKILL:
        raise RuntimeError(f"process 1 ended with {victim.returncode}, not by SIGKILL")
    began = time.monotonic()
    try:
        _, error = survivor.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        survivor.kill()
        _, error = survivor.communicate()
    seconds = time.monotonic() - began
    lines = [line for line in error.splitlines() if line and not line.startswith(" ")]
    return Survived(kill_at, round(seconds, 1), survivor.returncode, lines[-1] if lines else "", max(losses(out, 0)))


def losses(out: Path, rank: int) -> dict[int, tuple[int, float]]:
    """Return {step: (stage, loss)} of a process; for a step that was taken twice, the later values."""
    lines = [json.loads(line) for line in (out / f"losses-{rank}.jsonl").read_text().splitlines()]
    return {step: (stage, loss) for step, stage, loss in lines}


def _start(shards: Path, out: Path, kill_at: int) -> list[subprocess.Popen[str]]:
    script = out / "train.py"
    script.write_text(_SCRIPT)
    processes = []
    meeting = out / f"meeting-{uuid.uuid4().hex}"  # rendezvous file: a port could be taken in the meantime
    for rank in range(2):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(script), str(shards), str(out), str(kill_at), str(NUM_STEPS), str(meeting)]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    return processes
