"""The stream of masked batches: batch s is a pure function of (shard sets, seed, global batch, options, s, stage log).

Nothing else enters: no worker or rank number beyond the choice of slots, no prefetch depth, no order of calls. Worker
w of W computes batches w, w + W, ... of its rank.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.utils.data

from gemsdata.kernels.gather import draw_below
from gemsdata.kernels.keys import key_of, keys_of
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.masking.curriculum import Curriculum
from gemsdata.masking.masker import Masker
from gemsdata.shards.manifest import Manifest
from gemsdata.stream.batch import BatchLayout, Packed, Parcel
from gemsdata.stream.mixture import Mixture
from gemsdata.stream.order import PADDING, Order, Run
from gemsdata.stream.reader import SplitReader
from gemsdata.stream.stage_log import StageLog
from gemsdata.stream.world import World


@dataclass(frozen=True, kw_only=True)
class BatchInfo:
    """What a batch says of itself, besides its arrays."""

    step: int
    epoch: int
    """of the first row of the global batch; of a mixture: complete passes over every set before the batch"""
    stage: int
    num_skipped: int = 0
    """rows of this rank's batch that were lost to damaged shards"""
    why_skipped: str = ""


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """What the loader tells its workers when it starts them."""

    start: int
    stop: int
    ring: torch.Tensor
    """anonymous shared memory, uint8[num_slots, layout.num_bytes]; batch s lies in slot s % num_slots"""


