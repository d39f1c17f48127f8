"""The options of commands that read the rows of a view."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Any

import click

from gemsdata.views.options import UNKNOWN, ViewOptions

PREFIX = "view_"
"""prefix of the parameter names, so that they do not clash with other parameters of a command"""


def view_options(*without: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the options of views; the command gets ``view``, a `ViewOptions`.

    ``without`` are the fields of `ViewOptions` for which the command has its own option.
    """
    fields = [field for field in dataclasses.fields(ViewOptions) if field.name not in without]
    hints = typing.get_type_hints(ViewOptions)

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_view(**arguments: Any) -> Any:
            view = ViewOptions(**{field.name: arguments.pop(PREFIX + field.name) for field in fields})
            return command(view=view, **arguments)

        for field in reversed(fields):
            with_view = _option(field, hints[field.name])(with_view)
        return with_view

    return add


def _option(field: dataclasses.Field[Any], hint: Any) -> Callable[..., Any]:
    """Return the click option of a field of `ViewOptions`."""
    name, text = field.metadata["option"] or "--" + field.name.replace("_", "-"), field.metadata["help"]
    text = text[0].upper() + text[1:] + "."
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if bool in kinds:
        return click.option(f"{name}/--no-{name[2:]}", PREFIX + field.name, default=field.default, help=text)
    kind: Any = next((kind for kind in (int, float) if kind in kinds), str)
    if field.name == "unknown":
        kind = click.Choice(UNKNOWN)
    shown = field.default if field.default not in (None, 0, 1.0) else None
    several = field.metadata["several"]

    def collapse(ctx: click.Context, parameter: click.Parameter, values: tuple[Any, ...]) -> Any:
        if several or len(values) < 2:
            return values if several else values[0] if values else field.default
        raise click.UsageError(f"{name} is given {len(values)} times: {', '.join(map(str, values))}; give one", ctx)

    return click.option(
        name,
        PREFIX + field.name,
        type=kind,
        multiple=True,
        callback=collapse,
        show_default=None if shown is None else str(shown),
        help=text,
    )
