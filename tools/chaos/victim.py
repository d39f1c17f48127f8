"""Run a command in a separate process and send it a signal at a chosen moment.

The process is forked from one that has imported the program and compiled its kernels, so that a signal hits the work
and not the imports. Its standard output and error go to a file.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gemsdata.cli import main

_LONGEST_S = 300.0
_POLL_S = 0.001
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    """its exit status; minus the number of the signal that ended it"""
    hit: bool
    """whether it still ran when it was sent the signal"""
    printed: str
    seconds: float


def run_command(arguments: list[str], log: Path, signal_number: int = 0, after_s: float = 0.0) -> Ended:
    """Run ``gemsdata`` with ``arguments`` in a forked process; send it a signal ``after_s`` seconds after its start."""
    return run_forked(lambda: main(arguments), log, signal_number, after_s)


def run_forked(action: Callable[[], int], log: Path, signal_number: int = 0, after_s: float = 0.0) -> Ended:
    """Run ``action``, which returns an exit status, in a forked process; send it a signal after ``after_s`` seconds."""
    began = time.monotonic()
    # signals are blocked until the child has installed its handlers
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    with warnings.catch_warnings(action="ignore"):  # about threads of this process: the child does not need them
        pid = os.fork()
    if pid == 0:
        _child(action, log)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    hit = False
    if signal_number:
        time.sleep(max(0.0, began + after_s - time.monotonic()))
        hit = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        if hit:
            os.kill(pid, signal_number)
    status = _wait(pid, began + _LONGEST_S)
    return Ended(status, hit, log.read_text(errors="replace") if log.exists() else "", time.monotonic() - began)


def _child(action: Callable[[], int], log: Path) -> None:
    """Run the action like a separate program, and exit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # pytest has replaced both
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    status = 70
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        status = action()
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130  # before or after the command itself, which prints a line
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


def _wait(pid: int, deadline: float) -> int:
    """Return the exit status of a process; one that hangs is killed and has the status of that signal."""
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_POLL_S)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGKILL
