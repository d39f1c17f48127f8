"""The loader: iterates a stream with processes, threads or inline, moves batches to the device, and has the state."""

from __future__ import annotations

import contextlib
import functools
import warnings
import weakref
from collections.abc import Generator, Iterator
from typing import Any, NoReturn

import torch
import torch.distributed
import torch.utils.data

from gemsdata.stream import workers
from gemsdata.stream.batch import to_device
from gemsdata.stream.reused_memory import ReusedMemory
from gemsdata.stream.source import BatchInfo, BatchSource
from gemsdata.stream.state import LoaderState

STAGE_LAG = 128
_PREFETCH = 4
_ENDLESS = 1 << 62

Batch = dict[str, Any]


class Loader(torch.utils.data.DataLoader):
    """Iterates a stream from batch `step` on; one loader per rank.

    Parameters
    ----------
    stream
        what to iterate.
    num_workers
        number of worker processes, or threads; 0 computes every batch on demand.
    threads
        use threads of this process as workers: the kernels release the GIL, and batches are not passed between
        processes.
    prefetch_factor
        batches that each worker computes ahead; default: 4, or as many as ``stage_lag`` allows.
    start_method
        "fork", "spawn" or "forkserver"; default: the system's, and "spawn" for sets at URLs.
    device
        device of the batches; tensors are widened there to int64. None: they stay on the CPU in narrow dtypes: ids
        uint16, labels int16, attention mask uint8.
    num_steps
        length of the run: iteration ends before this step. A loader that was iterated to its end begins again, with the
        same batches, if it is iterated again; one that was resumed at its end stays finished. None: endless.
    stage_lag
        a stage set after batch k takes effect at batch k + stage_lag; must exceed num_workers * prefetch_factor.

    Notes
    -----
    A batch is a dict of input_ids, labels (-100 where there is nothing to predict) and attention_mask, [B, L+2];
    sample_ids int64[B], the rows' numbers in their split (in a mixture after those of the sets before it), -1 for
    padding; and the integers step, epoch, stage.
    """

    def __init__(
        self,
        stream: BatchSource,
        *,
        num_workers: int = 0,
        threads: bool = False,
        prefetch_factor: int | None = None,
        start_method: str | None = None,
        device: str | torch.device | None = "cpu",
        num_steps: int | None = None,
        stage_lag: int = STAGE_LAG,
    ) -> None:
        _refuse_foreign_worker()
        if prefetch_factor is None:
            prefetch_factor = max(1, min(_PREFETCH, (stage_lag - 1) // max(1, num_workers)))
        if num_workers < 0 or prefetch_factor < 1:
            raise ValueError(
                f"num_workers = {num_workers} and prefetch_factor = {prefetch_factor}; give at least 0 and 1"
            )
        if num_steps is not None and num_steps < 0:
            raise ValueError(f"num_steps = {num_steps}; give 0 or more, or None for an endless stream")
        num_processes = 0 if threads else num_workers
        self._worker_dataset = workers.WorkerDataset(stream)
        super().__init__(
            self._worker_dataset,
            batch_size=None,
            num_workers=num_processes,
            prefetch_factor=prefetch_factor if num_processes else None,
            multiprocessing_context=start_method if num_processes else None,
            collate_fn=_unchanged,
        )
        self.stream = stream
        self.num_threads = num_workers if threads else 0
        self.depth = num_workers * prefetch_factor
        """number of batches that are computed ahead"""
        self.steps_per_task = prefetch_factor if stream.prefers_step_ranges else 1
        """number of steps that a thread computes per task"""
        self.device = None if device is None else torch.device(device)
        self.num_steps = num_steps
        self.stage_lag = stage_lag
        self._memory = ReusedMemory()
        self.step = 0
        """step of the next batch"""
        self.perplexities: list[tuple[int, float]] = []
        """observed perplexities: (step, perplexity)"""
        self.num_skipped = 0
        """number of rows that this rank lost to damaged shards since the loader was built"""
        self.end_of_dataloader = False
        """whether the current batch is the last of the run (the name is accelerate's)"""
        self._finished_pass = False
        self._running: weakref.ref[Generator[Batch, None, None]] | None = None
        self.prepared = False
        """whether gemsdata.prepare has registered the loader with accelerate"""
        self.gradient_state: Any = None
        """accelerate's gradient state, which is told when a run begins and ends"""
        self.remainder = -1
        """accelerate's name for the rows that pad the last batch: -1, unknown; padding has sample id -1"""
        if stream.config.curriculum.adaptive:
            self._check_lag()

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in which every row occurs once; the same on all ranks."""
        return self.stream.config.order.steps_per_epoch

    @property
    def stage(self) -> int:
        """Stage of the next batch."""
        return self.stream.stage(self.step)

    def __len__(self) -> int:
        if self.num_steps is None:
            raise TypeError(
                "the stream is endless and has no length: give build_loader num_steps or num_epochs, or use"
                " steps_per_epoch; iterate the Loader itself, as it is not a dataset for DataLoader or Trainer"
            )
        return self.num_steps

    def __getitem__(self, index: object) -> NoReturn:
        raise TypeError(
            "a Loader has no items: it makes whole batches with its own workers; iterate the Loader itself. Do not"
            " wrap it in a DataLoader or give it as train_dataset; docs/stream.md has recipes for accelerate, the"
            " Hugging Face Trainer and Lightning"
        )

    def __repr__(self) -> str:
        config, world = self.stream.config, self.stream.config.world
        length = "no end" if self.num_steps is None else f"{self.num_steps:,}"
        workers = f"{self.num_threads or self.num_workers} worker {'threads' if self.num_threads else 'processes'}"
        return (
            f"Loader: {config.splits[0]} rows of set {config.fingerprint[:12]}, {config.num_rows:,} a batch, rank"
            f" {world.rank} of {world.num_ranks}, {' | '.join(s.name for s in config.curriculum.maskings())}, seed"
            f" {config.seed}\n  step {self.step:,} of {length}, {self.steps_per_epoch:,} an epoch, stage {self.stage};"
            f" {workers}, {self.depth} batches ahead, on {self.device or 'cpu, narrow'}"
        )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Continue at batch `step`; an earlier iterator is closed."""
        _refuse_foreign_worker()
        self.close()
        if self._finished_pass:
            self.step, self._finished_pass = 0, False
        running = self._iterate()
        self._running = weakref.ref(running)
        return running

    def close(self) -> None:
        """Stop the workers; iterating again continues with the next batch."""
        running = self._running() if self._running is not None else None
        self._running = None
        if running is not None:
            running.close()

    def set_stage(self, stage: int) -> int:
        """Switch to ``stage`` (0 or more) exactly ``stage_lag`` batches after the last one; return that step.

        With several ranks under torch.distributed, call it on all of them after the same batch: rank 0 decides.
        """
        curriculum = self.stream.config.curriculum
        if not curriculum.logged:
            raise ValueError(f"curriculum {curriculum.name!r} has a fixed schedule, so its stage cannot be set")
        if stage < 0:
            raise ValueError(f"stage = {stage}; give 0 or more")
        self._check_lag()
        last = max(self.step - 1, 0)
        decided = self._from_rank_0((last, int(stage)))
        if decided[0] != last:
            raise RuntimeError(
                f"rank 0 sets a stage after step {decided[0]}, this rank is at step {last};"
                " call set_stage on every rank after the same batch"
            )
        effective = last + self.stage_lag
        entries = self.stream.log.entries()
        if (entries[-1][1] if entries else 0) != decided[1]:
            self.stream.log.append(effective, decided[1])
        return effective

    def observe(self, perplexity: float) -> int:
        """Report the perplexity of an evaluation to an adaptive curriculum (CM-GEMS); return the stage that it chooses.

        The value of rank 0 is used on all ranks. The history is part of the state.
        """
        value = float(self._from_rank_0(float(perplexity)))
        history = [*self.perplexities, (self.step, value)]
        stage = self.stream.config.curriculum.decide([entry[1] for entry in history])
        self.perplexities = history
        self.set_stage(stage)
        return stage

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last batch: JSON-able, equal on every rank, independent of the topology."""
        return self._state().to_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raise ValueError if it is damaged or of another stream."""
        parsed = LoaderState.parse(state)
        parsed.check_fits(self._state())
        self.stream.check_unchanged()
        self.close()
        self.stream.log.restore(list(parsed.stage_log))
        self.step = parsed.step
        self._finished_pass = False
        self.perplexities = list(parsed.perplexities)

    def _state(self) -> LoaderState:
        config = self.stream.config
        return LoaderState(
            fingerprint=config.fingerprint,
            config_hash=config.config_hash,
            seed=config.seed,
            global_batch=config.order.global_batch,
            step=self.step,
            stage_lag=self.stage_lag,
            stage_log=tuple(self.stream.log.entries()),
            perplexities=tuple(self.perplexities),
        )

    def _iterate(self) -> Generator[Batch, None, None]:
        steps = range(self.step, _ENDLESS if self.num_steps is None else self.num_steps)
        if self.stream.log.detached:
            self.stream.log.at(0)  # raises
        self.stream.check_unchanged()
        with self._known_to_accelerate(), contextlib.closing(self._start(steps)) as batches:
            for batch, info in batches:
                if info.step != self.step:
                    raise RuntimeError(f"batch {info.step} came instead of {self.step}; use one iterator per loader")
                self._count_skipped(info)
                self.step += 1
                self.end_of_dataloader = self.step >= steps.stop
                if self.end_of_dataloader:  # a host that takes len(loader) batches does not ask for the end
                    self._finished_pass = True
                    batches.close()
                    self.stream.check_unchanged()
                yield {**batch, "step": info.step, "epoch": info.epoch, "stage": info.stage}

    def _start(self, steps: range) -> workers.Batches:
        """Start to compute the batches of ``steps``."""
        deliver = functools.partial(to_device, self.stream.layout, device=self.device, memory=self._memory)
        if self.num_threads:
            return workers.in_threads(
                self.stream,
                steps,
                deliver,
                in_main_thread=self.device is not None and self.device.type != "cpu",
                num_threads=self.num_threads,
                depth=self.depth,
                steps_per_task=self.steps_per_task,
            )
        if self.num_workers:
            start_workers = functools.partial(super().__iter__)
            return workers.in_processes(self._worker_dataset, start_workers, steps, deliver, depth=self.depth)
        return workers.inline(self.stream, steps, deliver)

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
        """Return the value of rank 0 if torch.distributed is initialised, else this rank's own."""
        if self.stream.config.world.num_ranks == 1 or not torch.distributed.is_initialized():
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    @property
    def _is_accelerate_prepared(self) -> bool:
        """Whether accelerate regards the loader as prepared; raises RuntimeError before `gemsdata.prepare`."""
        if not self.prepared:
            raise RuntimeError(
                "accelerator.prepare(loader) would shard the stream a second time, and"
                " silently lose rows; call gemsdata.prepare(accelerator, loader) instead, and accelerator.prepare"
                " for the rest"
            )
        return True

    @_is_accelerate_prepared.setter
    def _is_accelerate_prepared(self, value: bool) -> None:
        """Ignore the value that accelerate sets on a loader that it returns unchanged."""


def _refuse_foreign_worker() -> None:
    """Raise RuntimeError in a worker process of any DataLoader: every worker would compute every batch."""
    info = torch.utils.data.get_worker_info()
    if info is not None:
        raise RuntimeError(
            f"gemsdata.Loader is used in worker {info.id} of {info.num_workers} of another DataLoader, so every"
            " worker would yield every batch; build it in the main process and iterate it itself: it has its own"
            " num_workers"
        )


def _unchanged(item: Any) -> Any:
    return item
