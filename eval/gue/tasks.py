"""The tasks of GUE (Genome Understanding Evaluation, arXiv 2306.15006): their folders, recipes and duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemsdata.genome.vocab import reverse_complement
from train.labelled import read_labelled

SPLITS = ("train", "dev", "test")
_MARKS = ("H3", "H3K14ac", "H3K36me3", "H3K4me1", "H3K4me2", "H3K4me3", "H3K79me3", "H3K9ac", "H4", "H4ac")


@dataclass(frozen=True)
class Task:
    """A data set of GUE."""

    name: str
    folder: str
    """path below the folder of GUE"""
    species: str
    group: str
    dataset: str
    """group and dataset as in CM-GEMS' table"""
    recipe: str
    """name of the recipe in train/recipes.py"""
    metric: str = "mcc"

    def missing(self, gue: Path) -> list[str]:
        """Return the names of its missing files."""
        names = [f"{split}.csv" for split in SPLITS]
        return [name for name in names if not (gue / self.folder / name).exists()]


TASKS = (
    Task("prom_300_all", "prom/prom_300_all", "Human", "PD (Human)", "all", "gue-prom"),
    Task("prom_300_notata", "prom/prom_300_notata", "Human", "PD (Human)", "no tata", "gue-prom"),
    Task("prom_300_tata", "prom/prom_300_tata", "Human", "PD (Human)", "tata", "gue-prom-tata"),
    Task("prom_core_all", "prom/prom_core_all", "Human", "CPD (Human)", "all", "gue-prom"),
    Task("prom_core_notata", "prom/prom_core_notata", "Human", "CPD (Human)", "notata", "gue-prom"),
    Task("prom_core_tata", "prom/prom_core_tata", "Human", "CPD (Human)", "tata", "gue-prom-tata"),
    *(Task(f"tf_{i}", f"tf/{i}", "Human", "TFP (Human)", str(i), "gue-tf") for i in range(5)),
    Task("splice_reconstructed", "splice/reconstructed", "Human", "Splice", "Reconstruct", "gue-splice"),
    *(Task(f"emp_{mark}", f"EMP/{mark}", "Yeast", "EMP (Yeast)", mark, "gue-emp") for mark in _MARKS),
    *(Task(f"mouse_{i}", f"mouse/{i}", "Mouse", "TFP (Mouse)", str(i), "gue-mouse") for i in range(5)),
    Task("virus_covid", "virus/covid", "Virus", "Covid", "covid", "gue-covid", "f1"),
)
"""in the order of CM-GEMS' table (human, then the others), and Covid, which is not in it"""


def task(name: str) -> Task:
    """Return a task by its name."""
    for found in TASKS:
        if found.name == name:
            return found
    raise ValueError(f"task {name!r} is unknown: use {', '.join(found.name for found in TASKS)}")


def unseen(folder: Path) -> np.ndarray:
    """Return whether each test row's sequence occurs on neither strand of a train or dev row, bool[test rows]."""
    known = {_either_strand(sequence) for split in ("train", "dev") for sequence in _sequences(folder, split)}
    return np.array([_either_strand(sequence) not in known for sequence in _sequences(folder, "test")])


def _sequences(folder: Path, split: str) -> list[str]:
    return read_labelled(folder / f"{split}.csv", other_letters="unk").sequences


def _either_strand(sequence: str) -> str:
    """Return the same text for a sequence and its reverse complement."""
    return min(sequence, reverse_complement(sequence))
