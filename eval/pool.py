"""Independent jobs over the cores or the GPUs there are, in processes that keep their imports."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from train.options import Stopped


@dataclass(frozen=True)
class Job:
    """One piece of work: ``run(*arguments)`` in a process of its own; what it returns is dropped."""

    name: str
    """by which a failure is reported"""
    run: Callable[..., Any]
    """a module's function, so that a fresh process can import it"""
    arguments: tuple[Any, ...]


def default_workers() -> int:
    """Return one worker a GPU where there are GPUs, else one a core."""
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def threads_of_each(workers: int) -> int:
    """Return how many cores a worker may use, at least 1."""
    return max(1, len(os.sched_getaffinity(0)) // workers)


def run_jobs(jobs: Sequence[Job], *, workers: int, label: str, log: Path) -> None:
    """Run all jobs, ``workers`` at a time; what has been done stays done when one fails.

    What the jobs print is appended to the file ``log``.

    Raises
    ------
    Stopped
        when jobs failed, after all others have run, with the first one's message; or when a process was killed.
    """
    if not jobs:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    silent = not sys.stderr.isatty()
    failures: list[tuple[str, str]] = []
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_settle, initargs=(numbers, log))
    try:
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
                if silent:
                    print(f"{label} {number}/{len(jobs)}: {job.name}", file=sys.stderr, flush=True)
    except BrokenProcessPool as error:
        raise Stopped(
            f"a process was killed, perhaps for want of memory; the same command goes on with what is missing, fewer"
            f" --workers need less memory; what they printed is in {log}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    if failures:
        name, message = failures[0]
        raise Stopped(f"{len(failures)} of {len(jobs)} jobs failed; {name}: {message}")


def _settle(numbers: multiprocessing.queues.SimpleQueue[int], log: Path) -> None:
    """Send what this process prints to the log, end with the parent, take a GPU where there are several."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    number = numbers.get()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    if len(devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]


def _end_with(sentinel: int) -> None:
    """End this process when its parent has ended, however that was."""
    wait([sentinel])
    os._exit(1)
