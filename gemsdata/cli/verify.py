"""``gemsdata verify``: compare a shard set with its manifest and its FASTA."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gemsdata.cli.progress import ProgressBars
from gemsdata.shards.verify.shard_set import verify


@click.command("verify")
@click.argument("shards", type=click.Path(path_type=Path))
@click.option(
    "--fasta", multiple=True, type=str, help="The genome; repeat for several files, in the order they were given."
)
def command(shards: Path, fasta: tuple[str, ...]) -> None:
    """Check files, hashes and rows of the shard set SHARDS; with --fasta also everything that follows from the genome.

    Each check that holds is printed. Exit status 1 and the first difference if one does not.
    """
    began = time.perf_counter()
    with ProgressBars() as progress:
        verdict = verify(shards, fasta, progress)
    for check in verdict.checks:
        click.echo(f"ok: {check}")
    if not verdict.against_fasta:
        click.echo("note: without --fasta the rows were not compared with the genome")
    seconds = time.perf_counter() - began
    click.echo(
        f"{shards}: {verdict.num_rows:,} rows, {verdict.num_tokens:,} tokens, {verdict.num_files} files "
        f"in {seconds:.1f} s"
    )
