"""Kill a function before its n-th change of a file system, as SIGKILL would."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = ("os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate")
_KILLED, _FAILED = 77, 78


def killed_before(change: int, action: Callable[[], Any], folder: Path) -> bool:
    """Run ``action`` in a forked process that ends before its change number ``change`` below ``folder``.

    A change is a rename or a link, the removal or creation of a folder, the removal of a file, or its opening for
    writing. Returns False when the action ended before.
    """
    with warnings.catch_warnings(action="ignore"):  # that this process has threads: the child needs none of them
        pid = os.fork()
    if pid == 0:
        _run(change, action, str(folder))
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, _KILLED), f"exit status {code}"
    return code == _KILLED


def _run(change: int, action: Callable[[], Any], folder: str) -> None:
    left = change

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        is_change = writes or event in _CHANGES
        place = arguments[event == "os.link"] if is_change else None  # of a link, the new name
        if isinstance(place, str | os.PathLike) and os.fspath(place).startswith(folder):
            if left == 0:
                os._exit(_KILLED)
            left -= 1

    sys.addaudithook(on_event)
    try:
        action()
    except BaseException:
        traceback.print_exc()
        os._exit(_FAILED)
    os._exit(0)
