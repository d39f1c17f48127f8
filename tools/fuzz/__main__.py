"""Mutate everything that gemsdata reads, and print the outcomes.

    python -m tools.fuzz --tries 10000 --seed 0 --markdown docs/reliability_fuzz.md

Each mutated input is read in a worker process with limits: 10 seconds of processor time, 60 seconds
in all, 3 GiB. Outcomes:

* right: it was read, and a second reader agrees with every value;
* refused: a ValueError, OSError or VerificationError with a message of one line;
* bug: anything else, such as a traceback, a crash, a hang, or another value than the second reader's.

`--repeat FORMAT:INDEX` reads one input again in this process, to look at a bug.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import click

from bench.table import commit
from gemsdata.files.publish import write_text
from tools.fuzz.genome_targets import genome_targets
from tools.fuzz.runner import Outcome, Target, mutated_input, run_target
from tools.fuzz.shard_targets import BedTarget, ManifestTarget, NpmiTarget, PackedTarget, ShardTarget
from tools.fuzz.training_targets import BatchRequestTarget, CheckpointTarget, LabelledTarget, LoaderStateTarget
from tools.fuzz.view_targets import ViewManifestTarget, ViewShardTarget


def all_targets(folder: Path) -> list[Target]:
    """Return the targets of all formats; they write to ``folder``."""
    return [
        *genome_targets(folder),
        ManifestTarget(folder),
        ShardTarget(folder, "arrow"),
        ShardTarget(folder, "webdataset"),
        ShardTarget(folder, "arrow", "zstd"),
        ShardTarget(folder, "webdataset", "zstd"),
        PackedTarget(folder),
        ViewManifestTarget(folder),
        ViewShardTarget(folder, "arrow"),
        ViewShardTarget(folder, "webdataset", "zstd"),
        NpmiTarget(folder),
        BedTarget(folder),
        LabelledTarget(folder, "\t"),
        LabelledTarget(folder, ","),
        LoaderStateTarget(folder),
        CheckpointTarget(folder),
        BatchRequestTarget(folder),
    ]


def markdown(outcomes: list[Outcome], seed: int) -> str:
    """Return the table of outcomes as a Markdown document."""
    lines = [
        "# Mutated input",
        "",
        f"Made by `python -m tools.fuzz --tries {outcomes[0].tries} --seed {seed}` (`make fuzz`) at commit {commit()}.",
        "",
        "* Right: the input was read, and a second reader agrees with every value.",
        "* Refused: an error of one line.",
        "* Bug: a traceback, a crash, a hang, more than 3 GiB, or another value than the second reader's.",
        "",
        "| Format | Tries | Right | Refused | Bugs | Commit |",
        "|---|---:|---:|---:|---:|---|",
        *(f"| {o.name} | {o.tries:,} | {o.right:,} | {o.refused:,} | {o.bugs:,} | {o.commit} |" for o in outcomes),
    ]
    return "\n".join(lines) + "\n"


def _outcomes_before(path: Path | None, tries: int, seed: int) -> list[Outcome]:
    """Return the outcomes of a run with the same number of tries and the same seed that was stopped."""
    if path is None or not path.exists():
        return []
    stored = json.loads(path.read_text())
    if any((one["tries"], one.pop("seed")) != (tries, seed) for one in stored):
        raise click.UsageError(f"{path} is of another --tries or --seed; remove it, or give another file")
    return [Outcome(**one) for one in stored]


@click.command(help=__doc__.replace("\n    python", "\n\b\n    python"))
@click.option("--tries", type=click.IntRange(1), default=10_000, show_default=True, help="Inputs of each format.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--format", "formats", multiple=True, help="Only this format; repeat for several.")
@click.option("--markdown", "markdown_path", type=click.Path(path_type=Path), help="Write the table to this file.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    help="Write outcomes and bugs to this file; formats in it are not tried again.",
)
@click.option("--repeat", metavar="FORMAT:INDEX", help="Read one input again, in this process.")
def main(
    tries: int,
    seed: int,
    formats: tuple[str, ...],
    markdown_path: Path | None,
    json_path: Path | None,
    repeat: str | None,
) -> None:
    """Run the fuzzer."""
    with tempfile.TemporaryDirectory(prefix="gemsdata-fuzz-") as name:
        targets = all_targets(Path(name))
        known = {target.name: target for target in targets}
        if repeat:
            name, index = repeat.rsplit(":", 1)
            known[name].prepare()
            known[name].run(mutated_input(known[name], seed, int(index)))
            return
        if unknown := set(formats) - known.keys():
            raise click.BadParameter(f"{min(unknown)!r} is none of {', '.join(known)}")
        outcomes = _outcomes_before(json_path, tries, seed)
        done = {outcome.name for outcome in outcomes}
        for target in targets:
            if (formats and target.name not in formats) or target.name in done:
                continue
            outcome = run_target(target, tries, seed)
            outcome.commit = commit()
            outcomes.append(outcome)
            if json_path:
                write_text(
                    json_path, json.dumps([{**dataclasses.asdict(one), "seed": seed} for one in outcomes], indent=1)
                )
            click.echo(
                f"{outcome.name}: {outcome.tries:,} tries, {outcome.right:,} right, {outcome.refused:,} refused, "
                f"{outcome.bugs:,} bugs in {outcome.seconds:.0f} s"
            )
            for example in outcome.examples:
                click.echo(f"  {example['index']}: {example['error']}")
    if markdown_path:
        markdown_path.write_text(markdown(outcomes, seed))
    sys.exit(any(outcome.bugs for outcome in outcomes))


if __name__ == "__main__":
    main()
