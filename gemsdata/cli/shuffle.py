"""``gemsdata shuffle``: how well the stream mixes the genome."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from gemsdata.cli.progress import ProgressBars
from gemsdata.inspect.shuffle import NEAR_BASES, shuffle_quality
from gemsdata.shards.shard_set import ShardSet


@click.command("shuffle")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--split", default="train", show_default=True)
@click.option("--window", type=int, help="Rows of a window, as build_loader(shuffle=ROWS); default: over all rows.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--epoch", type=int, default=0, show_default=True)
@click.option("--format", "layout", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(out: Path, split: str, window: int | None, seed: int, epoch: int, layout: str) -> None:
    """Say how far apart in the genome consecutive rows of the shard set OUT are, beside a perfect shuffle."""
    with ProgressBars() as progress:
        found = shuffle_quality(
            ShardSet.open(out),
            split=split,
            shuffle=True if window is None else window,
            seed=seed,
            epoch=epoch,
            progress=progress,
        )
    if layout == "json":
        click.echo(json.dumps([{**dataclasses.asdict(quality), "ratio": quality.ratio} for quality in found]))
        return
    lines = [("order", "mean distance", "of perfect", f"pairs < {NEAR_BASES // 1000} kb")]
    lines += [(q.order, f"{q.mean_bases:,.0f}", f"{q.ratio:.1%}", f"{q.near_share:.3%}") for q in found]
    lines.append(("perfect shuffle", f"{found[0].ideal_mean_bases:,.0f}", "100.0%", f"{found[0].ideal_near_share:.3%}"))
    width = max(len(line[0]) for line in lines)
    for name, *values in lines:
        click.echo(f"{name:<{width}}  " + "  ".join(f"{value:>13}" for value in values))
