"""Command-line options out of a configuration dataclass, and how a program of ours ends."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Config = TypeVar("Config")

INTERRUPTED = 130
"""exit status after ^C or SIGTERM, when all is saved"""


class Stopped(RuntimeError):
    """The run cannot go on, through no mistake in its arguments; the message is one line."""


def option(help_text: str, default: Any = dataclasses.MISSING) -> Any:
    """Return a dataclass field that is an option; without a default it must be given."""
    return dataclasses.field(default=default, metadata={"help": help_text})


def parse(config: type[Config], arguments: Sequence[str] | None, *, prog: str, description: str) -> Config:
    """Return ``config`` filled in from a command line: field ``peak_lr`` is option ``--peak-lr``.

    A bool is a flag; tuple[T, ...] takes one or more values; ``T | None`` is optional. Mistakes raise ValueError.
    """
    parser = _Parser(prog=prog, description=description, allow_abbrev=False)
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        _add(parser, field, hints[field.name])
    return config(**vars(parser.parse_args(arguments)))


def exit_status(run: Callable[[], int], *, report: Callable[[], bool] = lambda: True) -> int:
    """Return what ``run`` returns; 2 after one line ``error: ...`` for a user's mistake, 1 when it had to stop.

    ``report`` says whether this process is the one that prints.
    """
    try:
        return run()
    except (ValueError, FileNotFoundError, ImportError) as error:
        message, status = str(error), 2
    except Stopped as error:
        message, status = str(error), 1
    except OSError as error:
        message, status = f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}", 2
    except KeyboardInterrupt:
        if report():
            print("interrupted before there was anything to save", file=sys.stderr)
        return INTERRUPTED
    if report():
        print("error: " + " ".join(message.split()), file=sys.stderr)
    return status


class Interrupt:
    """Notes ^C and SIGTERM while it is entered, so that a run can save before it ends; a second ^C ends it at once."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> Interrupt:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def _add(parser: argparse.ArgumentParser, field: dataclasses.Field, hint: Any) -> None:
    name = "--" + field.name.replace("_", "-")
    required = field.default is dataclasses.MISSING
    text = field.metadata["help"]
    if hint is bool:
        parser.add_argument(name, action="store_true", default=False, help=text)
        return
    if field.default not in (None, (), dataclasses.MISSING):
        text += " (default: %(default)s)"
    default = None if required else field.default
    inner = [part for part in typing.get_args(hint) if part not in (types.NoneType, Ellipsis)]
    several = typing.get_origin(hint) is tuple
    parser.add_argument(
        name,
        type=inner[0] if inner else hint,
        required=required,
        default=default,
        help=text,
        metavar=name[2:].rsplit("-", 1)[-1].upper(),
        **({"nargs": "+"} if several else {}),
    )
