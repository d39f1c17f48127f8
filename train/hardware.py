"""How many cores a process computes on."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator


def use_cores(accelerator: Accelerator, threads: int | None) -> None:
    """Let torch use ``threads`` cores on CPU, by default this process's share of them.

    `accelerate launch` sets OMP_NUM_THREADS=1, which makes a laptop half as fast.
    """
    if accelerator.device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(threads or max(1, cores // accelerator.num_processes))
