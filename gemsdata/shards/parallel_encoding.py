"""Encode the parts of a planned shard set on an executor, whose workers open the plan by its folder."""

from __future__ import annotations

import functools
from concurrent.futures import Executor

from gemsdata.files.progress import Progress, no_progress
from gemsdata.shards.encode import encode_part, finished_part
from gemsdata.shards.plan import Part, Plan, open_plan
from gemsdata.shards.tasks import run_tasks

_TASKS_PER_WORKER = 4
"""so that fast workers can take more tasks"""


def encode_on(
    executor: Executor, plan: Plan, parts: list[Part], *, workers: int, progress: Progress = no_progress
) -> None:
    """Encode the parts that are not on disk yet with tasks that ``executor`` runs, ``workers`` at a time.

    A task encodes several parts, so that starting a process for it is worthwhile. All workers must see the folder of
    the plan. Raises ValueError and OSError as `encode_part` does, and the executor's exceptions for lost workers.
    """
    groups = part_groups(parts, workers)
    total = sum(part.num_rows for part in parts)
    calls = [(_encode_group, (str(plan.folder), plan.parts_folder, [part.name for part in group])) for group in groups]
    run_tasks(
        executor,
        calls,
        lambda index: progress("writing", sum(part.num_rows for part in groups[index]), total),
    )


def part_groups(parts: list[Part], workers: int) -> list[list[Part]]:
    """Divide parts among the tasks of ``workers`` workers."""
    num_tasks = min(len(parts), _TASKS_PER_WORKER * max(workers, 1))
    return [parts[index::num_tasks] for index in range(num_tasks)]


def _encode_group(folder: str, parts_folder: str, names: list[str]) -> None:
    plan = _opened_plan(folder, parts_folder)
    wanted = set(names)
    for part in plan.parts:
        if part.name in wanted and finished_part(plan, part) is None:
            encode_part(plan, part)


@functools.lru_cache(maxsize=1)
def _opened_plan(folder: str, parts_folder: str) -> Plan:
    """Open a plan once for all tasks of a worker process; raise ValueError if the folder contains another one."""
    plan = open_plan(folder)
    if plan.parts_folder != parts_folder:
        raise ValueError(f"{folder} holds the plan {plan.parts_folder}, not {parts_folder}: it was planned again")
    return plan
