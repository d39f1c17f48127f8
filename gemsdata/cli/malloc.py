"""The memory allocator, as far as a program of ours may set it."""

from __future__ import annotations

import contextlib
import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_BLOCK_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Let this process reuse freed blocks of up to 1 GB, not give each back to the system (glibc; elsewhere nothing).

    The text of every chromosome is a fresh block; faulting its pages in costs as much as counting its k-mers. This is
    for a program's ``main``, not for a library function: it changes the whole process.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
