"""``gemsdata encode``: encode parts of a planned shard set."""

from __future__ import annotations

from pathlib import Path

import click

from gemsdata.cli.options import shards_argument, workers_option
from gemsdata.cli.output import json_option, print_json, say
from gemsdata.cli.progress import ProgressBars
from gemsdata.files.remote_folder import is_url
from gemsdata.shards.work_folder import is_complete
from gemsdata.shards.write import encode_slice


@click.command("encode")
@shards_argument
@click.option("--slice", "part_slice", default="0/1", show_default=True, help="I/N: every N-th part from part I on.")
@workers_option
@json_option
def command(shards: str | Path, part_slice: str, workers: int, as_json: bool) -> None:
    """Encode parts of the shard set SHARDS that `gemsdata shard --plan-only` planned; finished parts are skipped.

    \b
    Examples:
      gemsdata shard genome.fa -o SHARDS --plan-only
      gemsdata encode SHARDS --slice 0/2
      gemsdata encode SHARDS --slice 1/2
      gemsdata finalise SHARDS
    """
    index, _, count = part_slice.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"--slice {part_slice}; give I/N with 0 <= I < N, such as 0/8 to 7/8 for eight machines")
    with ProgressBars() as progress:
        encoded = encode_slice(shards, int(index), int(count), workers=workers, progress=progress)
    if encoded is None:
        if as_json:
            print_json(
                {"folder": str(shards), "num_encoded": 0, "complete": is_url(shards) or is_complete(Path(shards))}
            )
        else:
            say(f"{shards}: every part was encoded before; `gemsdata finalise {shards}` reports on the set")
        return
    num_encoded, num_parts = encoded
    if as_json:
        print_json({"folder": str(shards), "num_encoded": num_encoded, "num_parts": num_parts})
    else:
        say(
            f"{shards}: {num_encoded} of {num_parts} parts encoded; after all parts are encoded, run "
            f"`gemsdata finalise {shards}`"
        )
