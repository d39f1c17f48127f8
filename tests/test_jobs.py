"""Jobs in processes: failures are reported, the other jobs continue, a killed process does not hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.results.jobs import Job, run_jobs
from train.program import Stopped

pytestmark = pytest.mark.once


def touch(path: str) -> None:
    print("touched", path)
    Path(path).touch()


def fail(message: str) -> None:
    raise ValueError(message)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(jobs: list[Job], tmp_path: Path) -> None:
    run_jobs(jobs, workers=2, label="testing", log=tmp_path / "log.txt")


def test_all_jobs_run_and_print_into_the_log(tmp_path, capfd):
    run([Job(name, touch, (str(tmp_path / name),)) for name in "abc"], tmp_path)
    assert all((tmp_path / name).exists() for name in "abc")
    assert (tmp_path / "log.txt").read_text().count("touched") == 3
    assert "testing 3/3" in capfd.readouterr().err


def test_a_job_that_fails_is_named_after_the_others_have_run(tmp_path):
    jobs = [Job("bad", fail, ("no such thing",)), *(Job(name, touch, (str(tmp_path / name),)) for name in "ab")]
    with pytest.raises(Stopped, match="1 of 3 jobs failed; bad: ValueError: no such thing"):
        run(jobs, tmp_path)
    assert all((tmp_path / name).exists() for name in "ab")


def test_a_killed_process_ends_the_run_with_the_way_out(tmp_path):
    with pytest.raises(Stopped, match=r"a process was killed.*run the same command again"):
        run([Job("killed", die, ())], tmp_path)


PARENT = """
import sys
from pathlib import Path
from eval.results.jobs import Job, run_jobs
from tests.test_jobs import wait_long

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run_jobs([Job("waits", wait_long, (str(folder / "pid"),))], workers=1, label="testing", log=folder / "log.txt")
"""


def wait_long(path: str) -> None:
    Path(path + ".new").write_text(str(os.getpid()))
    os.rename(path + ".new", path)
    time.sleep(240)


def until(is_so: Callable[[], bool], seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.05)
    return is_so()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for nobody to ask how does not."""
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc whether a process is alive")
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)
    assert until((tmp_path / "pid").exists)
    worker = int((tmp_path / "pid").read_text())
    assert is_alive(worker)
    parent.kill()
    parent.wait()
    assert until(lambda: not is_alive(worker))


def test_nothing_to_do_starts_nothing(tmp_path):
    run([], tmp_path)
    assert not (tmp_path / "log.txt").exists()
