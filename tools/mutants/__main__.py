"""Command line of mutation testing.

    python -m tools.mutants [--per-file N] [--seed S] [--only PATH ...] [--seconds S] [--results FILE]
                            [--known-only] [--markdown FILE]

Every mutant runs in a separate process, with the kernels as plain Python, on the tests that call its function and need
no real genomes. A mutant is killed if a test fails or a time limit is exceeded. A survivor that changes nothing
observable is listed with the reason in ``tools/mutants/equivalent.json``; any other survivor makes the exit status 1. A
stopped campaign continues where it stopped.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from tools.mutants.campaign import Outcome, Results, choose, outdated, run
from tools.mutants.operators import REPOSITORY
from tools.mutants.processes import prepare

KINDS = ("killed", "time limit", "equivalent", "survived", "not called")


@click.command()
@click.option("--per-file", type=int, default=12, show_default=True, help="Most mutants of one source file.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of mutants.")
@click.option("--only", multiple=True, help="Source file or folder, relative to the repository; may be repeated.")
@click.option("--seconds", type=float, default=30, show_default=True, help="Processor time of the tests of a mutant.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, resolve_path=True),
    default=Path(tempfile.gettempdir()) / "gemsdata_mutants.json",
    show_default=True,
    help="File with every mutant and its outcome.",
)
@click.option("--known-only", is_flag=True, help="Try no mutants; report the stored results.")
@click.option("--markdown", type=click.Path(path_type=Path, resolve_path=True), help="Write the tables to this file.")
def main(
    per_file: int,
    seed: int,
    only: tuple[str, ...],
    seconds: float,
    results: Path,
    known_only: bool,
    markdown: Path | None,
) -> None:
    """Try mutants; exit with 1 if one survives that is not known to be equivalent."""
    os.chdir(REPOSITORY)
    prepare()
    for key in (stale := outdated()):
        print(f"equivalent.json names no mutant: {key}", file=sys.stderr)
    chosen = choose(per_file, seed, only)
    try:
        outcomes = run(chosen, Results(results), seconds, _tell, known_only=known_only)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print("\n".join(table(outcomes)))
    if markdown:
        markdown.write_text(document(outcomes, per_file, seed))
    sys.exit(bool(stale) or any(found.kind in ("survived", "not called") for found in outcomes))


def _tell(found: Outcome) -> None:
    if found.kind == "survived":
        print(f"survived: {found.mutant.line}: {found.mutant.key} {found.end}", flush=True)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the lines of a Markdown table of the outcomes by source file."""
    lines = ["| source | mutants | " + " | ".join(KINDS) + " |", "| --- " + "| ---: " * (1 + len(KINDS)) + "|"]
    for path in [*dict.fromkeys(found.mutant.path for found in outcomes), "all"]:
        counts = Counter(found.kind for found in outcomes if path in (found.mutant.path, "all"))
        lines.append(f"| {path} | {counts.total()} | " + " | ".join(str(counts[kind]) for kind in KINDS) + " |")
    return lines


def document(outcomes: Sequence[Outcome], per_file: int, seed: int) -> str:
    """Return a Markdown page: the table, and the mutants that are equivalent or survive."""
    lines = [
        "# Mutation testing",
        "",
        f"Written by `python -m tools.mutants --per-file {per_file} --seed {seed} --markdown FILE`. A mutant is the "
        "source with one operator, number, condition or call changed. It is killed when a test fails, or when the "
        "tests use up their processor time (time limit). The kernels run as plain Python. Not called: the test files "
        "that are listed for the source do not call the function, so that nothing is known of the mutant. "
        f"At most {per_file} mutants of each file were tried, chosen by a seeded hash.",
        "",
        *table(outcomes),
    ]
    for kind, title in (
        ("equivalent", "Equivalent mutants"),
        ("survived", "Survivors"),
        ("not called", "Not called by the tests of the target"),
    ):
        listed = [found for found in outcomes if found.kind == kind]
        if listed:
            lines += ["", f"## {title}", ""]
            for found in listed:
                mutant = found.mutant
                reason = f": {found.end}" * bool(found.end)
                lines.append(f"* `{mutant.path}`, `{mutant.scope}`: `{mutant.before}` → `{mutant.after}`{reason}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
