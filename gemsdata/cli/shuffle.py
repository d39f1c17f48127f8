"""``gemsdata shuffle``: quality of the row order."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from gemsdata.cli.options import shards_argument
from gemsdata.cli.output import json_option, print_json
from gemsdata.cli.progress import ProgressBars
from gemsdata.cli.view_options import view_options
from gemsdata.inspect.shuffle import NEAR_BASES, shuffle_quality
from gemsdata.views.options import ViewOptions
from gemsdata.views.view import open_view


@click.command("shuffle")
@shards_argument
@click.option("--split", default="train", show_default=True, help="Split of the rows: train or valid.")
@click.option(
    "--window",
    type=int,
    help="Shuffle in windows of this many stored rows, as build_loader(shuffle=ROWS); default: all rows.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random key of the order.")
@click.option("--epoch", type=int, default=0, show_default=True, help="Epoch of the stream, from 0.")
@view_options()
@json_option
def command(
    shards: str | Path, split: str, window: int | None, seed: int, epoch: int, view: ViewOptions, as_json: bool
) -> None:
    """Report the genomic distance of consecutive rows of the shard set SHARDS, relative to a uniform shuffle.

    A packed set is read with --tokens (default kmer:6) and the other options of views.

    \b
    Examples:
      gemsdata shuffle SHARDS
      gemsdata shuffle SHARDS --window 100000 --json
      gemsdata shuffle PACKED --tokens base --row-bases 8192
    """
    with ProgressBars() as progress:
        found = shuffle_quality(
            open_view(shards, view),
            split=split,
            shuffle=True if window is None else window,
            seed=seed,
            epoch=epoch,
            progress=progress,
        )
    if as_json:
        print_json([{**dataclasses.asdict(quality), "ratio": quality.ratio} for quality in found])
        return
    lines = [("order", "mean distance", "of uniform", f"pairs < {NEAR_BASES // 1000} kb")]
    lines += [(q.order, f"{q.mean_bases:,.0f}", f"{q.ratio:.1%}", f"{q.near_share:.3%}") for q in found]
    lines.append(("uniform shuffle", f"{found[0].ideal_mean_bases:,.0f}", "100.0%", f"{found[0].ideal_near_share:.3%}"))
    width = max(len(line[0]) for line in lines)
    for name, *values in lines:
        click.echo(f"{name:<{width}}  " + "  ".join(f"{value:>13}" for value in values))
