"""``gemsdata encode``: some parts of a planned set, on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gemsdata.cli.progress import ProgressBars
from gemsdata.shards.write import encode_parts, open_plan


@click.command("encode")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--slice", "part_slice", default="0/1", show_default=True, help="I/N: every N-th part from part I on.")
@click.option("--workers", type=int, default=lambda: os.cpu_count() or 1, show_default="all cores")
def command(out: Path, part_slice: str, workers: int) -> None:
    """Encode the parts of OUT that `gemsdata shard --plan-only` planned; parts that are finished are left alone."""
    index, _, count = part_slice.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"--slice {part_slice}; I/N with 0 <= I < N is needed, such as 0/8 to 7/8 for eight machines")
    plan = open_plan(out)
    parts = plan.parts[int(index) :: int(count)]
    with ProgressBars() as progress:
        encode_parts(plan, parts, workers=workers, progress=progress)
    click.echo(f"{out}: {len(parts)} of {len(plan.parts)} parts encoded; when all are, run `gemsdata finalise {out}`")
