"""``gemsdata npmi``: write the NPMI table of a genome."""

from __future__ import annotations

import time
from pathlib import Path

import click

from gemsdata.cli.options import ESTIMATOR_HELP, PATH, canonical_option, genome_argument, min_count_option
from gemsdata.cli.output import json_option, print_json, say
from gemsdata.cli.progress import ProgressBars
from gemsdata.genome.vocab import all_kmers
from gemsdata.npmi.estimators import ESTIMATORS
from gemsdata.npmi.table import NpmiTable


@click.command("npmi")
@genome_argument
@click.option("-o", "--out", required=True, type=PATH, help="Parquet file to write.")
@click.option("-k", "--max-k", "max_k", type=int, default=10, show_default=True, help="Longest n-gram, 1 to 12.")
@click.option(
    "--estimator", type=click.Choice(ESTIMATORS), default="published", show_default=True, help=f"{ESTIMATOR_HELP}."
)
@min_count_option
@canonical_option
@click.option("--exclude-soft-masked", is_flag=True, help="Do not count lower-case bases.")
@json_option
def command(
    genome: tuple[str, ...],
    out: Path,
    max_k: int,
    estimator: str,
    min_count: int,
    canonical: bool,
    exclude_soft_masked: bool,
    as_json: bool,
) -> None:
    """Count all n-grams of up to MAX-K bases of a genome; write counts, and PMI, NPMI and ranks of all estimators.

    \b
    Examples:
      gemsdata npmi hg38.fa.gz -o human.parquet
      gemsdata npmi hg38.fa.gz -o human6.parquet -k 6 --canonical
    """
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
    shares = {k: table.share_without_score(k) for k in table.counts if k > 1}
    if as_json:
        num_ngrams = sum(4**k for k in table.counts)
        print_json({"file": str(out), "num_bases": bases, "num_ngrams": num_ngrams, "share_without_score": shares})
        return
    say(f"{bases:,} bases counted{' on both strands' if canonical else ''} in {seconds:.1f} s")
    for k, share in shares.items():
        say(f"k = {k}: {share:.1%} of {4**k:,} k-mers occur fewer than {min_count} times")
    k = min(6, max_k)
    if k > 1:
        scores = table.scores(k)
        best = scores.rank.argsort(kind="stable")[:8]
        names = ", ".join(all_kmers(k)[i].decode() for i in best if scores.npmi[i] == scores.npmi[i])
        say(f"highest {k}-mers by {estimator}: {names or 'none has a score; set a smaller --min-count'}")
    say(f"{out}: {sum(4**k for k in table.counts):,} n-grams")
