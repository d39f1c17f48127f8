"""``gemsdata plot``: figures of a shard set or an NPMI table."""

from __future__ import annotations

from pathlib import Path

import click

from gemsdata.cli.options import PATH, PLACE, other_option, region_option
from gemsdata.cli.output import say
from gemsdata.cli.progress import ProgressBars


@click.command("plot")
@click.argument("shards", metavar="SHARDS|TABLE.parquet", type=PLACE)
@click.option("-o", "--out", "folder", required=True, type=PATH, help="Folder to write the figures to.")
@other_option
@region_option
@click.option("-k", "k", type=int, help="Length of the k-mers; default: that of the tokens.")
def command(shards: str | Path, folder: Path, other: str | Path | None, region: str | None, k: int | None) -> None:
    """Plot figures of a shard set or an NPMI table as PNG and SVG files.

    \b
    Examples:
      gemsdata plot human -o figures
      gemsdata plot human --other yeast -o figures --region chr1:1000000-1020000
      gemsdata plot table.parquet -k 6 -o figures
    """
    from gemsdata.inspect import plot

    source = plot.open_source(shards, k)
    compared = plot.open_source(other, source.k) if other else None
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder for the figures")
    folder.mkdir(parents=True, exist_ok=True)
    with ProgressBars() as progress:
        for name, figure in plot.make_figures(source, compared, region, progress=progress):
            if isinstance(figure, str):
                say(f"{name}: skipped: {figure}")
            else:
                say(f"{name}: " + ", ".join(str(path) for path in plot.save(figure, folder, name)))
