"""Kill a parent process while its loader's workers compute, and measure how long the workers survive."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

WAYS = ("threads", "fork", "spawn", "forkserver")
LIMIT_S = 30
"""stated in docs/reliability.md: torch's workers look for their parent every 5 seconds"""
_SCRIPT = """
import json, sys
import psutil
import gemsdata as gd

if __name__ == "__main__":
    shards, way = sys.argv[1:]
    options = {"threads": True} if way == "threads" else {"start_method": way}
    loader = gd.build_loader(shards, masking="genemask", batch_size=16, num_workers=2, **options)
    for number, batch in enumerate(loader):
        if number == 4:
            print(json.dumps([child.pid for child in psutil.Process().children(recursive=True)]), flush=True)
"""


@dataclass(frozen=True)
class Orphaned:
    """Outcome for the workers of a killed parent."""

    way: str
    num_workers: int
    seconds: float
    """seconds until the last of them had ended"""
    left: int
    """number of workers still running after LIMIT_S"""


def kill_parent(shards: Path, way: str, folder: Path) -> Orphaned:
    """Start a process that reads batches, kill it with SIGKILL, and wait until its workers have ended."""
    script = folder / "parent.py"
    script.write_text(_SCRIPT)
    command = [sys.executable, str(script), str(shards), way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(pid) for pid in json.loads(parent.stdout.readline())]
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        began = time.monotonic()
        while (alive := [child for child in children if _runs(child)]) and time.monotonic() < began + LIMIT_S:
            time.sleep(0.05)
        seconds = time.monotonic() - began
        for process in alive:
            process.kill()
    return Orphaned(way, len(children), round(seconds, 1), len(alive))


def _runs(process: psutil.Process) -> bool:
    """Return whether a process has not ended; a zombie counts as ended."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
