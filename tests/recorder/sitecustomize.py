"""On the path of a process: records the batches of its loaders in $RECORD_BATCHES, and kills it where $KILL_AT says."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import time
from pathlib import Path


def digest(batch: dict) -> str:
    """Hash of what a rank was given."""
    content = hashlib.sha256()
    for name in ("input_ids", "labels", "attention_mask", "sample_ids"):
        content.update(batch[name].numpy().tobytes())
    return content.hexdigest()


def record(folder: Path, kill_at: str = "") -> None:
    """Write (step, digest) of each batch to a file for each rank; ``kill_at`` is "RANK:STEP", and happens once."""
    from gemsdata.stream.loader import Loader

    iterate = Loader._iterate

    def recorded(self):
        rank = self.stream.config.world.rank
        with contextlib.closing(iterate(self)) as batches:
            for batch in batches:
                with open(folder / f"{rank}.jsonl", "a") as lines:
                    lines.write(json.dumps([batch["step"], digest(batch)]) + "\n")
                if kill_at == f"{rank}:{batch['step']}" and not (folder / "killed").exists():
                    (folder / "killed").touch()
                    time.sleep(float(os.environ.get("KILL_DELAY_S", "0")))
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch

    Loader._iterate = recorded


if os.environ.get("RECORD_BATCHES"):
    record(Path(os.environ["RECORD_BATCHES"]), os.environ.get("KILL_AT", ""))
