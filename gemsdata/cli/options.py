"""Arguments and options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.core import ParameterSource

from gemsdata.files.remote_folder import is_url
from gemsdata.npmi.estimators import DISCOUNT_COUNT


class PathType(click.ParamType):
    """The path of a file or folder, as Path; a URL is refused."""

    name = "path"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        if is_url(value):
            self.fail(f"{value} is a URL; give a path on this machine", param, ctx)
        return Path(value)


class PlaceType(click.ParamType):
    """The path of a file or folder, as Path, or a URL, as text."""

    name = "path"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> str | Path:
        """Return ``value`` as it is when it is a URL."""
        return str(value) if is_url(value) else Path(value)


PATH = PathType()
PLACE = PlaceType()

genome_argument = click.argument("genome", nargs=-1, required=True, type=str)
shards_argument = click.argument("shards", metavar="SHARDS", type=PLACE)
other_option = click.option("--other", type=PLACE, help="Another shard set or NPMI table to compare with.")
ESTIMATOR_HELP = "Estimator of the NPMI scores and ranks that masking uses"
min_count_option = click.option(
    "--min-count",
    type=int,
    default=DISCOUNT_COUNT,
    show_default=True,
    help="Occurrences an n-gram needs to get a score.",
)
canonical_option = click.option("--canonical", is_flag=True, help="Count n-grams on both strands.")
workers_option = click.option(
    "--workers",
    type=int,
    default=lambda: os.cpu_count() or 1,
    show_default="all cores",
    help="Number of encoding threads.",
)
region_option = click.option(
    "--region",
    help="Region of the rank profile, contig:start-end (0-based, half-open); default: 20 kb of the longest contig.",
)


def given(name: str) -> bool:
    """Return whether a parameter of the running command is on the command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def refuse_both(first: str, second: str) -> None:
    """Raise a usage error if two parameters that exclude each other are both on the command line.

    The arguments are names of parameters of the running command, such as ``valid_contigs``.
    """
    ctx = click.get_current_context()
    if given(first) and given(second):
        labels = {option.name: max(option.opts, key=len) for option in ctx.command.params}
        raise click.UsageError(f"{labels[first]} and {labels[second]} exclude each other; give one of the two", ctx)


def require(option: str, needed: str) -> None:
    """Raise a usage error if a parameter is on the command line without another that it depends on."""
    ctx = click.get_current_context()
    if given(option) and not given(needed):
        labels = {parameter.name: max(parameter.opts, key=len) for parameter in ctx.command.params}
        raise click.UsageError(f"{labels[option]} has no effect without {labels[needed]}", ctx)
