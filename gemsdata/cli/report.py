"""``gemsdata report``: an HTML report of a shard set and its training runs."""

from __future__ import annotations

from pathlib import Path

import click

from gemsdata.cli.options import PATH, other_option, region_option, shards_argument
from gemsdata.cli.output import say
from gemsdata.cli.progress import ProgressBars
from gemsdata.files.publish import write_text


@click.command("report")
@shards_argument
@click.argument("runs", metavar="[RUN ...]", nargs=-1, type=PATH)
@click.option("-o", "--out", "page", required=True, type=PATH, help="HTML file to write.")
@other_option
@region_option
@click.option("--rows", "audit_rows", type=int, default=1000, show_default=True, help="Rows to mask for the audits.")
def command(
    shards: str | Path,
    runs: tuple[Path, ...],
    page: Path,
    other: str | Path | None,
    region: str | None,
    audit_rows: int,
) -> None:
    """Write a self-contained HTML page about the shard set SHARDS and the output folders RUN of training runs.

    With only the folders of runs, the set is that of the first.

    \b
    Examples:
      gemsdata report human -o report.html
      gemsdata report runs/genemask -o report.html
      gemsdata report human runs/genemask runs/cm-gems --other yeast -o report.html
    """
    from gemsdata.inspect import report
    from gemsdata.inspect.report.runs import is_run, set_of_run

    if page.is_dir():
        raise ValueError(f"{page} is a folder; give the name of an HTML file")
    if not page.absolute().parent.is_dir():
        raise FileNotFoundError(f"{page.absolute().parent}: no such folder to write {page.name} in")
    if is_run(shards):
        runs = (Path(shards), *runs)
        shards = set_of_run(runs[0])
    with ProgressBars() as progress:
        html = report.render(shards, runs, other=other, region=region, audit_rows=audit_rows, progress=progress)
    write_text(page, html)
    say(f"{page}: {page.stat().st_size:,} bytes")
