"""``gemsdata show``: one masked row, drawn as text."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from gemsdata.cli.masking_options import masking_options
from gemsdata.inspect.show import draw, mask_row
from gemsdata.masking.strategies import Strategy


@click.command("show")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--row", type=int, default=0, show_default=True, help="Row number in the split.")
@masking_options
@click.option("--tokens", help="Only these token positions one by one, such as 100:150.")
def command(
    out: Path,
    row: int,
    strategy: Strategy,
    split: str,
    seed: int,
    stage: int,
    tokens: str | None,
) -> None:
    """Draw one row of the shard set OUT as a model would see it: nucleotides, tokens, spans and NPMI ranks."""
    masked_row = mask_row(out, row, strategy, split=split, seed=seed, stage=stage)
    first, last = _range(tokens)
    color = sys.stdout.isatty()
    width = shutil.get_terminal_size((100, 24)).columns if color else 100
    for line in draw(masked_row, width=width, color=color, first=first, last=last):
        click.echo(line)


def _range(tokens: str | None) -> tuple[int, int | None]:
    if tokens is None:
        return 0, None
    first, _, last = tokens.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise ValueError(f"--tokens {tokens} is no range of positions: give FIRST:LAST, such as 100:150")
    return int(first), int(last)
