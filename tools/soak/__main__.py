"""Long runs of the loader: check that memory, descriptors, threads and mappings do not grow and processes end.

    python -m tools.soak --markdown docs/reliability_soak.md

* threads, processes, server, url: as many steps as a training of ten steps a second takes in an hour, 36,000 each, as
  fast as they can be taken. Each pass takes 3,000 batches, stops in the middle, resumes in a new loader from the saved
  state, and closes it.
* opened: 200 loaders are opened and closed, in turn with threads and processes; one batch of each is read.
* orphans: the parent of a loader's workers is killed with SIGKILL; the workers have 30 seconds to end.
* two: two processes train under gloo and one is killed; the other ends within 60 seconds, and both resume to the same
  losses as an undisturbed run.

With ``--json``, a stopped run continues with the parts that are not in the file. The exit status is 1 if anything
grows, is left behind, or differs.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from bench.table import commit, markdown
from gemsdata.files.publish import write_text
from tools.soak import orphans, passes, two_processes

PARTS = (*passes.MODES, "orphans", "two")
_KILLS_OF_A_PARENT = 5
_KILLED_BEFORE = (1, 7, 12, 16)
"""steps; a state is saved after steps 4, 9, 14 and 19"""


def run_part(part: str, shards: Path, folder: Path, num_steps: int) -> dict[str, Any]:
    """Run one part; return its report and its failures."""
    if part == "orphans":
        found = [orphans.kill_parent(shards, way, folder) for way in orphans.WAYS for _ in range(_KILLS_OF_A_PARENT)]
        failures = [f"{one.way}: {one.left} workers left" for one in found if one.left]
        return {"rows": [dataclasses.asdict(one) for one in found], "failures": failures}
    if part == "two":
        return _two(shards, folder)
    began = time.monotonic()
    counts = passes.soak(part, shards, num_steps)
    taken = f"{passes.NUM_OPENED} loaders"
    if part != "opened":
        taken = f"{len(counts)} passes, {len(counts) * passes.STEPS_OF_A_PASS:,} steps"
    taken += f" in {time.monotonic() - began:,.0f} s"
    return {"taken": taken, "rows": passes.growth(counts), "failures": passes.grown(counts)}


def _two(shards: Path, folder: Path) -> dict[str, Any]:
    whole = folder / "whole"
    two_processes.train(shards, whole)
    rows, failures = [], []
    for kill_at in _KILLED_BEFORE:
        out = folder / f"killed-{kill_at}"
        one = two_processes.kill_one(shards, out, kill_at)
        rows.append(dataclasses.asdict(one))
        if one.seconds >= two_processes.LIMIT_S or one.status <= 0 or "Error" not in one.message:
            failures.append(f"killed before step {kill_at}: process 0 ended with {one.status}: {one.message}")
        two_processes.train(shards, out)
        if any(two_processes.losses(out, rank) != two_processes.losses(whole, rank) for rank in range(2)):
            failures.append(f"killed before step {kill_at}: other losses after resuming")
    return {"rows": rows, "failures": failures}


def report(results: dict[str, Any]) -> str:
    """Return the results as a Markdown document."""
    failures = [f"{part}: {failure}" for part, one in results.items() for failure in one["failures"]]
    limits = ", ".join(f"{name} {limit:,}" for name, limit in passes.LIMITS.items())
    of_passes = [
        [part, name, f"{before:,.0f}", f"{after:,.0f}"]
        for part in passes.MODES
        for name, before, after in results.get(part, {"rows": []})["rows"]
    ]
    taken = "\n".join(f"* {part}: {results[part]['taken']}" for part in passes.MODES if part in results)
    parts = [
        "# Long runs",
        f"Made by `make soak` at commit {commit()}; the sets and orders are those of seeds 0 and 1.",
        f"Result: **{'; '.join(failures) or 'nothing grew, nothing was left behind, nothing differed'}**.",
        "## Steps of an hour",
        f"An hour of training at ten steps a second has {passes.STEPS_OF_AN_HOUR:,} steps. They are taken as fast as"
        f" the machine can, in batches of {passes.BATCH_ROWS} rows; each pass of {passes.STEPS_OF_A_PASS:,} stops in"
        " the middle and resumes in a new loader.",
        taken,
        "Figures are medians over the middle and over the last third of the passes, of the process, its workers and its"
        f" server together. They may grow by: {limits}; others by nothing.",
        markdown(["mode", "figure", "middle third", "last third"], of_passes),
    ]
    if "orphans" in results:
        parts += ["## Workers whose parent is killed", _orphans_table(results["orphans"]["rows"])]
    if "two" in results:
        rows = [
            [str(one["kill_at"]), str(one["last_step"]), f"{one['seconds']:.1f}", str(one["status"]), one["message"]]
            for one in results["two"]["rows"]
        ]
        parts += [
            "## One of two processes is killed",
            f"Two processes train {two_processes.NUM_STEPS} steps under gloo and save a state after every fifth;"
            f" process 1 is killed with SIGKILL. Process 0 has to end within {two_processes.LIMIT_S} seconds with a"
            " message, and both, resumed, have to reach the losses of an undisturbed run, bit for bit.",
            markdown(["killed before step", "last step of process 0", "seconds", "exit status", "message"], rows),
        ]
    return "\n\n".join(parts) + "\n"


def _orphans_table(rows: list[dict[str, Any]]) -> str:
    lines = []
    for way in orphans.WAYS:
        of_way = [row for row in rows if row["way"] == way]
        seconds = max((row["seconds"] for row in of_way), default=0)
        left = sum(row["left"] for row in of_way)
        lines.append([way, str(len(of_way)), str(of_way[0]["num_workers"]), f"{seconds:.1f}", str(left)])
    return markdown(["workers", "kills of the parent", "processes", "seconds until they ended, most", "left"], lines)


@click.command(help=__doc__.replace("\n    python", "\n\b\n    python"))
@click.option(
    "--steps", type=click.IntRange(1), default=passes.STEPS_OF_AN_HOUR, show_default=True, help="Of each mode."
)
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Only this part; repeat for several.")
@click.option("--markdown", "markdown_path", type=click.Path(path_type=Path), help="Write the report to this file.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Keep results of parts in this file.")
def main(steps: int, parts: tuple[str, ...], markdown_path: Path | None, json_path: Path | None) -> None:
    """Run the requested parts."""
    results: dict[str, Any] = json.loads(json_path.read_text()) if json_path and json_path.exists() else {}
    with tempfile.TemporaryDirectory(prefix="gemsdata-soak-") as name:
        folder = Path(name)
        shards = passes.make_set(folder)
        for part in parts or PARTS:
            if part in results:
                continue
            results[part] = run_part(part, shards, folder, steps)
            click.echo(f"{part}: {results[part].get('taken', '')} {results[part]['failures'] or 'no failures'}")
            if json_path:
                write_text(json_path, json.dumps(results, indent=1) + "\n")
    if markdown_path:
        write_text(markdown_path, report({part: results[part] for part in PARTS if part in results}))
    sys.exit(any(one["failures"] for one in results.values()))


if __name__ == "__main__":
    main()
