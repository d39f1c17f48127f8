"""Run independent, repeatable calls on an executor whose workers may be lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

_MOST_TRIES = 3
"""number of attempts for a call whose worker is lost"""


class WorkerLostError(RuntimeError):
    """The worker that ran a call was lost, and the call may be repeated."""


def run_tasks(
    executor: Executor,
    calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]],
    done: Callable[[int], None],
) -> list[Any]:
    """Run ``calls`` (function, arguments) and return their results in order.

    ``done`` is called with the index of each call that has ended. A call that raises another exception than ValueError
    or OSError (bad input, disk) is assumed to have lost its worker, and is tried up to `_MOST_TRIES` times; so calls
    must be repeatable. The first exception cancels the calls that have not begun, and is raised; a WorkerLostError
    becomes an OSError.
    """
    results: list[Any] = [None] * len(calls)
    tries = [1] * len(calls)
    running: dict[Future[Any], int] = {
        executor.submit(function, *arguments): index for index, (function, arguments) in enumerate(calls)
    }
    try:
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                index = running.pop(future)
                error = future.exception()
                if error is None:
                    results[index] = future.result()
                    done(index)
                elif isinstance(error, WorkerLostError) and tries[index] == _MOST_TRIES:
                    raise OSError(f"the worker of a task was lost {_MOST_TRIES} times: {error}")
                elif isinstance(error, (ValueError, OSError)) or tries[index] == _MOST_TRIES:
                    raise error
                else:
                    tries[index] += 1
                    function, arguments = calls[index]
                    running[executor.submit(function, *arguments)] = index
    finally:
        for future in running:
            future.cancel()
    return results
