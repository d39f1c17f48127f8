"""Publish files by rename, so that a final name always refers to a complete file."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"_.+\.[0-9A-Za-z-]*-[0-9]+-[0-9a-f]{8}\.tmp")


@contextlib.contextmanager
def publish(path: Path) -> Iterator[BinaryIO]:
    """Open a file without a name in the folder of ``path``; flush it to disk and give it that name on success.

    On failure nothing is left behind, even if the process is killed, unless that happens while it replaces another
    file. On file systems without unnamed files, a temporary file is used, which a killed process leaves behind; its
    name begins with an underscore, so that readers of the folder skip it. Two writers of one path never write to the
    same file: the last rename wins.
    """
    temporary = path.with_name(temporary_name(path.name))
    descriptor = _open_unnamed(path.parent)
    stream = open(temporary if descriptor is None else descriptor, "wb")  # noqa: SIM115  (closed below)
    try:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
        named = descriptor is not None and _linked(descriptor, path)
        if descriptor is not None and not named:  # a link cannot replace a file, a rename can
            _linked(descriptor, temporary)
        stream.close()
        if not named:
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            stream.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def _linked(descriptor: int, path: Path) -> bool:
    """Give an open file without a name the name ``path``; return False where that is taken."""
    try:
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)
    except FileExistsError:
        return False
    return True


def _open_unnamed(folder: Path) -> int | None:
    """Return the descriptor of a new file without a name in ``folder``; None if that is not possible."""
    if not (hasattr(os, "O_TMPFILE") and os.path.exists("/proc/self/fd")):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    except OSError:
        return None  # creating the temporary file will raise an error that names the folder


def temporary_name(name: str) -> str:
    """Return a unique name for a temporary file that becomes ``name``."""
    host = "".join(letter for letter in socket.gethostname() if letter.isalnum() or letter == "-")[:24]
    return f"_{name[:120]}.{host}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def is_temporary(name: str) -> bool:
    """Return whether ``name`` was made by `temporary_name`."""
    return _TEMPORARY.fullmatch(name) is not None


def write_text(path: Path, text: str) -> None:
    """Publish ``text`` (UTF-8) under ``path``."""
    with publish(path) as stream:
        stream.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    with contextlib.suppress(OSError):  # not every file system lets a folder be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
