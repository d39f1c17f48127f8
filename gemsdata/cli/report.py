"""``gemsdata report``: one page about a shard set and its runs."""

from __future__ import annotations

from pathlib import Path

import click

from gemsdata.cli.progress import ProgressBars
from gemsdata.files import publish as atomic


@click.command("report")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("runs", metavar="[RUN ...]", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--out", "page", required=True, type=click.Path(path_type=Path), help="HTML file to write.")
@click.option("--other", type=click.Path(path_type=Path), help="Another shard set or NPMI table, to compare with.")
@click.option("--region", help="Region of the rank profile, contig:start-end; by default 20 kb of the longest contig.")
@click.option("--rows", "audit_rows", type=int, default=1000, show_default=True, help="Rows to mask for the audits.")
def command(
    out: Path, runs: tuple[Path, ...], page: Path, other: Path | None, region: str | None, audit_rows: int
) -> None:
    """Write one self-contained page about the shard set OUT and the training RUNs."""
    try:
        from gemsdata.inspect import report
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        raise ImportError(f"gemsdata report needs {missing}; install it with: pip install 'gemsdata[plot]'") from None
    if page.is_dir():
        raise ValueError(f"{page} is a folder; give the name of an HTML file")
    if not page.absolute().parent.is_dir():
        raise FileNotFoundError(f"{page.absolute().parent}: no such folder to write {page.name} in")
    with ProgressBars() as progress:
        html = report.render(out, runs, other=other, region=region, audit_rows=audit_rows, progress=progress)
    atomic.write_text(page, html)
    click.echo(f"{page}: {page.stat().st_size:,} bytes")