class MaskedStream(torch.utils.data.IterableDataset):
    """An endless, step-indexed stream of masked batches, iterated through `gemsdata.Loader`.

    Parameters
    ----------
    readers
        one for each shard set; all of the same k and row length.
    order
        which rows form batch s.
    curriculum
        which masking at which step.
    ranks
        NPMI rank of every token id for each set, integers[4**k + 5].
    seed
        of the order, the strands and the masks.
    reverse_complement
        probability that a row is shown as its reverse complement, drawn anew in every epoch.
    world
        rank and number of ranks.
    """

    in_stretches: ClassVar[bool] = False
    """whether `compute` is quicker for several steps at a time"""

    def __init__(
        self,
        readers: Sequence[SplitReader],
        order: Order | Mixture,
        curriculum: Curriculum,
        *,
        ranks: Sequence[np.ndarray],
        seed: int,
        reverse_complement: float = 0.0,
        world: World,
    ) -> None:
        super().__init__()
        if not 0 <= reverse_complement <= 1:
            raise ValueError(f"reverse_complement = {reverse_complement}; give a probability, 0 to 1")
        shapes = {(reader.shards.k, reader.row_tokens) for reader in readers}
        if len(shapes) > 1:
            raise ValueError(f"shard sets of different (k, row tokens) cannot be mixed: {sorted(shapes)}")
        self.order, self.curriculum, self.world, self.seed = order, curriculum, world, seed
        self.reverse_complement = reverse_complement
        self.log = StageLog()
        self._readers = list(readers)
        self._maskers = [
            [Masker(masking, ranks=table, seed=seed) for masking in curriculum.maskings()] for table in ranks
        ]
        self._first_id = np.concatenate([[0], np.cumsum([reader.num_rows for reader in readers])]).tolist()
        self.row_tokens, self.k = readers[0].row_tokens, readers[0].shards.k
        empty = self._maskers[0][0].empty_batch(0, self.row_tokens)
        self.layout = BatchLayout(
            num_rows=len(world.share(order.global_batch)),
            width=self.row_tokens + 2,
            id_dtype=empty["input_ids"].dtype.name,
            label_dtype=empty["labels"].dtype.name,
        )
        if not self.layout.num_rows:
            raise ValueError(
                f"a global batch of {order.global_batch} rows leaves none for rank {world.rank} of {world.num_ranks};"
                " give a larger one"
            )
        self.plan: WorkerPlan | None = None

    @property
    def fingerprint(self) -> str:
        """Identity of the data: the shard set's fingerprint, or a hash of those of all sets."""
        return fingerprint_of([reader.shards.manifest for reader in self._readers])

    @property
    def recipe(self) -> str:
        """Identity of what is done with the data: 16 hex digits over every option that a batch depends on."""
        content = {
            "splits": [reader.split for reader in self._readers],
            "order": repr(self.order),
            "curriculum": self.curriculum.describe(),
            "reverse_complement": self.reverse_complement,
            "ranks": [hashlib.sha256(maskers[0].ranks.tobytes()).hexdigest() for maskers in self._maskers],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def stage(self, step: int) -> int:
        """Return the stage of batch ``step`` as things stand."""
        return self.curriculum.stage(step, self.log.at(step), self.seed)

    def fill(self, step: int, buffer: np.ndarray, stage: int | None = None) -> BatchInfo:
        """Write this rank's batch ``step`` to ``buffer`` (uint8[layout.num_bytes]) as ``layout.views`` shows it.

        ``stage``: default as things stand.
        """
        views = self.layout.views(buffer)
        stage = self.stage(step) if stage is None else stage
        num_skipped, why = 0, ""
        for run in self.order.runs(step, self.world):
            lost, reason = self._fill_run(run, stage, views)
            num_skipped, why = num_skipped + lost, why or reason
        return BatchInfo(step=step, epoch=self.order.epoch(step), stage=stage, num_skipped=num_skipped, why_skipped=why)

    def compute(self, steps: range) -> list[tuple[Parcel, BatchInfo]]:
        """Return this rank's batches ``steps``."""
        batches: list[tuple[Parcel, BatchInfo]] = []
        for step in steps:
            parcel = Packed(layout=self.layout, buffer=self.layout.empty(), fresh=True)
            batches.append((parcel, self.fill(step, parcel.buffer)))
        return batches

    def interrupt(self) -> None:
        """Make calls of `compute` that wait for something give up; none does here."""

    def _fill_run(self, run: Run, stage: int, views: dict[str, np.ndarray]) -> tuple[int, str]:
        reader, maskers = self._readers[run.source], self._maskers[run.source]
        masker = maskers[min(stage, len(maskers) - 1)]
        row_ids, count = run.row_ids, run.row_ids.size
        sample_ids = row_ids + self._first_id[run.source]
        input_ids = np.empty((count, self.row_tokens), self.layout.id_dtype)
        num_tokens = np.empty(count, np.uint16)
        lost, why = reader.read(row_ids, self._flips(run.epoch, sample_ids), input_ids, num_tokens)
        scattered = not isinstance(run.slots, slice)
        out = (
            masker.empty_batch(count, self.row_tokens)
            if scattered
            else {name: view[run.slots] for name, view in views.items() if name != "sample_ids"}
        )
        masker.batch(input_ids, num_tokens, sample_ids, epoch=run.epoch, stage=stage, out=out)
        if scattered:
            for name, values in out.items():
                views[name][run.slots] = values
        sample_ids[row_ids < 0] = PADDING
        views["sample_ids"][run.slots] = sample_ids
        return lost, why

    def _flips(self, epoch: int, sample_ids: np.ndarray) -> np.ndarray:
        """Return which rows are shown as their reverse complement in an epoch, uint8[B]."""
        flips = np.zeros(sample_ids.size, np.uint8)
        if self.reverse_complement > 0:
            keys = keys_of((key_of(self.seed, RandomStream.STRAND), epoch, 0), sample_ids[:, None])
            draw_below(keys, np.uint64(min(int(self.reverse_complement * 2.0**64), 2**64 - 1)), flips)
        return flips

    def __iter__(self) -> Iterator[BatchInfo]:
        """Fill the slots of the ring that the loader handed over, in a worker process."""
        plan, info = self.plan, torch.utils.data.get_worker_info()
        if plan is None or info is None or info.dataset is not self:
            raise RuntimeError(
                "this stream was wrapped by something else than gemsdata.Loader, which would hand out rows twice or not"
                " at all, or let a stage switch come late. Iterate what gemsdata.build_loader returns; with accelerate,"
                " call gemsdata.prepare(accelerator, loader) instead of accelerator.prepare(loader)"
            )
        ring = plan.ring.numpy()
        for step in range(plan.start + info.id, plan.stop, info.num_workers):
            yield self.fill(step, ring[step % len(ring)])


def fingerprint_of(manifests: Sequence[Manifest]) -> str:
    """Return the identity of the data of a stream: the fingerprint of its set, or a hash of those of all sets."""
    prints = [manifest.fingerprint for manifest in manifests]
    return prints[0] if len(prints) == 1 else hashlib.sha256("\n".join(prints).encode()).hexdigest()
