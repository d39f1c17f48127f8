"""Check a GPU, measure rates, pretrain with the papers' maskings at their own size, and evaluate, in slices.

    python -m tools.gpu_campaign --prepare hg38_chr1.fa.gz --fewshot fewshot --gue GUE --data DATA
    python -m tools.gpu_campaign --data DATA --minutes 25 --output-dir OUT

The second command runs pieces for at most --slice-minutes and ends; started again, it continues, until all pieces are
complete or --minutes are used up. Finished pieces are not repeated. OUT/report.md has all results so far. It needs no
network. With --dry-run the pieces have toy sizes and synthetic data, and a CPU is enough.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import torch

from tools.gpu_campaign.data import prepare, prepare_toy
from tools.gpu_campaign.plan import full_scale, pieces, toy_scale
from tools.gpu_campaign.report import write_report
from tools.gpu_campaign.slices import remaining, run_slice, used_s

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--output-dir", "out", type=_FOLDER, help="Folder of the results.")
@click.option("--data", type=_FOLDER, help="Folder of the data, made by --prepare.")
@click.option("--minutes", type=click.FloatRange(min=0), default=25.0, show_default=True, help="Time of all slices.")
@click.option(
    "--slice-minutes", type=click.FloatRange(min=0), default=9.0, show_default=True, help="Time of this command."
)
@click.option("--grace-seconds", type=click.FloatRange(min=0), default=30.0, show_default=True,
              help="Time within it for interrupted pieces to save.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Toy sizes and synthetic data, on a CPU.")
@click.option("--prepare", "genome", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Write --data from this genome and end.")  # fmt: skip
@click.option("--fewshot", type=_FOLDER, help="With --prepare: folder of the few-shot sets.")
@click.option("--gue", type=_FOLDER, help="With --prepare: folder of GUE.")
def main(
    out: Path | None,
    data: Path | None,
    minutes: float,
    slice_minutes: float,
    grace_seconds: float,
    dry_run: bool,
    genome: Path | None,
    fewshot: Path | None,
    gue: Path | None,
) -> None:
    """Check a GPU, measure rates, pretrain with the papers' maskings at their own size, and evaluate."""
    scale = toy_scale() if dry_run else full_scale()
    try:
        if genome is not None:
            _prepare(genome, fewshot, gue, data, scale.gue_tasks)
            return
        if out is None or (data is None and not dry_run):
            raise ValueError("give --output-dir, and --data made by --prepare (or --dry-run)")
        if not dry_run and not torch.cuda.is_available():
            raise ValueError("there is no GPU; give --dry-run to try everything on a CPU at toy size")
        data = (data or out / "data").resolve()
        if dry_run and not data.exists():
            prepare_toy(data)
        if not (data / "genome").is_dir():
            raise ValueError(f"{data} has no folder genome; make it with --prepare")
    except (ValueError, FileNotFoundError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    out = out.resolve()
    plan = pieces(scale, data, out, mixed_precision="bf16")
    try:
        run_slice(plan, out, minutes=minutes, slice_minutes=slice_minutes, grace_s=grace_seconds)
    finally:
        path = write_report(plan, scale, out)
    left = remaining(plan, out)
    what = f"{len(left)} of {len(plan)} pieces remain; run the same command again" if left else "all pieces are done"
    click.echo(f"{path}: {used_s(plan, out) / 60:.1f} of {minutes:g} minutes used; {what}")


def _prepare(genome: Path, fewshot: Path | None, gue: Path | None, data: Path | None, tasks: tuple[str, ...]) -> None:
    if fewshot is None or gue is None or data is None:
        raise ValueError("--prepare needs --fewshot, --gue and --data")
    size = prepare(genome, fewshot, gue, data, gue_tasks=tasks)
    click.echo(f"{data}: {size:.1f} MB")


if __name__ == "__main__":
    main()
