"""Notification of kernel compilations, for programs that tell their users why the first call is slow."""

from __future__ import annotations

import threading
from collections.abc import Callable

_lock = threading.Lock()
_callback: Callable[[], None] | None = None


def notify_once(callback: Callable[[], None] | None) -> None:
    """Call ``callback`` once, before the next compilation of a kernel; None cancels it.

    Kernels in numba's cache on disk are not compiled. The callback runs in the thread that compiles.
    """
    global _callback
    with _lock:
        _callback = callback


def compiling() -> None:
    """Run and remove the callback, if there is one."""
    global _callback
    with _lock:
        callback, _callback = _callback, None
    if callback:
        callback()
