"""The stage log passes stage changes of the main process to the workers, effective at an exact step.

One anonymous shared int64 tensor per rank holds an append-only list of (effective step, stage). Only the main process
writes. A switch decided at step k takes effect at k + lag, and a worker starts batch s only after batch s - depth was
taken, so with lag > depth every worker sees the entry before it masks the first batch that it affects.
"""

from __future__ import annotations

import multiprocessing.context
from typing import Any

import torch

CAPACITY = 1024
_COUNT = 0
_FIRST = 1


class StageLog:
    """Append-only log of (effective step, stage), shared with the worker processes of one loader.

    Before the first entry the stage is 0. A copy made by pickle or ``copy.deepcopy`` would not see later entries, so it
    is marked as detached, and reading or writing it raises an error; the loader passes the log itself to its worker
    processes, not a copy.
    """

    def __init__(self) -> None:
        self._tensor = torch.zeros(_FIRST + 2 * CAPACITY, dtype=torch.int64).share_memory_()
        self._words = self._tensor.numpy()
        self.detached = False

    def append(self, effective_step: int, stage: int) -> None:
        """Set ``stage`` from ``effective_step`` on; steps must not decrease, and the later of equal ones counts."""
        self._check()
        entries = self.entries()
        if entries and effective_step < entries[-1][0]:
            raise ValueError(f"stage entry at step {effective_step} after one at {entries[-1][0]}: a log only grows")
        if len(entries) == CAPACITY:
            raise ValueError(f"the stage log is full ({CAPACITY} switches); a schedule known in advance needs no log")
        place = _FIRST + 2 * len(entries)
        self._words[place] = effective_step
        self._words[place + 1] = stage
        self._words[_COUNT] = len(entries) + 1  # last: until then the entry is not read

    def at(self, step: int) -> int:
        """Return the stage of batch ``step``."""
        self._check()
        stage = 0
        for effective_step, entry in self.entries():
            if effective_step > step:
                break
            stage = entry
        return stage

    def entries(self) -> list[tuple[int, int]]:
        """Return all entries as (effective step, stage)."""
        count = int(self._words[_COUNT])
        flat = self._words[_FIRST : _FIRST + 2 * count].tolist()
        return list(zip(flat[::2], flat[1::2], strict=True))

    def restore(self, entries: list[tuple[int, int]]) -> None:
        """Replace the log, in place; no worker may be running."""
        self._check()
        self._words[_COUNT] = 0
        for effective_step, stage in entries:
            self.append(int(effective_step), int(stage))

    def _check(self) -> None:
        if self.detached:
            raise RuntimeError(
                "this stage log is a copy (pickle or deepcopy) and would not receive stages set elsewhere; build the"
                " loader in the process that uses it, with gemsdata.build_loader, and carry its state_dict instead"
            )

    def __getstate__(self) -> dict[str, Any]:
        if multiprocessing.context.get_spawning_popen() is None:
            return {"tensor": None}
        return {"tensor": self._tensor}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.detached = state["tensor"] is None
        self._tensor = torch.zeros(_FIRST, dtype=torch.int64) if self.detached else state["tensor"]
        self._words = self._tensor.numpy()
