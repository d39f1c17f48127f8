"""Kill commands, fill disks and change files, and check the resulting data.

    python -m tools.chaos --output-dir OUT --kills 200 --seed 0 --markdown docs/reliability_chaos.md

Commands are killed by SIGKILL, SIGTERM and SIGINT in turn, at random moments of their run, and then continued as a user
would: after a kill the set must be absent, unfinished or complete, and the result must have the same bytes as an
undisturbed run, with no other files left behind. ``--training-kills`` also kills pretrainings and a study, which takes
minutes more. Other faults need Linux and permission to mount a tmpfs. A run with the same OUT continues where it
stopped.
"""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from bench.table import commit, markdown
from gemsdata.files.publish import write_text
from tools.chaos import faults, kills, training
from tools.chaos.shared_cache import shared_cache
from tools.chaos.subjects import subjects

FAULTS: dict[str, faults.Fault] = {**faults.FAULTS, "cache shared by 16 jobs": shared_cache}


class Results:
    """The results so far, stored in a file, so that a stopped run can continue."""

    def __init__(self, path: Path, seed: int, num_kills: int) -> None:
        self._path = path
        settings = {"seed": seed, "kills": num_kills}
        self.content: dict[str, Any] = {**settings, "commits": [], "kills_of": {}, "faults": {}, "training": []}
        if path.exists():
            self.content = json.loads(path.read_text())
            if any(self.content[name] != value for name, value in settings.items()):
                raise click.UsageError(f"{path} is of another --seed or --kills; give another --output-dir")
        if commit() not in self.content["commits"]:
            self.content["commits"].append(commit())

    def save(self) -> None:
        """Write the results so far."""
        write_text(self._path, json.dumps(self.content, indent=1) + "\n")

    @property
    def failures(self) -> int:
        """Number of failures."""
        groups = (self.content["kills_of"].values(), self.content["training"])
        of_kills = sum(len(one["failures"]) for group in groups for one in group)
        return of_kills + sum(bool(one["failure"]) for one in self.content["faults"].values())


def report(results: Results) -> str:
    """Return the results as a Markdown document."""
    content = results.content
    of_kills = [kills.Killed(**one) for one in content["kills_of"].values()]
    of_training = sum(one["kills"] for one in content["training"])
    of_faults = [
        [name, " ".join((FAULTS[name].__doc__ or "").split()), str(one["tries"]), one["failure"] or "none"]
        for name, one in content["faults"].items()
    ]
    parts = [
        "# Faults on purpose",
        f"Made by `python -m tools.chaos --kills {content['kills']} --training-kills {of_training}"
        f" --seed {content['seed']}` (`make chaos`) at commit {' and '.join(content['commits'])}.",
        "## Kills",
        "Signals that hit a running command at a random moment, and what was there then. The command was run again as"
        " its message says; a failure is a traceback, a set that is neither absent, unfinished nor complete, or a"
        " result whose bytes differ from those of an undisturbed run, leftovers included.",
        markdown(*kills.table(of_kills)),
        "## Other faults",
        markdown(["fault", "what is done, and has to hold", "tries", "failures"], of_faults),
    ]
    if content["training"]:
        parts += [training.report([training.Outcome(**one) for one in content["training"]], content["seed"])]
    return "\n\n".join(parts).rstrip() + "\n"


@click.command(help=__doc__.replace("\n    python", "\n\b\n    python"))
@click.option("--output-dir", "out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--kills", "num_kills", type=click.IntRange(1), default=200, show_default=True, help="In all.")
@click.option("--training-kills", type=click.IntRange(0), default=0, show_default=True, help="A fifth on a study.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--markdown", "markdown_path", type=click.Path(path_type=Path), help="Write the tables to this file.")
def main(out: Path, num_kills: int, training_kills: int, seed: int, markdown_path: Path | None) -> None:
    """Run the campaign; exit status 1 if anything failed."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / "chaos.json", seed, num_kills)
    scratch = out / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    victims = subjects(scratch)
    for index, subject in enumerate(victims):
        if subject.name not in results.content["kills_of"]:
            share = num_kills // len(victims) + (index < num_kills % len(victims))
            rng = random.Random(f"{seed}:{subject.name}")
            outcome = kills.kill(subject, scratch / "kills", share, rng, click.echo)
            results.content["kills_of"][subject.name] = dataclasses.asdict(outcome)
            results.save()
    example = faults.make_example(scratch / "faults", scratch / "genome.fa", scratch / "table.parquet")
    for name, fault in FAULTS.items():
        if name not in results.content["faults"]:
            tries, failure = 0, ""
            try:
                tries = fault(example, random.Random(f"{seed}:{name}"))
            except Exception as error:  # a failed fault must not end the campaign
                failure = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
            results.content["faults"][name] = {"tries": tries, "failure": failure}
            click.echo(f"{name}: {tries} tries, {failure or 'no failure'}")
            results.save()
    if training_kills:
        outcomes = [training.Outcome(**one) for one in results.content["training"]]

        def keep() -> None:
            results.content["training"] = [dataclasses.asdict(one) for one in outcomes]
            results.save()

        training.campaign(scratch / "training", training_kills, seed, outcomes, keep)
    shutil.rmtree(scratch)
    if markdown_path:
        write_text(markdown_path, report(results))
    click.echo(f"{results.failures} failures")
    sys.exit(bool(results.failures))


if __name__ == "__main__":
    main()
