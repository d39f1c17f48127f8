"""Compute batches ahead: in threads, in processes that write to shared memory, or inline without workers."""

from __future__ import annotations

import collections
import gc
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.data

from gemsdata.files.mapped import install_handler
from gemsdata.stream.batch import BufferedBatch, PendingBatch
from gemsdata.stream.source import BatchInfo, BatchSource

Tensors = dict[str, torch.Tensor]
Deliver = Callable[[PendingBatch], Tensors]
"""makes the tensors of a batch that was computed"""
Batches = Generator[tuple[Tensors, BatchInfo], None, None]
_SLOT_ALIGNMENT = 64


def inline(source: BatchSource, steps: range, deliver: Deliver) -> Batches:
    """Compute each batch on demand."""
    for step in steps:
        for pending, info in source.compute(range(step, step + 1)):
            yield deliver(pending), info


def in_threads(
    source: BatchSource,
    steps: range,
    deliver: Deliver,
    *,
    in_main_thread: bool,
    num_threads: int,
    depth: int,
    steps_per_task: int,
) -> Batches:
    """Compute ``depth`` batches ahead in threads; a task starts when the last batch of an earlier one is taken.

    ``in_main_thread``: call ``deliver`` in the thread that takes the batch, because each thread has its own current
    device.
    """
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="gemsdata")
    tasks: collections.deque[Future[list[tuple[Any, BatchInfo]]]] = collections.deque()
    deliver_there, deliver_here = (_unchanged, deliver) if in_main_thread else (deliver, _unchanged)

    def compute(task: range) -> list[tuple[Any, BatchInfo]]:
        return [(deliver_there(pending), info) for pending, info in source.compute(task)]

    def begin(first: int) -> None:
        if first < steps.stop:
            tasks.append(pool.submit(compute, range(first, min(first + steps_per_task, steps.stop))))

    try:
        for first in range(steps.start, steps.start + depth, steps_per_task):
            begin(first)
        for first in range(steps.start, steps.stop, steps_per_task):
            batches = tasks.popleft().result()
            for batch, info in batches[:-1]:
                yield deliver_here(batch), info
            begin(first + depth)
            batch, info = batches[-1]
            yield deliver_here(batch), info
    finally:
        source.interrupt()
        pool.shutdown(cancel_futures=True)


def _unchanged(batch: Any) -> Any:
    return batch


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """The parameters that worker processes receive when they start."""

    steps: range
    ring: torch.Tensor
    """anonymous shared memory, uint8[num_slots, layout.num_bytes or more]; batch s lies in slot s % num_slots"""


class WorkerDataset(torch.utils.data.IterableDataset):
    """The dataset of a `Loader`'s worker processes: worker w of W computes every W-th batch from the w-th on."""

    def __init__(self, source: BatchSource) -> None:
        self.source = source
        self.plan: WorkerPlan | None = None

    def __iter__(self) -> Iterator[BatchInfo]:
        """Write this worker's batches to the ring; raise RuntimeError except in a worker of a `Loader`."""
        plan, info = self.plan, torch.utils.data.get_worker_info()
        if plan is None or info is None or info.dataset is not self:
            raise RuntimeError(
                "this stream is iterated by something other than gemsdata.Loader, which would repeat or lose batches,"
                " or apply a stage switch too late. Iterate the loader of gemsdata.build_loader; with accelerate, call"
                " gemsdata.prepare(accelerator, loader) instead of accelerator.prepare(loader)"
            )
        ring = plan.ring.numpy()
        gc.freeze()  # leave the parent's garbage alone: a DuckDB connection would join threads that do not exist here
        _end_with_parent()
        install_handler()  # torch's handler in workers reports a truncated shard as a lack of shared memory
        for step in plan.steps[info.id :: info.num_workers]:
            yield self.source.fill(step, ring[step % len(ring), : self.source.layout.num_bytes])


def _end_with_parent() -> None:
    """End this worker as soon as the process that started it has ended.

    Torch's workers look for another parent of theirs every few seconds; started by a fork server they have that one as
    their parent, which does not end before they do.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        arguments = (parent.sentinel,)
        threading.Thread(target=_exit_after, args=arguments, name="gemsdata-parent", daemon=True).start()


def _exit_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def in_processes(
    dataset: WorkerDataset,
    start_workers: Callable[[], Iterator[BatchInfo]],
    steps: range,
    deliver: Deliver,
    *,
    depth: int,
) -> Batches:
    """Yield batches from the ring buffer that worker processes write to.

    Batch s + depth is requested when batch s is taken, before it is copied, so depth + 1 slots are enough.
    """
    layout = dataset.source.layout
    slot_bytes = -(-layout.num_bytes // _SLOT_ALIGNMENT) * _SLOT_ALIGNMENT
    ring = torch.zeros((depth + 1, slot_bytes), dtype=torch.uint8).share_memory_()
    dataset.plan = WorkerPlan(steps=steps, ring=ring)
    slots = ring.numpy()
    workers = start_workers()
    try:
        for info in workers:
            buffer = slots[info.step % len(slots)][: layout.num_bytes]
            yield deliver(BufferedBatch(layout=layout, buffer=buffer, owned=False)), info
    finally:
        dataset.plan = None
        shutdown = getattr(workers, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()
