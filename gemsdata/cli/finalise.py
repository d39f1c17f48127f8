"""``gemsdata finalise``: the manifest of a set whose parts are all there."""

from __future__ import annotations

from pathlib import Path

import click

from gemsdata.cli.shard import summary_text
from gemsdata.shards.write import finalise, open_plan


@click.command("finalise")
@click.argument("out", type=click.Path(path_type=Path))
def command(out: Path) -> None:
    """Publish the manifest of OUT; missing parts are named."""
    plan = open_plan(out)
    click.echo(summary_text(out, finalise(plan), plan.summary))
