"""Shared by the programs of train/ and eval/: exit status, interrupts, number of cores."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Callable

import torch
from accelerate import Accelerator

INTERRUPTED = 130
"""exit status after ^C or SIGTERM, with everything saved"""


class Stopped(RuntimeError):
    """A run cannot continue, although its arguments are valid; the message is one line."""


def exit_status(run: Callable[[], int], *, interrupted: str, report: Callable[[], bool] = lambda: True) -> int:
    """Call ``run`` and return its exit status; 2 after one line ``error: ...`` for invalid input, 1 after `Stopped`.

    ``interrupted`` says what an interrupt leaves; ``report`` returns whether this process prints the message.
    """
    try:
        return run()
    except (ValueError, FileNotFoundError, ImportError) as error:
        message, status = str(error), 2
    except Stopped as error:
        message, status = str(error), 1
    except OSError as error:
        message, status = f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}", 2
    except KeyboardInterrupt:
        if report():
            print(f"interrupted; {interrupted}", file=sys.stderr)
        return INTERRUPTED
    if report():
        print("error: " + " ".join(message.split()), file=sys.stderr)
    return status


def is_first_process() -> bool:
    """Return whether this process has rank 0, also before torch.distributed is initialised."""
    return int(os.environ.get("RANK", "0")) == 0


class Interrupt:
    """Context that records ^C and SIGTERM, so that a run can save first; a second ^C raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> Interrupt:
        self._before = {number: signal.signal(number, self._record) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: types.FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True


def num_cores() -> int:
    """Return how many cores this process may use; all of the machine if the system cannot tell (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(accelerator: Accelerator, threads: int | None) -> None:
    """Set torch's number of threads on CPU; None: the cores divided among the processes.

    `accelerate launch` sets OMP_NUM_THREADS=1, which halves the speed of a single process on two cores.
    """
    if accelerator.device.type == "cpu":
        torch.set_num_threads(threads or max(1, num_cores() // accelerator.num_processes))
