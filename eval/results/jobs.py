"""Independent jobs in a pool of processes, one per GPU or core."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gemsdata.cli.output import is_quiet
from train.program import Stopped, num_cores

CONTINUES = "complete runs are kept; the same command continues with the others"
"""what an interrupted evaluation says"""


@dataclass(frozen=True)
class Job:
    """A call ``run(*arguments)`` for a process of the pool; its return value is discarded."""

    name: str
    """shown in progress and error messages"""
    run: Callable[..., Any]
    """a module-level function, which a new process can import"""
    arguments: tuple[Any, ...]


def default_workers() -> int:
    """Return the number of GPUs, or of cores if there is no GPU."""
    return torch.cuda.device_count() or num_cores()


def threads_of_each(workers: int) -> int:
    """Return the number of cores for each worker, at least 1."""
    return max(1, num_cores() // workers)


def run_jobs(jobs: Sequence[Job], *, workers: int, label: str, log: Path) -> None:
    """Run all jobs, ``workers`` at a time, even if one of them fails.

    The output of the jobs is appended to the file ``log``.

    Raises
    ------
    Stopped
        if jobs failed, after all others have run, with the message of the first; or if a process was killed.
    """
    if not jobs:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    silent = is_quiet() or not sys.stderr.isatty()
    failures: list[tuple[str, str]] = []
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_start_worker, initargs=(numbers, log))
    try:
        with (
            _interrupts_blocked()
        ):  # processes inherit it, and print nothing when they are interrupted in their imports
            futures: dict[Future[Any], Job] = {pool.submit(job.run, *job.arguments): job for job in jobs}
        with tqdm(total=len(jobs), desc=label, unit="job", dynamic_ncols=True, disable=silent) as bar:
            for number, future in enumerate(as_completed(futures), start=1):
                job, error = futures[future], future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise error
                if error is not None:
                    failures.append((job.name, f"{type(error).__name__}: {error}"))
                bar.update()
                bar.set_postfix_str(job.name)
                if silent and not is_quiet():
                    print(f"{label} {number}/{len(jobs)}: {job.name}", file=sys.stderr, flush=True)
    except BrokenProcessPool as error:
        raise Stopped(
            f"a process was killed, perhaps because memory ran out; run the same command again to continue, with fewer"
            f" --workers to use less memory; the output of the processes is in {log}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    if failures:
        name, message = failures[0]
        raise Stopped(f"{len(failures)} of {len(jobs)} jobs failed; {name}: {message}")


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Keep SIGINT waiting until the context is left."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(numbers: multiprocessing.queues.SimpleQueue[int], log: Path) -> None:
    """Redirect the output to the log, end when the parent ends, and select a GPU if there are several."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    except KeyboardInterrupt:
        os._exit(1)  # the parent was interrupted, too, and says so
    number = numbers.get()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    if len(devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]


def _exit_with(sentinel: int) -> None:
    """End this process when its parent has ended, even if it was killed."""
    wait([sentinel])
    os._exit(1)
