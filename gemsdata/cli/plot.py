"""``gemsdata plot``: figures of a shard set or an NPMI table."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("plot")
@click.argument("out", metavar="SET", type=click.Path(path_type=Path))
@click.option("-o", "--out", "folder", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--other", type=click.Path(path_type=Path), help="Another shard set or NPMI table, to compare with.")
@click.option("--region", help="Region of the rank profile, contig:start-end; by default 20 kb of the longest contig.")
@click.option("-k", "k", type=int, help="Length of the k-mers, if not that of the set's tokens.")
def command(out: Path, folder: Path, other: Path | None, region: str | None, k: int | None) -> None:
    """Draw figures of SET (a shard set, or an NPMI table) as PNG and SVG."""
    try:
        from gemsdata.inspect import plot
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        raise ImportError(f"gemsdata plot needs {missing}; install it with: pip install 'gemsdata[plot]'") from None
    subject = plot.open_subject(out, k)
    compared = plot.open_subject(other, subject.k) if other else None
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder for the figures")
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in plot.draw(subject, compared, region):
        if isinstance(figure, str):
            click.echo(f"{name}: not drawn: {figure}")
        else:
            click.echo(f"{name}: " + ", ".join(str(path) for path in plot.save(figure, folder, name)))
