"""Jobs in processes: failures are told, others go on, a killed process is no hang."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from eval.pool import Job, run_jobs
from train.options import Stopped

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
    with pytest.raises(Stopped, match=r"a process was killed.*goes on with what is missing"):
        run([Job("killed", die, ())], tmp_path)


def test_nothing_to_do_starts_nothing(tmp_path):
    run([], tmp_path)
    assert not (tmp_path / "log.txt").exists()
