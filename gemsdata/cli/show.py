"""``gemsdata show``: one masked row as text."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from gemsdata.cli.masking_options import masking_options
from gemsdata.cli.options import shards_argument
from gemsdata.cli.output import json_option, print_json
from gemsdata.cli.view_options import view_options
from gemsdata.inspect.show import mask_row, render_row
from gemsdata.masking.strategies import Strategy
from gemsdata.views.options import ViewOptions
from gemsdata.views.view import open_view


@click.command("show")
@shards_argument
@click.option("--row", type=int, default=0, show_default=True, help="Index of the row in the split.")
@masking_options
@view_options()
@click.option("--positions", help="Print only this range of token positions in detail, such as 100:150.")
@json_option
def command(
    shards: str | Path,
    row: int,
    strategy: Strategy,
    view: ViewOptions,
    split: str,
    seed: int,
    stage: int,
    positions: str | None,
    as_json: bool,
) -> None:
    """Print one row of the shard set SHARDS with its mask: nucleotides, tokens, spans and NPMI ranks.

    A packed set is read with --tokens (default kmer:6) and the other options of views.

    \b
    Examples:
      gemsdata show SHARDS --row 17 --masking genemask
      gemsdata show SHARDS --row 17 --masking genemask --positions 100:150
      gemsdata show PACKED --tokens kmer:3:3 --row-bases 300 --masking genemask
    """
    masked_row = mask_row(open_view(shards, view), row, strategy, split=split, seed=seed, stage=stage)
    first, last = _range(positions)
    if as_json:
        print_json(masked_row.as_dict(first, last))
        return
    color = sys.stdout.isatty()
    width = shutil.get_terminal_size((100, 24)).columns if color else 100
    for line in render_row(masked_row, width=width, color=color, first=first, last=last):
        click.echo(line)


def _range(positions: str | None) -> tuple[int, int | None]:
    if positions is None:
        return 0, None
    first, _, last = positions.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise ValueError(f"--positions {positions} is not a range of positions: give FIRST:LAST, such as 100:150")
    return int(first), int(last)
