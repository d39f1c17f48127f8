"""Self-contained HTML report of a shard set and its training runs; requires the extra ``gemsdata[plot]``."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import jinja2

import gemsdata
from gemsdata.files.progress import Progress, no_progress
from gemsdata.inspect.report.masks import mask_section
from gemsdata.inspect.report.runs import run_names, run_section
from gemsdata.inspect.report.sequence import contig_section, npmi_section, set_section
from gemsdata.shards.shard_set import ShardSet

__all__ = ["render"]

_TEMPLATE = "page.html.jinja"
DEFAULT_AUDIT_ROWS = 1000


def render(
    shards: str | Path,
    runs: Sequence[str | Path] = (),
    *,
    other: str | Path | None = None,
    region: str | None = None,
    audit_rows: int = DEFAULT_AUDIT_ROWS,
    date: datetime.date | None = None,
    progress: Progress = no_progress,
) -> str:
    """Return the report of a shard set as an HTML page; a note replaces any part that cannot be shown.

    ``runs`` are folders with a ``metrics.jsonl`` or with evaluation tables (Markdown, Parquet). ``other`` is a shard
    set or an NPMI table to compare with, ``region`` (contig:start-end) the region of the rank profile, ``audit_rows``
    the number of rows to mask, ``date`` the date on the page (default: today).

    Raises FileNotFoundError or ValueError for a set, a run or a region that does not exist.
    """
    opened = ShardSet.open(shards)
    folders = [Path(run) for run in runs]
    about_runs = run_section(folders)  # first: report a mistyped name before the slow sections
    sections = [
        set_section(opened),
        contig_section(opened),
        npmi_section(opened, other, region, progress),
        mask_section(opened, audit_rows, progress),
        *about_runs,
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gemsdata.inspect.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(_TEMPLATE).render(
        name=opened.name,
        genome=opened.manifest.genome.name,
        fingerprint=opened.manifest.fingerprint,
        version=gemsdata.__version__,
        date=(date or datetime.date.today()).isoformat(),
        runs=run_names(folders),
        sections=sections,
    )
