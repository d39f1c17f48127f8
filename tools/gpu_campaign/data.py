"""The data of a campaign in one folder: a packed genome, few-shot sets and tasks of GUE; and a small synthetic one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.gue.tasks import SPLITS, task
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import shard
from tools.repeat_task import shuffled
from tools.synthesize import GenomeRecipe, write_fasta

MAX_MB = 55
"""with the repository (5 MB), less than 60 MB"""
FEWSHOT_SETS = ("Prom-core", "Splice-40")
_TOY_BASES, _TOY_ROW_BASES = 400_000, 60


def prepare(genome: Path, fewshot: Path, gue: Path, data: Path, *, gue_tasks: Sequence[str]) -> float:
    """Write the data of a campaign to a folder that does not exist; return its size in MB.

    ``gue_tasks`` without all their files are left out. Raises ValueError if the folder exists, if no few-shot set is
    found, or if the data are too large.
    """
    _check_new(data)
    found = [fewshot / name for name in FEWSHOT_SETS if (fewshot / name / "test.tsv").exists()]
    if not found:
        raise ValueError(f"{fewshot} has none of {', '.join(FEWSHOT_SETS)}; give the folder of the few-shot sets")
    data.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data.parent, prefix="_campaign-") as folder:
        new = Path(folder) / data.name
        shard([genome], new / "genome", ShardOptions(format="packed"))
        for one_set in found:
            for path in [one_set / "test.tsv", *one_set.glob("[0-9]*/*.tsv")]:
                _copy(path, new / "fewshot" / path.relative_to(fewshot))
        for one in map(task, gue_tasks):
            for split in SPLITS if not one.missing(gue) else ():
                _copy(gue / one.folder / f"{split}.csv", new / "gue" / one.folder / f"{split}.csv")
        size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file()) / 1e6
        if size > MAX_MB:
            raise ValueError(f"the data have {size:.0f} MB, more than {MAX_MB}; give a smaller genome")
        new.rename(data)
    return size


def prepare_toy(data: Path) -> None:
    """Write a synthetic genome, and tasks that tell its windows from their shuffled bases, for a dry run."""
    _check_new(data)
    data.mkdir(parents=True)
    fasta = data / "genome.fa"
    with open(fasta, "wb") as stream:
        write_fasta(GenomeRecipe(num_bases=_TOY_BASES, num_contigs=2), stream)
    shard([fasta], data / "genome", ShardOptions(format="packed"))
    rng = np.random.default_rng(0)
    for path, num_rows in {"test.tsv": 100, "10/train.tsv": 20}.items():
        _write_task(data / "fewshot" / "repeats" / path, num_rows, "\t", rng)
    for split in SPLITS:
        _write_task(data / "gue" / "mouse" / "0" / f"{split}.csv", 64, ",", rng)


def _write_task(path: Path, num_rows: int, delimiter: str, rng: np.random.Generator) -> None:
    """Write rows of a repeated unit (1) and of the same bases in random order (0)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"sequence{delimiter}label"]
    for row in range(num_rows):
        repeat = "".join(rng.choice(list("ACGT"), 6)) * (_TOY_ROW_BASES // 6)
        lines.append(f"{repeat if row % 2 else shuffled(repeat, rng)}{delimiter}{row % 2}")
    path.write_text("\n".join(lines) + "\n")


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def _check_new(data: Path) -> None:
    if data.exists():
        raise ValueError(f"{data} exists; remove it, or leave out --prepare to use it")
