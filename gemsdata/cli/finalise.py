"""``gemsdata finalise``: write the manifest of a shard set whose parts are all encoded."""

from __future__ import annotations

from pathlib import Path

import click

from gemsdata.cli.options import shards_argument
from gemsdata.cli.output import json_option, print_json, say
from gemsdata.cli.shard import report_set
from gemsdata.shards.write import finalise_place


@click.command("finalise")
@shards_argument
@json_option
def command(shards: str | Path, as_json: bool) -> None:
    """Write the manifest of the planned shard set SHARDS after all parts are encoded; missing parts are listed.

    \b
    Example:
      gemsdata finalise SHARDS
    """
    manifest, summary = finalise_place(shards)
    if summary is not None:
        report_set(shards, manifest, summary, as_json=as_json)
    elif as_json:
        print_json({"folder": str(shards), "complete": True, "fingerprint": manifest.fingerprint})
    else:
        say(f"{shards}: complete, fingerprint {manifest.fingerprint[:16]}")
