"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)

shards_argument = click.argument("shards", metavar="SHARDS", type=PATH)
other_option = click.option("--other", type=PATH, help="Another shard set or NPMI table to compare with.")
region_option = click.option(
    "--region",
    help="Region of the rank profile, contig:start-end (0-based, half-open); default: 20 kb of the longest contig.",
)
