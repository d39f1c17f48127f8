"""The loader: runs a stream in processes, threads or inline, widens batches on the device, keeps the state."""

from __future__ import annotations

import collections
import contextlib
import warnings
import weakref
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed
import torch.utils.data

from gemsdata.stream.batch import Packed, Parcel
from gemsdata.stream.stream import BatchInfo, MaskedStream, WorkerPlan
from gemsdata.stream.to_device import deliver

STATE_VERSION = 1
STAGE_LAG = 128
_ENDLESS = 1 << 62

Batch = dict[str, Any]


class Loader(torch.utils.data.DataLoader):
    """Iterates a stream from `step` on; one loader per rank.

    Parameters
    ----------
    stream
        what to iterate.
    num_workers
        worker processes, or threads; 0 computes every batch when it is asked for.
    threads
        work in threads of this process: the kernels release the GIL, and no batch changes processes.
    prefetch_factor
        batches that each worker computes ahead.
    start_method
        "fork", "spawn" or "forkserver"; default: the system's.
    device
        where batches go; tensors are widened there to int64. None: they stay as they travelled, on the CPU: ids uint16,
        labels int16, attention mask uint8.
    num_steps
        length of the run: iteration ends before this step, and begins anew when it is started once more. None: endless.
    stage_lag
        a stage set after batch k holds from batch k + stage_lag on; more than num_workers * prefetch_factor.

    Notes
    -----
    A batch is a dict of input_ids, labels (-100 where nothing is to be guessed) and attention_mask, [B, L+2];
    sample_ids int64[B], the rows' numbers in their split (in a mixture after those of the sets before it), -1 for
    padding; and the integers step, epoch, stage.
    """

    def __init__(
        self,
        stream: MaskedStream,
        *,
        num_workers: int = 0,
        threads: bool = False,
        prefetch_factor: int = 2,
        start_method: str | None = None,
        device: str | torch.device | None = "cpu",
        num_steps: int | None = None,
        stage_lag: int = STAGE_LAG,
    ) -> None:
        if num_workers < 0 or prefetch_factor < 1:
            raise ValueError(
                f"num_workers = {num_workers} and prefetch_factor = {prefetch_factor}; give at least 0 and 1"
            )
        if num_steps is not None and num_steps < 0:
            raise ValueError(f"num_steps = {num_steps}; give 0 or more, or None for an endless stream")
        num_processes = 0 if threads else num_workers
        super().__init__(
            stream,
            batch_size=None,
            num_workers=num_processes,
            prefetch_factor=prefetch_factor if num_processes else None,
            multiprocessing_context=start_method if num_processes else None,
            collate_fn=_as_it_is,
        )
        self.stream = stream
        self.num_threads = num_workers if threads else 0
        self.depth = num_workers * prefetch_factor
        """how many batches are on their way while one is used"""
        self.stretch = prefetch_factor if stream.in_stretches else 1
        """how many steps a thread computes in one go"""
        self.device = None if device is None else torch.device(device)
        self.num_steps = num_steps
        self.stage_lag = stage_lag
        self.step = 0
        """of the batch that comes next"""
        self.perplexities: list[tuple[int, float]] = []
        """what was observed: (step, perplexity)"""
        self.num_skipped = 0
        """rows that this rank lost to damaged shards since the loader was built"""
        self.end_of_dataloader = False
        """whether the batch that is being used is the last of the run (the name is accelerate's)"""
        self._exhausted = False
        self._running: weakref.ref[Generator[Batch, None, None]] | None = None
        self.prepared = False
        """whether gemsdata.prepare has made it known to accelerate"""
        self.gradient_state: Any = None
        """accelerate's, which is told when a run begins and ends"""
        self.remainder = -1
        """accelerate's name for rows that fill up the last batch: not known to it; padding has sample id -1"""
        if stream.curriculum.adaptive:
            self._check_lag()

    @property
    def steps_per_epoch(self) -> int:
        """Batches that show every row once; the same on all ranks."""
        return self.stream.order.steps_per_epoch

    @property
    def stage(self) -> int:
        """Stage of the batch that comes next."""
        return self.stream.stage(self.step)

    def __len__(self) -> int:
        if self.num_steps is None:
            raise TypeError("the stream is endless; give num_steps or num_epochs, or see steps_per_epoch")
        return self.num_steps

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Go on at `step`; an iterator that was left before is closed."""
        self.close()
        if self._exhausted:
            self.step, self._exhausted = 0, False
        running = self._iterate()
        self._running = weakref.ref(running)
        return running

    def close(self) -> None:
        """Stop the workers; iterating again goes on with the next batch."""
        running = self._running() if self._running is not None else None
        self._running = None
        if running is not None:
            running.close()

    def set_stage(self, stage: int) -> int:
        """Switch to ``stage`` (0 or more) at exactly ``stage_lag`` batches after the last one; return that step.

        With several ranks under torch.distributed, call it on all of them after the same batch: rank 0 decides.
        """
        curriculum = self.stream.curriculum
        if not curriculum.logged:
            raise ValueError(f"curriculum {curriculum.name!r} is known in advance, so its stage cannot be set")
        if stage < 0:
            raise ValueError(f"stage = {stage}; give 0 or more")
        self._check_lag()
        last = max(self.step - 1, 0)
        decided = self._from_rank_0((last, int(stage)))
        if decided[0] != last:
            raise RuntimeError(
                f"rank 0 sets a stage after step {decided[0]}, this rank stands at step {last};"
                " call set_stage on every rank after the same batch"
            )
        effective = last + self.stage_lag
        entries = self.stream.log.entries()
        if (entries[-1][1] if entries else 0) != decided[1]:
            self.stream.log.append(effective, decided[1])
        return effective

    def observe(self, perplexity: float) -> int:
        """Tell an adaptive curriculum (CM-GEMS) the perplexity of an evaluation; return the stage that it decides on.

        Rank 0's value counts. The history is part of the state.
        """
        value = float(self._from_rank_0(float(perplexity)))
        history = [*self.perplexities, (self.step, value)]
        stage = self.stream.curriculum.decide([entry[1] for entry in history])
        self.perplexities = history
        self.set_stage(stage)
        return stage

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands after the last batch: JSON-able, the same on every rank, no topology in it."""
        return {
            "version": STATE_VERSION,
            "fingerprint": self.stream.fingerprint,
            "recipe": self.stream.recipe,
            "seed": self.stream.seed,
            "global_batch": self.stream.order.global_batch,
            "step": self.step,
            "stage_lag": self.stage_lag,
            "stage_log": [list(entry) for entry in self.stream.log.entries()],
            "perplexities": [list(entry) for entry in self.perplexities],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` stands; raise ValueError when it is of another stream."""
        if state.get("version", 0) > STATE_VERSION:
            raise ValueError(
                f"the state has version {state['version']}; this gemsdata reads up to {STATE_VERSION}: upgrade it"
            )
        own = self.state_dict()
        lacking = sorted(own.keys() - state.keys())
        if lacking:
            raise ValueError(f"the state lacks {', '.join(lacking)}; give what Loader.state_dict returned")
        what_to_do = {
            "fingerprint": "open the shard set that the run began with",
            "seed": "pass that seed to build_loader",
            "global_batch": "pass global_batch_size to build_loader, or a batch_size that fits the number of ranks",
            "recipe": "pass the masking, curriculum, split, remainder, shuffle, weights and so on of that run",
            "stage_lag": "pass that stage_lag to build_loader",
        }
        for name, advice in what_to_do.items():
            if state[name] != own[name]:
                raise ValueError(f"the state has {name} {state[name]}, this loader has {own[name]}; {advice}")
        self.close()
        self.step = int(state["step"])
        self._exhausted = False
        self.stream.log.restore([(entry[0], entry[1]) for entry in state["stage_log"]])
        self.perplexities = [(int(step), float(value)) for step, value in state["perplexities"]]

    def _iterate(self) -> Generator[Batch, None, None]:
        start = self.step
        stop = _ENDLESS if self.num_steps is None else self.num_steps
        if self.stream.log.detached:
            self.stream.log.at(0)  # raises
        produce = self._from_threads if self.num_threads else self._from_processes if self.num_workers else self._inline
        with self._known_to_accelerate(), contextlib.closing(produce(start, stop)) as batches:
            for parcel, info in batches:
                if info.step != self.step:
                    raise RuntimeError(f"batch {info.step} came where {self.step} was due; one loader, one iterator")
                batch = deliver(self.stream.layout, parcel, self.device)
                self._count_skipped(info)
                self.step += 1
                self.end_of_dataloader = self.step >= stop
                yield {**batch, "step": info.step, "epoch": info.epoch, "stage": info.stage}
        self._exhausted = self.step > start  # a run that was resumed at its end stays finished

    @contextlib.contextmanager
    def _known_to_accelerate(self) -> Iterator[None]:
        self.end_of_dataloader = False
        if self.gradient_state is None:
            yield
            return
        self.gradient_state._add_dataloader(self)
        try:
            yield
        finally:
            self.gradient_state._remove_dataloader(self)

    def _inline(self, start: int, stop: int) -> Generator[tuple[Parcel, BatchInfo], None, None]:
        for step in range(start, stop):
            yield from self.stream.compute(range(step, step + 1))

    def _from_threads(self, start: int, stop: int) -> Generator[tuple[Parcel, BatchInfo], None, None]:
        """Compute stretches of steps ahead; the next one is begun when the last batch of the first of them is taken."""
        pool = ThreadPoolExecutor(self.num_threads, thread_name_prefix="gemsdata")
        ahead: collections.deque[Future[list[tuple[Parcel, BatchInfo]]]] = collections.deque()

        def begin(first: int) -> None:
            if first < stop:
                ahead.append(pool.submit(self.stream.compute, range(first, min(first + self.stretch, stop))))

        try:
            for first in range(start, start + self.depth, self.stretch):
                begin(first)
            for first in range(start, stop, self.stretch):
                batches = ahead.popleft().result()
                yield from batches[:-1]
                begin(first + self.depth)
                yield batches[-1]
        finally:
            self.stream.interrupt()
            pool.shutdown(cancel_futures=True)

    def _from_processes(self, start: int, stop: int) -> Generator[tuple[Parcel, BatchInfo], None, None]:
        """Take batches out of a ring of slots in anonymous shared memory, into which the workers write.

        Batch s + depth is ordered when batch s is taken, before it is copied out, so depth + 1 slots are enough.
        """
        num_bytes = self.stream.layout.num_bytes
        slots = -(-num_bytes // 64) * 64
        ring = torch.zeros((self.depth + 1, slots), dtype=torch.uint8).share_memory_()
        self.stream.plan = WorkerPlan(start=start, stop=stop, ring=ring)
        views = ring.numpy()
        workers = super().__iter__()
        try:
            for info in workers:
                buffer = views[info.step % len(views)][:num_bytes]
                yield Packed(layout=self.stream.layout, buffer=buffer, fresh=False), info
        finally:
            self.stream.plan = None
            shutdown = getattr(workers, "_shutdown_workers", None)
            if shutdown is not None:
                shutdown()

    def _count_skipped(self, info: BatchInfo) -> None:
        if info.num_skipped and not self.num_skipped:
            warnings.warn(
                f"rows of damaged shards are skipped, first at step {info.step}: {info.why_skipped}", stacklevel=3
            )
        self.num_skipped += info.num_skipped

    def _check_lag(self) -> None:
        if self.stage_lag <= self.depth:
            raise ValueError(
                f"stage_lag = {self.stage_lag} does not exceed the {self.depth} batches that workers are ahead"
                " (num_workers * prefetch_factor); give a larger stage_lag or a smaller prefetch_factor"
            )

    def _from_rank_0(self, value: Any) -> Any:
        """Return rank 0's value where ranks can talk, else the own one."""
        if self.stream.world.num_ranks == 1 or not torch.distributed.is_initialized():
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    @property
    def _is_accelerate_prepared(self) -> bool:
        """What accelerate asks of every DataLoader before it wraps it."""
        if not self.prepared:
            raise RuntimeError(
                "accelerator.prepare(loader) would shard or dispatch a second time a stream that shards itself, and"
                " lose rows without a word; call gemsdata.prepare(accelerator, loader) instead, and accelerator.prepare"
                " for the rest"
            )
        return True

    @_is_accelerate_prepared.setter
    def _is_accelerate_prepared(self, value: bool) -> None:
        """Accelerate says so after it passed a prepared loader through."""


def _as_it_is(item: Any) -> Any:
    return item
