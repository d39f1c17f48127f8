"""Running repeatable calls on executors whose workers may be lost."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest

from gemsdata.shards import slurm_executor
from gemsdata.shards.tasks import WorkerLostError, run_tasks

pytestmark = pytest.mark.once


class Inline(Executor):
    """Runs calls at once, and notes them."""

    def __init__(self) -> None:
        self.calls = []

    def submit(self, fn, /, *args, **kwargs):
        self.calls.append(args)
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def test_results_come_in_the_order_of_the_calls():
    gates = [threading.Event() for _ in range(4)]

    def wait_for_the_next(index):
        if index < 3:
            gates[index + 1].wait(60)
        gates[index].set()
        return index

    ended = []
    with ThreadPoolExecutor(4) as pool:
        assert run_tasks(pool, [(wait_for_the_next, (i,)) for i in range(4)], ended.append) == [0, 1, 2, 3]
    assert sorted(ended) == [0, 1, 2, 3]


def test_a_lost_worker_is_tried_again_and_no_more_than_three_times():
    lost = {"twice": 2, "always": 9}

    def call(name):
        lost[name] = lost.get(name, 0) - 1
        if lost[name] >= 0:
            raise RuntimeError(f"the worker of {name} is lost")
        return name

    executor = Inline()
    assert run_tasks(executor, [(call, ("never",)), (call, ("twice",))], lambda _: None) == ["never", "twice"]
    assert executor.calls.count(("twice",)) == 3
    with pytest.raises(RuntimeError, match="the worker of always is lost"):
        run_tasks(executor, [(call, ("always",))], lambda _: None)
    assert executor.calls.count(("always",)) == 3


@pytest.mark.parametrize("error", [ValueError("no FASTA"), OSError("disk full")])
def test_bad_input_is_not_tried_again(error):
    def call():
        raise error

    executor = Inline()
    with pytest.raises(type(error), match=str(error)):
        run_tasks(executor, [(call, ())], lambda _: None)
    assert len(executor.calls) == 1


def test_the_first_error_cancels_what_has_not_begun():
    begun = []
    raised = threading.Event()

    def call(index):
        begun.append(index)
        if index == 0:
            raise ValueError("0 fails")
        raised.wait(60)

    with ThreadPoolExecutor(1) as pool:
        try:
            with pytest.raises(ValueError, match="0 fails"):
                run_tasks(pool, [(call, (i,)) for i in range(50)], lambda _: None)
        finally:
            raised.set()
    assert begun in ([0], [0, 1])


def test_a_worker_that_is_lost_each_time_is_an_error_of_the_system():
    def call():
        raise WorkerLostError("job 7 left no result")

    executor = Inline()
    with pytest.raises(OSError, match="the worker of a task was lost 3 times: job 7 left no result"):
        run_tasks(executor, [(call, ())], lambda _: None)
    assert len(executor.calls) == 3


def test_a_job_is_lost_when_the_queue_of_slurm_has_not_had_it_twice(tmp_path, monkeypatch):
    queue = tmp_path / "queue"
    (tmp_path / "squeue").write_text(f"#!/bin/sh\nexec cat {queue}\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm_executor, "_QUEUE_S", 0)
    watched = slurm_executor._Queue()
    queue.write_text("1\n2\n")
    assert watched.lost({"1", "2"}) == set()
    queue.write_text("2\n")
    assert watched.lost({"1", "2"}) == set()
    queue.unlink()  # squeue fails
    assert watched.lost({"1", "2"}) == set()
    queue.write_text("2\n")
    assert watched.lost({"1", "2"}) == {"1"}
    monkeypatch.setattr(slurm_executor, "_QUEUE_S", 60)
    queue.write_text("")
    assert watched.lost({"2"}) == set()  # not read again yet
