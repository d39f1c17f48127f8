"""Settings of the C memory allocator."""

from __future__ import annotations

import contextlib
import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_BLOCK_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks of up to 1 GB for reuse; do nothing with other C libraries.

    The text of every chromosome is a new block, and page faults on it cost as much as counting its k-mers. The setting
    changes the whole process, so it belongs to a program's ``main`` and not to a library function.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
