"""``gemsdata shard``: convert a genome to a shard set."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import click

from gemsdata.cli.engine_options import engine_options, opened_engine
from gemsdata.cli.options import (
    ESTIMATOR_HELP,
    PLACE,
    canonical_option,
    genome_argument,
    given,
    min_count_option,
    refuse_both,
    workers_option,
)
from gemsdata.cli.output import json_option, print_json, say
from gemsdata.cli.progress import ProgressBars
from gemsdata.cli.view_options import view_options
from gemsdata.npmi.estimators import ESTIMATORS
from gemsdata.shards.card import check_card, dataset_card, write_card
from gemsdata.shards.manifest import COMPRESSIONS, SCHEMES, SPLITS, Manifest
from gemsdata.shards.options import FORMATS, ShardOptions
from gemsdata.shards.summary import counted
from gemsdata.shards.write import plan_only as plan_only_shard
from gemsdata.shards.write import shard
from gemsdata.views.from_genome import shard_view
from gemsdata.views.materialise import WriteOptions
from gemsdata.views.options import ViewOptions

_FORMAT_HELP = "Format of the shards."
_NOT_OF_VIEWS = {"k": "-k", "scheme": "--windows", "rank_column": "--rank-column", "rows_per_shard": "--rows-per-shard"}
"""parameters that define the rows of a set, and their options; they do not apply to rows of a view"""
_WINDOWS_HELP = "fixed: consecutive rows of full length; dnabert: half of the rows of random length."


@click.command("shard")
@genome_argument
@click.option("-o", "--out", required=True, type=PLACE, help="Folder or URL to write the shard set to.")
@click.option(
    "--format", "file_format", type=click.Choice(list(FORMATS)), default="arrow", show_default=True, help=_FORMAT_HELP
)
@click.option("-k", "k", type=int, default=6, show_default=True, help="Bases per token, 1 to 12.")
@click.option("--row-tokens", type=int, default=510, show_default=True, help="Largest number of tokens in a row.")
@click.option("--windows", "scheme", type=click.Choice(SCHEMES), default="fixed", show_default=True, help=_WINDOWS_HELP)
@view_options("row_tokens")
@click.option("--valid-contigs", default="", help="Comma-separated names of the contigs of the validation split.")
@click.option(
    "--valid-fraction",
    type=float,
    default=0.02,
    show_default=True,
    help="Share of the bases in the validation split, as regions of up to 1 Mb.",
)
@click.option("--npmi", type=click.Path(), help="Take the ranks from this NPMI table instead of the genome.")
@click.option(
    "--estimator",
    type=click.Choice(ESTIMATORS),
    help=f"{ESTIMATOR_HELP}; default: published, or the estimator of the --npmi table.",
)
@min_count_option
@canonical_option
@click.option("--exclude-soft-masked", is_flag=True, help="Do not count lower-case bases (rows still contain them).")
@click.option(
    "--compression", type=click.Choice(COMPRESSIONS), default="none", show_default=True, help="Codec of the shards."
)
@click.option("--rank-column", is_flag=True, help="Also write a column with the NPMI rank of every token.")
@click.option("--rows-per-shard", type=int, help="A multiple of 1024; default: depends on the size of the genome.")
@workers_option
@engine_options
@click.option("--seed", type=int, default=0, show_default=True, help="Random key of the row order and the split.")
@click.option("--plan-only", is_flag=True, help="Only write the plan for `gemsdata encode` and `gemsdata finalise`.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run with the same input and options.")
@click.option("--card", "with_card", is_flag=True, help="Also write README.md, a Hugging Face dataset card.")
@click.option("--overwrite", is_flag=True, help="Replace the shard set in the output folder.")
@json_option
def command(
    genome: tuple[str, ...],
    out: str | Path,
    file_format: str,
    valid_contigs: str,
    workers: int,
    engine: str,
    engine_options: tuple[str, ...],
    plan_only: bool,
    resume: bool,
    overwrite: bool,
    with_card: bool,
    as_json: bool,
    view: ViewOptions,
    **options: Any,
) -> None:
    """Convert a genome to a shard set of tokenized rows, or of packed bases.

    With --tokens, --row-bases or --regions, rows are those of a view. With --format packed, they are chosen when the
    set is read.

    GENOME is FASTA (plain, gzip, bgzip, bzip2, xz or zstd; - is standard input) or .2bit. Several files are one genome.

    \b
    Examples:
      gemsdata shard hg38.fa.gz -o human
      gemsdata shard hg38.fa.gz -o human --valid-contigs chr8,chr9 --format both
      gemsdata shard hg38.fa.gz -o human --resume
      gemsdata shard hg38.fa.gz -o human --format packed
      gemsdata shard hg38.fa.gz -o human --tokens base --row-bases 1024
      gemsdata shard hg38.fa.gz -o s3://bucket/human
      gemsdata shard assemblies/*.fa.gz -o many --engine slurm --engine-option slurm_partition=cpu --workers 32
    """
    refuse_both("valid_contigs", "valid_fraction")
    refuse_both("resume", "overwrite")
    refuse_both("plan_only", "with_card")
    began = time.perf_counter()
    contigs = tuple(name for name in valid_contigs.split(",") if name)
    if with_card:
        check_card(out)
    if view.changed():
        with ProgressBars() as progress:
            run = {"workers": workers, "resume": resume, "overwrite": overwrite, "progress": progress}
            manifest, summary = _shard_view(genome, out, view, file_format, {"valid_contigs": contigs, **options}, run)
        if with_card:
            write_card(out, dataset_card(manifest))
        report_set(out, manifest, summary, as_json=as_json, seconds=time.perf_counter() - began)
        return
    chosen = ShardOptions(format=file_format, valid_contigs=contigs, **options)
    if plan_only:
        with ProgressBars() as progress, opened_engine(engine, engine_options, workers, out) as executor:
            planned = plan_only_shard(
                genome, out, chosen, resume=resume, overwrite=overwrite, executor=executor, progress=progress
            )
        if as_json:
            print_json({"folder": str(out), "num_parts": len(planned.parts)})
        else:
            say(f"{out}: planned, {len(planned.parts)} parts; encode them with `gemsdata encode {out} --slice I/N`")
        return
    with ProgressBars() as progress, opened_engine(engine, engine_options, workers, out) as executor:
        manifest, summary = shard(
            genome,
            out,
            chosen,
            workers=workers,
            resume=resume,
            overwrite=overwrite,
            executor=executor,
            progress=progress,
        )
    if with_card:
        write_card(out, dataset_card(manifest))
    report_set(out, manifest, summary, as_json=as_json, seconds=time.perf_counter() - began)


def _shard_view(
    genome: tuple[str, ...],
    out: str | Path,
    view: ViewOptions,
    file_format: str,
    options: dict[str, Any],
    run: dict[str, Any],
) -> tuple[Manifest, dict[str, Any]]:
    """Write rows of a view; ``options`` are the options of the command, some of which do not apply."""
    _refuse_with_views(file_format)
    if given("row_tokens"):
        view = dataclasses.replace(view, row_tokens=options["row_tokens"])
    rows = WriteOptions(format=file_format, compression=options["compression"], seed=options["seed"])
    kept = {name: value for name, value in options.items() if name not in _NOT_OF_VIEWS and name != "compression"}
    del kept["row_tokens"]
    return shard_view(genome, out, ShardOptions(**kept), view, rows, **run)


def _refuse_with_views(file_format: str) -> None:
    """Raise a usage error for an option that does not apply to rows of a view."""
    ctx = click.get_current_context()
    if file_format == "packed":
        raise click.UsageError(
            "--format packed stores bases: give --tokens and the other options of views when the set is read", ctx
        )
    for name, label in {**_NOT_OF_VIEWS, "plan_only": "--plan-only", "engine": "--engine"}.items():
        if given(name):
            raise click.UsageError(f"{label} does not apply to rows of a view (--tokens and the like)", ctx)


def report_set(
    out: str | Path, manifest: Manifest, summary: dict[str, Any], *, as_json: bool, seconds: float | None = None
) -> None:
    """Print the summary of a complete shard set, as text or as JSON."""
    if as_json:
        splits = {split: {"num_rows": manifest.num_rows(split)} for split in manifest.splits}
        fields = {"folder": str(out), "fingerprint": manifest.fingerprint, "splits": splits, "summary": summary}
        print_json(fields | ({"seconds": round(seconds, 3)} if seconds else {}))
    else:
        say(summary_text(out, manifest, summary, seconds))


def summary_text(out: str | Path, manifest: Manifest, summary: dict[str, Any], seconds: float | None = None) -> str:
    """Return the summary of a complete shard set as text."""
    lines = [
        f"{summary['bases']:,} bases in {counted(summary['contigs'], 'contig')}, "
        f"{summary['soft_masked']:,} of them soft-masked"
    ]
    lines += [f"skipped {count:,} bases: {why}" for why, count in summary["skipped"].items() if count]
    num_bytes = 0
    num_rows = 0
    for split in SPLITS:
        shards = manifest.shards(split)
        tokens = manifest.num_tokens(split)
        rows = manifest.num_rows(split)
        num_rows += rows
        num_bytes += manifest.num_bytes(split)
        units = ("blocks", "bases") if manifest.packed else ("rows", "tokens")
        lines.append(f"{split}: {rows:,} {units[0]}, {tokens:,} {units[1]} in {counted(len(shards), 'shard')}")
    written = f"{num_bytes:,} bytes as {' and '.join(manifest.formats)}"
    if seconds:
        rates = f"{num_rows / seconds:,.0f} rows/s, {summary['bases'] / seconds / 1e6:,.1f} Mbase/s"
        written += f" in {seconds:.1f} s ({rates})"
    lines.append(written)
    lines += [f"note: {note}" for note in summary["notes"]]
    lines.append(f"{out}: complete, fingerprint {manifest.fingerprint[:16]}")
    return "\n".join(lines)
