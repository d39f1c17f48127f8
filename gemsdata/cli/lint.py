"""``gemsdata lint``: checks of labelled DNA files."""

from __future__ import annotations

import os
import shutil
import textwrap
from pathlib import Path

import click

from gemsdata.cli.output import json_option, print_json, printable
from gemsdata.cli.progress import ProgressBars
from gemsdata.lint import Report, lint
from gemsdata.lint.finding import ADVICE, SEVERITIES, number_of

_COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}
_CODE_WIDTH = 18


@click.command("lint", short_help="Check labelled DNA files for leaks, duplicates and format errors.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--k", type=int, default=6, show_default=True, help="Bases per token.")
@click.option(
    "--across",
    type=click.Choice(["group", "all"]),
    default="group",
    show_default=True,
    help="Compare files within each set, or also across sets.",
)
@json_option
def command(files: tuple[Path, ...], k: int, across: str, as_json: bool) -> int:
    """Check labelled DNA in TSV or CSV files for leaks between splits, duplicates, quotes and shortcuts.

    Files given in one call are one set. A folder stands for all .tsv and .csv files below it, one set per task.

    The exit status is 1 if there are errors; warnings and notes do not change it.

    \b
    Examples:
      gemsdata lint train.tsv dev.tsv test.tsv
      gemsdata lint GUE --across all
      gemsdata lint GUE/tf/4 --json
    """
    with ProgressBars() as progress:
        report = lint(files, k=k, across=across, progress=progress)
    if as_json:
        print_json(report.as_dict())
    else:
        _print(report)
    return int(report.num("error") > 0)


def _print(report: Report) -> None:
    """Print the findings of each set, then the advice for each kind of finding."""
    width = max(60, min(140, shutil.get_terminal_size((120, 24)).columns))
    for one in report.sets:
        click.secho(printable(one.name), bold=True, nl=False)
        click.echo(f": {len(one.num_rows)} files, {sum(one.num_rows.values()):,} rows" if one.num_rows else "")
        for finding in one.findings:
            names = ", ".join(_short(name, one.name) for name in finding.files[:4])
            names += f" and {len(finding.files) - 4} more" if len(finding.files) > 4 else ""
            click.echo("  " + click.style(f"{finding.severity:<8}", fg=_COLORS[finding.severity]), nl=False)
            click.echo(f"{finding.code:<{_CODE_WIDTH}}  {printable(names)}")
            click.echo(_indented(printable(finding.text), width))
            if finding.examples:
                examples = "; ".join(_short_places(example, one.name) for example in finding.examples)
                click.echo(_indented(f"e.g. {printable(examples)}", width))
        if not one.findings:
            click.echo("  no findings")
    codes = [code for code in ADVICE if any(finding.code == code for finding in report.findings)]
    if codes:
        click.echo("\nadvice")
        for code in codes:
            click.echo(f"  {code:<{_CODE_WIDTH}}  {ADVICE[code]}")
    click.echo("\n" + ", ".join(number_of(report.num(severity), severity) for severity in SEVERITIES))


def _indented(text: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent=" " * 10, subsequent_indent=" " * 10, break_on_hyphens=False)


def _short(path: str, folder: str) -> str:
    """Return a path relative to the folder of its set."""
    return path.removeprefix(folder.rstrip(os.sep) + os.sep)


def _short_places(example: str, folder: str) -> str:
    return " ".join(_short(part, folder) for part in example.split(" "))
