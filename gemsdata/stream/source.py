"""The interface between a loader and its source of batches: computed in this process, or by a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gemsdata.stream.batch import BatchLayout, PendingBatch
from gemsdata.stream.config import StreamConfig
from gemsdata.stream.stage_log import StageLog


@dataclass(frozen=True, kw_only=True)
class BatchInfo:
    """Metadata of a batch."""

    step: int
    epoch: int
    """epoch of the first row of the global batch; in a mixture: complete passes over every set before the batch"""
    stage: int
    num_skipped: int = 0
    """number of rows of this rank's batch that were lost to damaged shards"""
    why_skipped: str = ""


class BatchSource(Protocol):
    """This rank's batches, indexed by step."""

    @property
    def config(self) -> StreamConfig:
        """Everything that the batches depend on."""

    @property
    def log(self) -> StageLog:
        """The stages that were set while the stream ran."""

    @property
    def layout(self) -> BatchLayout:
        """The arrays of a batch."""

    @property
    def prefers_step_ranges(self) -> bool:
        """Whether `compute` is faster for several steps at a time than for one."""

    def stage(self, step: int) -> int:
        """Return the stage of batch ``step`` given the current stage log."""

    def fill(self, step: int, buffer: np.ndarray) -> BatchInfo:
        """Write batch ``step`` to ``buffer``, uint8[layout.num_bytes]."""

    def compute(self, steps: range) -> list[tuple[PendingBatch, BatchInfo]]:
        """Return the batches of ``steps``, in order."""

    def check_unchanged(self) -> None:
        """Raise ValueError if the data was changed since it was opened."""

    def interrupt(self) -> None:
        """Make calls of `compute` in other threads that wait for something raise ConnectionError."""
