"""Messages of the command line for errors and interrupts, each one line."""

from __future__ import annotations

import errno
import re
import shlex

import click

from gemsdata.files.extras import missing_module

USER_ERRORS = (click.ClickException, ValueError, FileNotFoundError, ImportError, OSError)
"""exceptions that are a message and exit status 2, not a traceback"""

_TEMPORARY_NAME = re.compile(r"(?<![^\s/'\"])_([^/\s'\"]+?)\.[0-9A-Za-z-]*-[0-9]+-[0-9a-f]{8}\.tmp")
_AFTER_INTERRUPT = {
    "audit": "nothing was written",
    "encode": "finished parts are kept; run the same command again for the others",
    "finalise": "run the same command again",
    "lint": "files that were not reached are not checked",
    "npmi": "no table was written",
    "plot": "figures that were printed are complete",
    "query": "no file was written",
    "report": "no page was written",
    "verify": "the set was not compared in full; run the same command again",
}
"""what an interrupted command leaves"""


def message(error: BaseException, arguments: list[str]) -> str:
    """Return the text of an exception of USER_ERRORS that a command raised; temporary files have their final name."""
    text = _TEMPORARY_NAME.sub(r"\1", _text(error, arguments))
    return re.sub(r"/dev/fd/[0-9]+", "standard output", text)


def _text(error: BaseException, arguments: list[str]) -> str:
    if isinstance(error, click.UsageError):
        text = error.format_message()
        if error.ctx is None:
            return text
        return f"{text}{'' if text.endswith(('.', '?')) else '.'} Try '{error.ctx.command_path} --help' for help."
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, ModuleNotFoundError):
        return str(missing_module(error, f"gemsdata {command_name(arguments)}"))
    if isinstance(error, OSError) and not (isinstance(error, FileNotFoundError) and error.errno is None):
        return _os_error(error, command_name(arguments))
    return str(error)


def interrupted(arguments: list[str]) -> str:
    """Return the line after an interrupt: what the command leaves, and how to go on."""
    name = command_name(arguments)
    if name == "shard" and "--overwrite" not in arguments:
        again = [*arguments, *([] if "--resume" in arguments else ["--resume"])]
        return f"interrupted; to continue, run: {shlex.join(['gemsdata', *again])}"
    if name == "shard":
        again = ["--resume" if word == "--overwrite" else word for word in arguments]
        return f"interrupted; to continue, run: {shlex.join(['gemsdata', *again])}"
    return "interrupted" + (f"; {_AFTER_INTERRUPT[name]}" if name in _AFTER_INTERRUPT else "")


def command_name(arguments: list[str]) -> str:
    """Return the sub-command of a command line, or an empty string."""
    return next((word for word in arguments if not word.startswith("-")), "")


def _os_error(error: OSError, command: str) -> str:
    """Return the text of an error of the operating system."""
    name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else str(error.filename or "")
    where = f"{name}: " if name else ""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        again = "run the command again with --resume" if command == "shard" else "run the command again"
        return f"the disk is full: {where}{reason}; free some space and {again}"
    return f"{where}{reason}"
