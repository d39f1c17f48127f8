"""The commands that are killed, their inputs, and the commands that continue them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gemsdata.cli import main
from tools.synthesize import GenomeRecipe, write_fasta

_NUM_BASES = 60_000


@dataclass(frozen=True)
class Subject:
    """A command that is killed."""

    name: str
    prepare: Callable[[Path], object]
    """makes the input of the command in an empty folder"""
    command: Callable[[Path], list[str]]
    resume: Callable[[Path], list[list[str]]]
    """the commands with which a user continues after a kill, tried in this order until one succeeds"""


def subjects(folder: Path) -> list[Subject]:
    """Return the commands that are killed; their inputs and initial sets are made in ``folder``."""
    fasta, table, labelled = folder / "genome.fa", folder / "table.parquet", folder / "labelled"
    with open(fasta, "wb") as stream:
        write_fasta(GenomeRecipe(num_bases=_NUM_BASES, seed=3), stream)
    _run(["npmi", str(fasta), "-o", str(table), "--max-k", "4", "--min-count", "2"])
    labelled.mkdir()
    letters = "".join(line for line in fasta.read_text().splitlines() if not line.startswith(">"))
    rows = [f"{letters[60 * i : 60 * i + 60]}\t{i % 2}" for i in range(120)]
    for name, part in (("train", rows[:80]), ("test", rows[60:])):
        (labelled / f"{name}.tsv").write_text("\n".join(["sequence\tlabel", *part]) + "\n")
    planned, encoded, old = (folder / name for name in ("planned", "encoded", "old"))
    packed = ["-k", "3", "--rows-per-shard", "1024", "--npmi", str(table)]
    rows_of_tokens = [*packed, "--row-tokens", "30"]
    _run(["shard", str(fasta), "-o", str(planned), "--plan-only", *rows_of_tokens])
    shutil.copytree(planned, encoded)
    _run(["encode", str(encoded)])
    _run(["shard", str(fasta), "-o", str(old), "--seed", "5", "--format", "both", *rows_of_tokens])

    def sharding(name: str, *options: str, begin: Path | None = None) -> Subject:
        def command(out: Path, *flags: str) -> list[str]:
            return ["shard", str(fasta), *options, "-o", str(out / "set"), *flags]

        return Subject(
            name,
            lambda out: shutil.copytree(begin, out / "set") if begin else None,
            lambda out: command(out, *(["--overwrite"] if begin else [])),
            lambda out: [command(out, "--resume"), command(out, "--overwrite")],
        )

    def one_more(out: Path, name: str) -> list[list[str]]:
        return [[name, str(out / "set")]]

    npmi = ["npmi", str(fasta), "--max-k", "8"]
    return [
        sharding("shard, arrow", *rows_of_tokens),
        sharding(
            "shard, webdataset, zstd", *rows_of_tokens, "--format", "webdataset", "--compression", "zstd"
        ),
        sharding("shard, packed", *packed, "--format", "packed"),
        sharding("shard --overwrite", *rows_of_tokens, begin=old),
        Subject(
            "npmi", lambda out: None, lambda out: [*npmi, "-o", str(out / "t.parquet")],
            lambda out: [[*npmi, "-o", str(out / "t.parquet")]],
        ),
        Subject(
            "encode", lambda out: shutil.copytree(planned, out / "set"), lambda out: ["encode", str(out / "set")],
            lambda out: one_more(out, "encode"),
        ),
        Subject(
            "finalise", lambda out: shutil.copytree(encoded, out / "set"), lambda out: ["finalise", str(out / "set")],
            lambda out: one_more(out, "finalise"),
        ),
        Subject(
            "lint", lambda out: shutil.copytree(labelled, out / "data"), lambda out: ["lint", str(out / "data")],
            lambda out: [["lint", str(out / "data")]],
        ),
    ]  # fmt: skip


def _run(arguments: list[str]) -> None:
    if status := main([*arguments, "--quiet"]):
        raise RuntimeError(f"gemsdata {' '.join(arguments)}: exit status {status}")
