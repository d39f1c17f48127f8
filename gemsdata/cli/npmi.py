"""``gemsdata npmi``: FASTA in, NPMI table out."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gemsdata.cli.progress import ProgressBars
from gemsdata.genome.vocab import all_kmers
from gemsdata.npmi.estimators import DISCOUNT_COUNT, ESTIMATORS
from gemsdata.npmi.table import NpmiTable


@click.command("npmi")
@click.argument("genome", nargs=-1, required=True, type=str)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Parquet file to write.")
@click.option("-k", "--max-k", "max_k", type=int, default=10, show_default=True, help="Longest n-gram, 1 to 12.")
@click.option("--estimator", type=click.Choice(ESTIMATORS), default="published", show_default=True)
@click.option("--min-count", type=int, default=DISCOUNT_COUNT, show_default=True, help="Rarer n-grams get no score.")
@click.option("--canonical", is_flag=True, help="Count both strands.")
@click.option("--exclude-soft-masked", is_flag=True, help="Leave lower-case bases out.")
def command(
    genome: tuple[str, ...],
    out: Path,
    max_k: int,
    estimator: str,
    min_count: int,
    canonical: bool,
    exclude_soft_masked: bool,
) -> None:
    """Count every n-gram of 1 .. max-k bases of GENOME and write counts, PMI, NPMI and ranks of all estimators."""
    began = time.perf_counter()
    if out.is_dir():
        raise ValueError(f"{out} is a folder; give the name of a Parquet file")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"{out.absolute().parent}: no such folder to write {out.name} in")
    with ProgressBars() as progress:
        table = NpmiTable.from_fasta(
            *genome,
            max_k=max_k,
            estimator=estimator,
            min_count=min_count,
            canonical=canonical,
            exclude_soft_masked=exclude_soft_masked,
            progress=progress,
        )
    table.to_parquet(out)
    seconds = time.perf_counter() - began
    bases = int(table.counts[1].sum())
    click.echo(f"{bases:,} bases counted{' on both strands' if canonical else ''} in {seconds:.1f} s")
    for k in table.counts:
        if k > 1:
            click.echo(
                f"k = {k}: {table.share_without_score(k):.1%} of {4**k:,} k-mers occur fewer than {min_count} times"
            )
    k = min(6, max_k)
    if k > 1:
        scores = table.scores(k)
        best = scores.rank.argsort(kind="stable")[:8]
        names = ", ".join(all_kmers(k)[i].decode() for i in best if scores.npmi[i] == scores.npmi[i])
        click.echo(f"highest {k}-mers by {estimator}: {names or 'none has a score; set a smaller --min-count'}")
    click.echo(f"{out}: {sum(4**k for k in table.counts):,} n-grams")
