"""``gemsdata show``: one masked row as text."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from gemsdata.cli.masking_options import masking_options
from gemsdata.cli.options import shards_argument
from gemsdata.cli.output import json_option, print_json
from gemsdata.inspect.show import mask_row, render_row
from gemsdata.masking.strategies import Strategy


@click.command("show")
@shards_argument
@click.option("--row", type=int, default=0, show_default=True, help="Index of the row in the split.")
@masking_options
@click.option("--tokens", help="Print only this range of token positions in detail, such as 100:150.")
@json_option
def command(
    shards: str | Path,
    row: int,
    strategy: Strategy,
    split: str,
    seed: int,
    stage: int,
    tokens: str | None,
    as_json: bool,
) -> None:
    """Print one row of the shard set SHARDS with its mask: nucleotides, tokens, spans and NPMI ranks.

    \b
    Examples:
      gemsdata show SHARDS --row 17 --masking genemask
      gemsdata show SHARDS --row 17 --masking genemask --tokens 100:150
    """
    masked_row = mask_row(shards, row, strategy, split=split, seed=seed, stage=stage)
    first, last = _range(tokens)
    if as_json:
        print_json(masked_row.as_dict(first, last))
        return
    color = sys.stdout.isatty()
    width = shutil.get_terminal_size((100, 24)).columns if color else 100
    for line in render_row(masked_row, width=width, color=color, first=first, last=last):
        click.echo(line)


def _range(tokens: str | None) -> tuple[int, int | None]:
    if tokens is None:
        return 0, None
    first, _, last = tokens.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise ValueError(f"--tokens {tokens} is not a range of positions: give FIRST:LAST, such as 100:150")
    return int(first), int(last)
