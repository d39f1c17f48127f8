"""``gemsdata shard``: FASTA in, shard set out."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from gemsdata.cli.progress import ProgressBars
from gemsdata.npmi.estimators import DISCOUNT_COUNT, ESTIMATORS
from gemsdata.shards.manifest import COMPRESSIONS, SCHEMES, SPLITS, Manifest
from gemsdata.shards.options import FORMATS, ShardOptions
from gemsdata.shards.write import plan_only as plan_only_shard
from gemsdata.shards.write import shard


@click.command("shard")
@click.argument("genome", nargs=-1, required=True, type=str)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--format", "file_format", type=click.Choice(list(FORMATS)), default="arrow", show_default=True)
@click.option("-k", "k", type=int, default=6, show_default=True, help="Bases of a token, 1 to 12.")
@click.option("--row-tokens", type=int, default=510, show_default=True, help="Token positions of a row.")
@click.option("--windows", "scheme", type=click.Choice(SCHEMES), default="fixed", show_default=True)
@click.option("--valid-contigs", default="", help="Contigs to hold out, comma-separated.")
@click.option("--valid-fraction", type=float, default=0.02, show_default=True, help="Share of the bases to hold out.")
@click.option("--npmi", type=click.Path(), help="Take the ranks from this table instead of this genome.")
@click.option("--estimator", type=click.Choice(ESTIMATORS), help="Default: published, or that of the --npmi table.")
@click.option("--min-count", type=int, default=DISCOUNT_COUNT, show_default=True, help="Rarer n-grams get no score.")
@click.option("--canonical", is_flag=True, help="Count both strands.")
@click.option(
    "--exclude-soft-masked", is_flag=True, help="Leave lower-case bases out of the counts (not out of the rows)."
)
@click.option(
    "--compression", type=click.Choice(COMPRESSIONS), default="none", show_default=True, help="Of Arrow shards."
)
@click.option("--rank-column", is_flag=True, help="Also write the NPMI rank of every token.")
@click.option("--rows-per-shard", type=int, help="A multiple of 1024; chosen by the size of the genome if not given.")
@click.option(
    "--workers", type=int, default=lambda: os.cpu_count() or 1, show_default="all cores", help="Threads that encode."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--plan-only", is_flag=True, help="Only plan; then `gemsdata encode` on any machines, and `finalise`.")
@click.option("--resume", is_flag=True, help="Finish what an interrupted run began.")
@click.option("--overwrite", is_flag=True, help="Replace the shard set that is in the folder.")
def command(
    genome: tuple[str, ...],
    out: Path,
    file_format: str,
    valid_contigs: str,
    workers: int,
    plan_only: bool,
    resume: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Turn GENOME (FASTA or .2bit; gz, bgz, zst; - is standard input; several files are one genome) into shards."""
    began = time.perf_counter()
    contigs = tuple(name for name in valid_contigs.split(",") if name)
    chosen = ShardOptions(format=file_format, valid_contigs=contigs, **options)
    if plan_only:
        with ProgressBars() as progress:
            planned = plan_only_shard(genome, out, chosen, resume=resume, overwrite=overwrite, progress=progress)
        click.echo(f"{out}: planned, {len(planned.parts)} parts; encode them with `gemsdata encode {out} --slice I/N`")
        return
    with ProgressBars() as progress:
        manifest, summary = shard(
            genome, out, chosen, workers=workers, resume=resume, overwrite=overwrite, progress=progress
        )
    click.echo(summary_text(out, manifest, summary, time.perf_counter() - began))


def summary_text(out: Path, manifest: Manifest, summary: dict[str, Any], seconds: float | None = None) -> str:
    """Return what the user is told at the end."""
    lines = [
        f"{summary['bases']:,} bases in {_counted(summary['contigs'], 'contig')}, "
        f"{summary['soft_masked']:,} of them soft-masked"
    ]
    lines += [f"skipped {count:,} bases: {why}" for why, count in summary["skipped"].items() if count]
    num_bytes = 0
    num_rows = 0
    for split in SPLITS:
        shards = manifest.shards(split)
        tokens = sum(shard.num_tokens for shard in shards)
        rows = manifest.num_rows(split)
        num_rows += rows
        num_bytes += sum(file.num_bytes for shard in shards for file in shard.files.values())
        units = ("blocks", "bases") if manifest.packed else ("rows", "tokens")
        lines.append(f"{split}: {rows:,} {units[0]}, {tokens:,} {units[1]} in {_counted(len(shards), 'shard')}")
    written = f"{num_bytes:,} bytes as {' and '.join(manifest.formats)}"
    if seconds:
        rates = f"{num_rows / seconds:,.0f} rows/s, {summary['bases'] / seconds / 1e6:,.1f} Mbase/s"
        written += f" in {seconds:.1f} s ({rates})"
    lines.append(written)
    lines += [f"note: {note}" for note in summary["notes"]]
    lines.append(f"{out}: complete, fingerprint {manifest.fingerprint[:16]}")
    return "\n".join(lines)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
