"""The one decorator under which every kernel compiles."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import event

from gemsdata.kernels.compiling import compiling


class _CompileListener(event.Listener):
    """Reports compilations by numba to `gemsdata.kernels.compiling`."""

    def on_start(self, event: event.Event) -> None:
        compiling()

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _CompileListener())


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` as a sequential kernel that releases the GIL and is cached on disk.

    Never ``parallel=True``: a process forked after an OpenMP region dies in its first one. With
    ``NUMBA_DISABLE_JIT=1`` the function runs as plain Python, with numpy's warning about wrapping unsigned integers
    silenced, because the kernels wrap on purpose. Where no folder for the cache can be written, every process compiles
    anew, and says so once.
    """
    if not numba.config.DISABLE_JIT:
        return _compiled(function)

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        with np.errstate(over="ignore"):
            return function(*args)

    return wrapper


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        _say_that_nothing_is_cached()
        return numba.njit(nogil=True)(function)


@functools.cache
def _say_that_nothing_is_cached() -> None:
    warnings.warn(
        "gemsdata's kernels are compiled anew by every process (some 20 seconds), because no folder for compiled code"
        " can be written: set NUMBA_CACHE_DIR to one that can",
        RuntimeWarning,
        stacklevel=4,
    )
