"""The decorator that compiles every kernel."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
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
    silenced, because the kernels wrap on purpose. If no cache folder is writable or the disk is full, every process
    compiles again and warns once.
    """
    if not numba.config.DISABLE_JIT:
        return _compiled(function, inline=False)

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        with np.errstate(over="ignore"):
            return function(*args)

    return wrapper


def jit_inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Inline a short function in the kernels that call it, for functions that are called for every span or token."""
    return jit(function) if numba.config.DISABLE_JIT else _compiled(function, inline=True)


def _compiled(function: Callable[..., Any], *, inline: bool) -> Callable[..., Any]:
    try:
        compiled = numba.njit(nogil=True, cache=True, forceinline=inline, no_cfunc_wrapper=True)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        _say_that_nothing_is_cached()
        return numba.njit(nogil=True, forceinline=inline)(function)
    # numba's cache detects changes in a kernel's own file, but not in the kernels that it calls or in the tuples that
    # it takes (for those it fails); the hash of all sources in each index's version gives every source its own cache
    cache = getattr(compiled, "_cache", None)
    index = getattr(cache, "_cache_file", None)
    if index is not None and hasattr(index, "_version"):
        index._version = f"{numba.__version__} {_source_hash()}"
    for name in ("load_overload", "save_overload"):
        if hasattr(cache, name):
            setattr(cache, name, _forgiving(getattr(cache, name)))
    return compiled


def _forgiving(access: Callable[..., Any]) -> Callable[..., Any]:
    """Return a cache access that does nothing if it fails, such as on a full disk or for a damaged file."""

    @functools.wraps(access)
    def wrapper(*args: Any) -> Any:
        try:
            return access(*args)
        except Exception:  # what a damaged file raises is not known
            _say_that_nothing_is_cached()
            return None

    return wrapper


@functools.cache
def _source_hash() -> str:
    """Return a hash of the sources of all kernels."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _say_that_nothing_is_cached() -> None:
    warnings.warn(
        "gemsdata's kernels are compiled anew by every process (some 20 seconds), because no folder for compiled code"
        " can be read and written: set NUMBA_CACHE_DIR to one that can",
        RuntimeWarning,
        stacklevel=5,
    )
