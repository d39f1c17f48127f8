"""Output of the commands: results, summaries that --quiet suppresses, notes, JSON, and text from files made safe."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import click

from gemsdata.kernels.compiling import notify_once

_QUIET = "gemsdata.quiet"


def _set_quiet(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    ctx.meta[_QUIET] = value
    if value:
        notify_once(None)


quiet_option = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_set_quiet,
    help="Print results and errors only, without summary and progress.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def is_quiet() -> bool:
    """Return whether the running command was called with --quiet."""
    ctx = click.get_current_context(silent=True)
    return bool(ctx is not None and ctx.meta.get(_QUIET))


def say(text: str) -> None:
    """Print a line of a summary on standard output, unless --quiet was given."""
    if not is_quiet():
        click.echo(printable(text))


def stderr_note(text: str) -> None:
    """Print a note on standard error if it is a terminal, unless --quiet was given."""
    if sys.stderr.isatty() and not is_quiet():
        click.echo(printable(text), err=True)


def print_json(result: Any) -> None:
    """Print a result as one JSON document; numbers that are not finite are null."""
    click.echo(json.dumps(_finite(result), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """Return a JSON value with None in place of floats that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def error_line(kind: str, text: str) -> None:
    """Print ``kind: text`` as one line on standard error."""
    print(f"{kind}: {printable(' '.join(text.split()))}", file=sys.stderr)


def printable(text: str) -> str:
    """Return text with control characters as escapes, so that names in files cannot control the terminal.

    Line feeds and tabs are kept.
    """
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )
