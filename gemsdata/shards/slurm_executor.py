"""Run calls as the jobs of a Slurm cluster."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from gemsdata.shards.tasks import WorkerLostError

_POLL_S = 1.0
"""interval between two looks for results"""
_QUEUE_S = 10.0
"""interval between two looks at the queue"""


class SlurmExecutor(Executor):
    """Runs calls as Slurm jobs by submitit; a thread looks for finished ones once a second.

    A job that is no longer in the queue and has left no result was lost: its future has a WorkerLostError. The queue is
    read with squeue, as sacct, which submitit reads, needs a cluster with accounting. The option ``cluster="local"``
    runs calls as processes on this machine, for tests.
    """

    def __init__(self, folder: Path, workers: int, options: Mapping[str, Any]) -> None:
        import submitit

        options = dict(options)
        self._executor = submitit.AutoExecutor(folder=folder / "%j", cluster=options.pop("cluster", None))
        try:
            self._executor.update_parameters(**{"slurm_array_parallelism": workers, **options})
        except (NameError, TypeError, ValueError) as error:
            raise ValueError(f"engine slurm: {' '.join(str(error).split())}") from None
        self._jobs: dict[Future[Any], Any] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._queue = _Queue() if self._executor.cluster == "slurm" else None
        self._watcher = threading.Thread(target=self._watch, name="slurm", daemon=True)
        self._watcher.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call as a job; the future has its result, or the exception that it raised.

        Raises ValueError if Slurm does not accept the job.
        """
        import submitit.core.utils

        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            try:
                self._jobs[future] = self._executor.submit(_outcome, fn, args, kwargs)
            except submitit.core.utils.FailedJobError as error:
                reason = [line for line in str(error).splitlines() if line.startswith("sbatch: error")]
                raise ValueError(f"engine slurm: {(reason or [str(error)])[-1]}") from None
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel the remaining jobs, and stop polling for them."""
        self._ended.set()
        if wait:
            self._watcher.join()
        with self._lock:
            for job in self._jobs.values():
                job.cancel(check=False)

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_S):
            with self._lock:
                jobs = dict(self._jobs)
            lost = set() if self._queue is None else self._queue.lost(job.job_id for job in jobs.values())
            for future, job in jobs.items():
                if self._has_ended(job, lost):
                    with self._lock:
                        del self._jobs[future]
                    _finish(future, job)

    def _has_ended(self, job: Any, lost: set[str]) -> bool:
        if self._queue is None:
            return bool(job.done())
        return job.job_id in lost or job.paths.result_pickle.exists()


class _Queue:
    """The jobs of this user that wait or run."""

    def __init__(self) -> None:
        self._read_at = -_QUEUE_S
        self._absent: set[str] = set()

    def lost(self, job_ids: Iterable[str]) -> set[str]:
        """Return which jobs the queue has now not had twice; it is read every `_QUEUE_S`, else none are returned.

        Twice, because a shared folder may show the result of a job some seconds late.
        """
        if time.monotonic() < self._read_at + _QUEUE_S:
            return set()
        self._read_at = time.monotonic()
        command = ["squeue", "--me", "--noheader", "--format=%i"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:  # the controller does not answer
            return set()
        absent = set(job_ids) - set(found.stdout.split())
        twice, self._absent = absent & self._absent, absent
        return twice


def _finish(future: Future[Any], job: Any) -> None:
    """Give a future what its job has left."""
    if not job.paths.result_pickle.exists():
        future.set_exception(WorkerLostError(f"Slurm job {job.job_id} left no result; its log is {job.paths.stderr}"))
        return
    try:
        result, error = job.result()
    except Exception as failure:  # such as a result that cannot be read
        future.set_exception(failure)
    else:
        future.set_result(result) if error is None else future.set_exception(error)


def _outcome(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Exception | None]:
    """Return the result of a call and None, or None and its exception, of which submitit would keep only the text."""
    try:
        return fn(*args, **kwargs), None
    except Exception as error:
        return None, error
