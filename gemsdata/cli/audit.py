"""``gemsdata audit``: statistics and alerts about a masking strategy on the rows of a shard set."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import click

from gemsdata.cli.masking_options import masking_options
from gemsdata.cli.options import shards_argument
from gemsdata.cli.output import json_option, print_json, printable
from gemsdata.cli.progress import ProgressBars
from gemsdata.cli.view_options import view_options
from gemsdata.inspect.audit import Audit, audit
from gemsdata.masking.strategies import Strategy
from gemsdata.shards.storage import place_name
from gemsdata.views.options import ViewOptions
from gemsdata.views.view import open_view

_COLORS = {"alarm": "red", "warning": "yellow"}


@click.command("audit")
@shards_argument
@masking_options
@view_options()
@click.option(
    "--rows",
    "num_rows",
    type=int,
    default=2000,
    show_default=True,
    help="Number of rows to mask, evenly spaced over the split.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Also write a figure to this file (.png, .svg, .pdf).")
@json_option
@click.option("--strict", is_flag=True, help="Exit with status 1 if there is any warning or alarm.")
def command(
    shards: str | Path,
    strategy: Strategy,
    view: ViewOptions,
    split: str,
    seed: int,
    stage: int,
    num_rows: int,
    plot: Path | None,
    as_json: bool,
    strict: bool,
) -> int:
    """Mask rows of the shard set SHARDS and report what is masked, what stays visible, and any problems.

    A packed set is read with --tokens (default kmer:6) and the other options of views.

    \b
    Examples:
      gemsdata audit SHARDS --masking genemask
      gemsdata audit SHARDS --masking global-nms --budget 0.15 --plot audit.png
      gemsdata audit SHARDS --masking genemask --json --strict
      gemsdata audit PACKED --tokens base --row-bases 1024 --masking genemask
    """
    with ProgressBars() as progress:
        result = audit(
            open_view(shards, view), strategy, num_rows=num_rows, split=split, seed=seed, stage=stage, progress=progress
        )
    if plot:
        from gemsdata.inspect.audit_figure import plot_audit

        plot_audit(result, plot, name=place_name(shards))
    if as_json:
        print_json(result.as_dict())
    else:
        _print(result)
    for alert in result.alerts:
        click.secho(f"{alert.level}: {printable(alert.text)}", err=as_json, fg=_COLORS[alert.level], bold=True)
    return int(strict and bool(result.alerts))


def _print(result: Audit) -> None:
    """Print the audit as a table."""
    options = {key: value for key, value in result.masking.items() if key not in ("name", "masking_version") and value}
    rows = [
        ("masking", f"{result.masking['name']} ({', '.join(f'{key} {value}' for key, value in options.items())})"),
        ("rows", f"{result.num_rows:,} of {result.num_tokens:,} tokens {result.tokens}"),
        ("masked tokens", f"{result.masked_token_rate:.2%}"),
        ("hidden nucleotides", f"{result.hidden_nucleotide_rate:.2%}"),
        ("masked tokens visible in unmasked neighbours", f"{result.given_away_by_unmasked:.2%}"),
        ("... and in kept (unchanged) masked tokens", f"{result.given_away_by_kept:.2%}"),
        ("hidden nucleotides visible in kept tokens", f"{result.hidden_shown_by_kept:.2%}"),
        ("mean NPMI rank of chosen n-grams", _number(result.mean_rank_of_chosen)),
        ("mean NPMI rank of all n-grams", _number(result.mean_rank_of_tokens)),
        ("same mask for another row with the same key", _share(result.same_mask_share)),
        ("masked rate in soft-masked sequence", _share(result.rate_in_soft_masked)),
        ("masked rate elsewhere", _share(result.rate_outside_soft_masked)),
    ]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        click.echo(f"{name:<{width}}  {text}")
    click.echo("\nmasked rate by position (tenths of a row)")
    click.echo("  " + "  ".join(_share(rate) for rate in _tenths(result.rate_by_position)))
    if result.rate_by_rank_decile:
        click.echo("masked rate by NPMI rank decile (best first)")
        click.echo("  " + "  ".join(_share(rate) for rate in result.rate_by_rank_decile))
    click.echo("lengths of runs of masked tokens (length: share of runs)")
    total = sum(result.run_lengths.values())
    shares = sorted(result.run_lengths.items(), key=lambda item: -item[1])[:10]
    click.echo("  " + "  ".join(f"{length}: {count / total:.1%}" for length, count in shares))
    click.echo("tokens with the highest masked rate (NPMI rank: masked share of occurrences)")
    for entry in result.most_masked_kmers[:10]:
        click.echo(
            f"  {entry['kmer']}  {entry['rank'] or '-':>6}: {entry['masked_rate']:.1%} of {entry['occurrences']:,}"
        )
    click.echo()


def _tenths(rates: list[float | None]) -> list[float | None]:
    """Return the mean rate of each tenth of the positions."""
    cuts = [len(rates) * i // 10 for i in range(11)]
    known = [[rate for rate in rates[lo:hi] if rate is not None] for lo, hi in pairwise(cuts)]
    return [sum(part) / len(part) if part else None for part in known]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
