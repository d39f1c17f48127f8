"""``gemsdata verify``: compare a shard set with its manifest and its FASTA."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import click

from gemsdata.cli.options import shards_argument
from gemsdata.cli.output import json_option, print_json, say
from gemsdata.cli.progress import ProgressBars
from gemsdata.shards.verify.shard_set import verify


@click.command("verify")
@shards_argument
@click.option(
    "--fasta",
    multiple=True,
    type=str,
    help="The genome of the set; repeat for several files, in the same order as for `gemsdata shard`.",
)
@json_option
def command(shards: str | Path, fasta: tuple[str, ...], as_json: bool) -> None:
    """Check files, hashes and rows of the shard set SHARDS; with --fasta also everything derived from the genome.

    Each check that passes is printed. If one fails, the first difference is printed and the exit status is 1.

    \b
    Examples:
      gemsdata verify human
      gemsdata verify human --fasta hg38.fa.gz
    """
    began = time.perf_counter()
    with ProgressBars() as progress:
        verdict = verify(shards, fasta, progress)
    if as_json:
        print_json(dataclasses.asdict(verdict))
        return
    for check in verdict.checks:
        say(f"ok: {check}")
    if not verdict.against_fasta:
        say("note: without --fasta the rows were not compared with the genome")
    seconds = time.perf_counter() - began
    rows, tokens = ("blocks", "bases") if verdict.packed else ("rows", "tokens")
    say(
        f"{shards}: {verdict.num_rows:,} {rows}, {verdict.num_tokens:,} {tokens}, {verdict.num_files} files "
        f"in {seconds:.1f} s"
    )
