"""The one decorator under which every kernel compiles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` as a sequential kernel that releases the GIL and is cached on disk.

    Never ``parallel=True``: a process forked after an OpenMP region dies in its first one. With
    ``NUMBA_DISABLE_JIT=1`` the function runs as plain Python, with numpy's warning about wrapping unsigned integers
    silenced, because the kernels wrap on purpose.
    """
    if not numba.config.DISABLE_JIT:
        return numba.njit(nogil=True, cache=True)(function)

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        with np.errstate(over="ignore"):
            return function(*args)

    return wrapper
