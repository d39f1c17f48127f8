"""``gemsdata plot``: figures of a shard set or an NPMI table."""

from __future__ import annotations

from pathlib import Path

import click

from gemsdata.cli.options import other_option, region_option


@click.command("plot")
@click.argument("shards", metavar="SHARDS|TABLE.parquet", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", "folder", required=True, type=click.Path(path_type=Path), help="Folder to write the figures to."
)
@other_option
@region_option
@click.option("-k", "k", type=int, help="Length of the k-mers; default: that of the tokens.")
def command(shards: Path, folder: Path, other: Path | None, region: str | None, k: int | None) -> None:
    """Plot figures of a shard set or an NPMI table as PNG and SVG files."""
    try:
        from gemsdata.inspect import plot
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        raise ImportError(f"gemsdata plot needs {missing}; install it with: pip install 'gemsdata[plot]'") from None
    source = plot.open_source(shards, k)
    compared = plot.open_source(other, source.k) if other else None
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder for the figures")
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in plot.make_figures(source, compared, region):
        if isinstance(figure, str):
            click.echo(f"{name}: skipped: {figure}")
        else:
            click.echo(f"{name}: " + ", ".join(str(path) for path in plot.save(figure, folder, name)))
