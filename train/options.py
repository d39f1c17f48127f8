"""Command-line options made from a configuration dataclass, by click."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from gemsdata.cli.output import json_option, quiet_option

Config = TypeVar("Config")


def option(help_text: str, default: Any = dataclasses.MISSING, *, name: str | None = None) -> Any:
    """Return a dataclass field that is a command-line option; without a default it is required.

    ``name`` overrides the option's name, by default the field's name with dashes (``peak_lr`` -> ``--peak-lr``).
    """
    return dataclasses.field(default=default, metadata={"help": help_text, "option": name})


def argument(default: Any = dataclasses.MISSING) -> Any:
    """Return a dataclass field that is a positional argument of the command line."""
    return dataclasses.field(default=default, metadata={"argument": True})


def group(options: type) -> Any:
    """Return a dataclass field that is itself a dataclass of options with the metadata ``help`` and ``option``."""
    return dataclasses.field(default_factory=options, metadata={"group": options})


@contextmanager
def parsed(
    config: type[Config], arguments: Sequence[str] | None, *, prog: str, description: str
) -> Iterator[tuple[Config, bool]]:
    """Yield a ``config`` with the values of a command line (default: sys.argv), and whether ``--json`` was given.

    Inside the context `gemsdata.cli.output.is_quiet` and `say` follow ``--quiet``.
    A bool field is a flag, or ``--flag/--no-flag`` if it is not False by default; tuple[T, ...] takes one or more
    values (``--seeds 1 2 3``); ``T | None`` is optional; a `group` has an option for each of its own fields.
    ``--help`` raises SystemExit(0); invalid arguments raise ValueError. If started as a sub-command of gemsdata, the
    program has that name in messages.
    """
    outer = click.get_current_context(silent=True)
    layout = {}
    if outer is not None:
        prog = outer.command_path
        layout = {"terminal_width": outer.terminal_width}
    command = _command(config, prog, description, outer and outer.command.epilog)
    try:
        context = command.make_context(prog, list(sys.argv[1:] if arguments is None else arguments), **layout)
        with context.scope(cleanup=False):
            made, as_json = command.invoke(context)
    except click.exceptions.Exit as ended:
        raise SystemExit(ended.exit_code) from None
    except click.ClickException as error:
        raise ValueError(f"{error.format_message()} See {prog} --help") from error
    with context:
        yield made, as_json


def _command(config: type[Config], prog: str, description: str, epilog: str | None) -> click.Command:
    """Return a command that returns (a ``config``, whether ``--json`` was given)."""
    groups = {field.name: field.metadata["group"] for field in _fields(config) if "group" in field.metadata}
    hints = typing.get_type_hints(config)
    parameters = [_parameter(field, hints[field.name]) for field in _fields(config) if field.name not in groups]
    for name, options in groups.items():
        inner = typing.get_type_hints(options)
        parameters += [_parameter(field, inner[field.name], prefix=f"{name}_") for field in _fields(options)]

    def make(*, as_json: bool, **values: Any) -> tuple[Config, bool]:
        own = {
            name: options(**{field.name: values.pop(f"{name}_{field.name}") for field in _fields(options)})
            for name, options in groups.items()
        }
        return config(**values, **own), as_json

    command = _Command(
        prog,
        params=parameters,
        callback=make,
        help=description,
        epilog=epilog,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    return quiet_option(json_option(command))


class _Command(click.Command):
    """A command whose options can have several values after one name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        several = {name for entry in self.params if getattr(entry, "multiple", False) for name in entry.opts}
        return super().parse_args(ctx, list(_one_value_each(args, several)))


def _one_value_each(words: Sequence[str], several: set[str]) -> Iterator[str]:
    """Yield ``--seeds 1 --seeds 2`` for ``--seeds 1 2``, for the options ``several``."""
    option_name = None
    values = 0
    for word in words:
        if word.startswith("--"):
            option_name, values = (word if word in several else None), 0
        elif option_name is not None:
            values += 1
            if values > 1:
                yield option_name
        yield word


def _fields(options: type) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(options)


def _parameter(field: dataclasses.Field, hint: Any, *, prefix: str = "") -> click.Parameter:
    required = field.default is dataclasses.MISSING
    default = {} if required else {"default": field.default}
    if field.metadata.get("argument"):
        return click.Argument([field.name], required=required, **default)
    name = field.metadata["option"] or "--" + field.name.replace("_", "-")
    text = field.metadata["help"][0].upper() + field.metadata["help"][1:] + "."
    inner = [part for part in typing.get_args(hint) if part not in (types.NoneType, Ellipsis)]
    if hint is bool or inner == [bool]:
        switch = name if field.default is False else f"{name}/--no-{name[2:]}"
        return click.Option(
            [switch, prefix + field.name],
            is_flag=True,
            default=field.default,
            help=text,
            show_default=field.default is True,
        )
    several = typing.get_origin(hint) is tuple or field.metadata.get("several", False)
    return click.Option(
        [name, prefix + field.name],
        type=inner[0] if inner else hint,
        required=required,
        show_default=not required and field.default not in (None, ()),
        multiple=several,
        help=text,
        metavar=name[2:].rsplit("-", 1)[-1].upper() + ("..." if several else ""),
        **default,
    )
