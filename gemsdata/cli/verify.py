"""``gemsdata verify``: is the set what its manifest, and its FASTA, say?"""

from __future__ import annotations

import time
from pathlib import Path

import click

from gemsdata.cli.progress import ProgressBars
from gemsdata.shards.verify.rows import verify


@click.command("verify")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--fasta", multiple=True, type=str, help="The genome; repeat for several files, in the order they were given."
)
def command(out: Path, fasta: tuple[str, ...]) -> None:
    """Check files, hashes and counts of the shard set OUT; with --fasta also every row, window, count and rank.

    Exit status 1 and the first difference if something is not as it should be.
    """
    began = time.perf_counter()
    with ProgressBars() as progress:
        verdict = verify(out, fasta, progress)
    for check in verdict.checks:
        click.echo(f"ok: {check}")
    if not verdict.against_fasta:
        click.echo("note: without --fasta the rows were not compared with the genome")
    seconds = time.perf_counter() - began
    click.echo(
        f"{out}: {verdict.num_rows:,} rows, {verdict.num_tokens:,} tokens, {verdict.num_files} files in {seconds:.1f} s"
    )
