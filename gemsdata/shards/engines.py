"""Engines that run the tasks of sharding: local threads, Ray, Dask, Slurm; each is a `concurrent.futures.Executor`.

Workers on other machines must see the output folder under the same path and have gemsdata installed.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gemsdata.files.extras import missing_module

ENGINES = ("local", "ray", "dask", "slurm")


@contextlib.contextmanager
def open_engine(name: str, workers: int, options: Mapping[str, str], scratch: Path) -> Iterator[Executor]:
    """Open an executor that runs up to ``workers`` tasks at a time, and close it at the end.

    Parameters
    ----------
    name
        one of `ENGINES`.
    workers
        tasks at a time.
    options
        "ray": arguments of ``ray.init``, such as ``address=auto``; without them a cluster of this machine is started.
        "dask": ``address=`` or ``scheduler_file=`` of a running scheduler, else arguments of ``LocalCluster``.
        "slurm": parameters of submitit, such as ``slurm_partition=cpu`` and ``timeout_min=60``.
    scratch
        folder for the logs of Slurm jobs; all machines must see it.

    Raises
    ------
    ValueError
        for an unknown engine or option.
    ImportError
        if the package of the engine is missing.
    """
    if name not in ENGINES:
        raise ValueError(f"engine {name!r} is unknown; choose one of {', '.join(ENGINES)}")
    if name == "local" and options:
        raise ValueError(f"engine local has no option {min(options)!r}; options are for ray, dask and slurm")
    opened = {"local": _threads, "ray": _ray, "dask": _dask, "slurm": _slurm}[name]
    values = {key: _value(text) for key, text in options.items()}
    try:
        with opened(workers, values, scratch) as executor:
            yield executor
    except ModuleNotFoundError as error:
        if error.name not in ("ray", "distributed", "submitit"):
            raise
        raise missing_module(error, f"--engine {name}") from None


@contextlib.contextmanager
def _threads(workers: int, options: Mapping[str, Any], scratch: Path) -> Iterator[Executor]:
    with ThreadPoolExecutor(max(workers, 1), thread_name_prefix="shard") as pool:
        yield pool


@contextlib.contextmanager
def _ray(workers: int, options: Mapping[str, Any], scratch: Path) -> Iterator[Executor]:
    import ray

    own = "address" not in options
    defaults = {"num_cpus": workers, "include_dashboard": False} if own else {}
    _check_options("ray", options, ray.init)
    if not ray.is_initialized():
        ray.init(**{"log_to_driver": False, "logging_level": "ERROR", **defaults, **options})
    try:
        yield RayExecutor()
    finally:
        if own:
            ray.shutdown()


@contextlib.contextmanager
def _dask(workers: int, options: Mapping[str, Any], scratch: Path) -> Iterator[Executor]:
    from distributed import Client, LocalCluster

    if "address" in options or "scheduler_file" in options:
        _check_options("dask", options, Client)
        with Client(**options) as client:
            yield client.get_executor()
        return
    _check_options("dask", options, LocalCluster)
    defaults = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**{**defaults, **options}) as cluster, Client(cluster) as client:
        yield client.get_executor()


@contextlib.contextmanager
def _slurm(workers: int, options: Mapping[str, Any], scratch: Path) -> Iterator[Executor]:
    from gemsdata.shards.slurm_executor import SlurmExecutor

    with SlurmExecutor(scratch, workers, options) as executor:
        yield executor


class RayExecutor(Executor):
    """Runs calls as Ray tasks, on the cluster that ``ray.init`` has connected to; Ray runs a lost task again."""

    def __init__(self, **task_options: Any) -> None:
        import ray

        self._task = ray.remote(**{"max_retries": 3, "num_cpus": 1, **task_options})(_call)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a call; the future has its result, or the exception that it raised."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()

        def finish(task: Future[Any]) -> None:
            error = task.exception()
            if error is None:
                future.set_result(task.result())
            else:
                future.set_exception(getattr(error, "cause", None) or error)

        self._task.remote(fn, args, kwargs).future().add_done_callback(finish)
        return future


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


def _value(text: str) -> Any:
    """Return the text as an int or a bool if it is one, else unchanged."""
    if text.isdecimal():
        return int(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def _check_options(engine: str, options: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Raise ValueError for an option that the function has no argument for."""
    known = inspect.signature(function).parameters
    for name in options:
        if name not in known:
            raise ValueError(f"engine {engine} has no option {name!r}; it takes the arguments of {function.__name__}")
