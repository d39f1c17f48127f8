"""The options of commands whose tasks may run on Ray, Dask or Slurm."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import click

from gemsdata.files.remote_folder import is_url
from gemsdata.shards.engines import ENGINES, open_engine
from gemsdata.shards.storage import place_name


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --engine and --engine-option; the command gets ``engine`` and ``engine_options``, for `opened_engine`."""
    options = [
        click.option(
            "--engine",
            type=click.Choice(ENGINES),
            default="local",
            show_default=True,
            help="Where tasks run: threads of this process, Ray, Dask or Slurm.",
        ),
        click.option(
            "--engine-option",
            "engine_options",
            multiple=True,
            metavar="KEY=VALUE",
            help="Setting of the engine, such as address=auto (ray) or slurm_partition=cpu; may be repeated.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@contextlib.contextmanager
def opened_engine(name: str, pairs: tuple[str, ...], workers: int, out: str | Path) -> Iterator[Executor | None]:
    """Open the executor of an engine; None for "local", whose threads the library starts itself.

    Logs of Slurm jobs go to a folder beside ``out``, or in the working directory where that is a URL. Raises
    ValueError for a pair that is not KEY=VALUE.
    """
    options: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not (key and separator):
            raise ValueError(f"--engine-option {pair!r} is not KEY=VALUE")
        options[key] = value
    if name == "local" and not options:
        yield None
        return
    beside = Path(place_name(out)) if is_url(out) else Path(out)
    with open_engine(name, workers, options, beside.absolute().with_name(f"{beside.name}.jobs")) as executor:
        yield executor
