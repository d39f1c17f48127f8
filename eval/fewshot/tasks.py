"""Few-shot data sets: training files of each size, random draws of them, and a test file without training rows.

A set is a folder with a subfolder for each number of shots (rows per class) with a ``train*.tsv``, and test rows in
``test.tsv``, ``test_standin/test.tsv`` or ``<shots>/dev.tsv``. The published sets come in two kinds:

* one balanced training set for each size (Prom-core, Prom-300, Cohn-enh). Draw 0 is that set; draws 1, 2, ... are
independent random samples of the largest file; * ten runs pooled in one file, ten times the shots of each class
(Splice-40, Silencer). The run of a row is not
  recorded, so the rows of each class are split at random into disjoint draws 0 .. 9.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.results.runs import Model, Run
from gemsdata.files.hashing import xxh3_of
from gemsdata.files.publish import write_text
from gemsdata.genome.vocab import reverse_complement
from train.finetune import FinetuneConfig
from train.labelled import Labelled, class_names, read_labelled

DRAW_SEED = 20_240_810
"""seed of draws and of sampled test files; a constant, so that results are comparable"""
PUBLISHED_SETS = ("Prom-core", "Prom-300", "Cohn-enh", "Splice-40", "Silencer")
PAIR_BY = ("dataset", "shots", "draw", "seed")
"""columns in which the two runs of a pair agree"""
_PROM_300_TEST = ("gue/prom/prom_300_all/dev.csv", "gue/prom/prom_300_all/test.csv")
_SEQUENCE_COLUMNS = ("sequence", "seq")


@dataclass(frozen=True)
class FewshotSet:
    """The files of a set."""

    name: str
    train: dict[int, Path]
    """training file by shots"""
    test: tuple[Path, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes in the training files."""
        return len(class_names(_read(self.train[min(self.train)]).labels or []))


@dataclass(frozen=True)
class Task:
    """The training and test files of one run, written by `prepare`."""

    set_name: str
    shots: int
    draw: int
    train: Path
    test: Path


def find_tasks(
    data: Path,
    out: Path,
    *,
    sets: Sequence[str] = (),
    test: Sequence[str] = (),
    shots: Sequence[int],
    num_draws: int = 1,
    max_test_rows: int | None = None,
) -> tuple[list[Task], list[str], dict[str, float]]:
    """Write the files of all draws of the named sets under ``out``; return (tasks, remarks, chance accuracy by set).

    Default: all sets in the folder. Prom-300 was published without its test rows; those of GUE's prom_300_all are used
    if the folder ``gue`` is next to ``data``.
    """
    if not data.is_dir():
        raise FileNotFoundError(f"{data} does not exist; give the folder of the few-shot sets with --data")
    names = list(sets) or [
        *(name for name in PUBLISHED_SETS if (data / name).is_dir()),
        *sorted(path.name for path in data.iterdir() if path.is_dir() and path.name not in PUBLISHED_SETS),
    ]
    own_tests: dict[str, list[Path]] = {}
    for word in test:
        name, equals, path = word.partition("=")
        if not equals or name not in names:
            raise ValueError(f"--test {word!r}: give SET=FILE with one of the sets {', '.join(names)}")
        own_tests.setdefault(name, []).append(Path(path))
    gue = [data.parent / path for path in _PROM_300_TEST]
    if "Prom-300" in names and all(path.exists() for path in gue) and not (data / "Prom-300" / "test.tsv").exists():
        own_tests.setdefault("Prom-300", gue)
    tasks: list[Task] = []
    remarks: list[str] = []
    chance: dict[str, float] = {}
    for name in names:
        found = find_set(data / name, own_tests.get(name, ()))
        chance[name] = 1 / found.num_classes
        more, said = prepare(found, out, shots=shots, num_draws=num_draws, max_test_rows=max_test_rows)
        tasks += more
        remarks += said
    if not tasks:
        raise ValueError(f"none of {', '.join(names)} has training files of {', '.join(map(str, shots))} shots")
    return tasks, remarks, chance


def fewshot_run(
    task: Task,
    model: Model,
    seed: int,
    *,
    mixed_precision: str | None,
    trust_remote_code: bool = False,
    threads: int = 1,
    **options: Any,
) -> Run:
    """Return the run of a model on a task with a seed, by the papers' recipe; ``options`` are those that differ."""
    return Run(
        key={
            "dataset": task.set_name,
            "shots": task.shots,
            "draw": task.draw,
            "model": model.name,
            "seed": seed,
        },
        config=FinetuneConfig(
            model=model.folder,
            output_dir="",
            train=str(task.train),
            test=str(task.test),
            recipe="fewshot",
            random_weights=model.random_weights,
            trust_remote_code=trust_remote_code,
            seed=seed,
            mixed_precision=mixed_precision,
            threads=threads,
            scores_only=True,
            **options,
        ),
    )


def find_set(folder: Path, test: Sequence[Path] = ()) -> FewshotSet:
    """Return the files of a set; raise ValueError if it has no training files or no test rows."""
    train = {}
    for child in sorted(folder.iterdir()) if folder.is_dir() else []:
        found = sorted(child.glob("train*.tsv")) if child.name.isdigit() else []
        if found:
            train[int(child.name)] = found[0]
    if not train:
        raise ValueError(
            f"{folder} is not a few-shot set: give a folder with folders 10, 100, ... that have a train.tsv"
        )
    candidates = [folder / "test.tsv", folder / "test_standin" / "test.tsv", *sorted(folder.glob("*/dev.tsv"))]
    paths = tuple(test) or tuple(path for path in candidates if path.exists())[:1]
    if not paths:
        raise ValueError(f"{folder} has no test rows; give files of them with --test {folder.name}=FILE")
    return FewshotSet(folder.name, dict(sorted(train.items())), paths)


def prepare(
    found: FewshotSet, out: Path, *, shots: Sequence[int], num_draws: int, max_test_rows: int | None
) -> tuple[list[Task], list[str]]:
    """Write the training files of all draws and the test file; return them, and remarks on the rows that were dropped.

    Test rows are dropped if they have a letter other than A, C, G, T, repeat an earlier row, or occur in any training
    file of the set on either strand; if more than ``max_test_rows`` remain, a random sample is used. All files are
    published by rename, and are the same for the same input.
    """
    folder = out / "data" / found.name
    folder.mkdir(parents=True, exist_ok=True)
    remarks: list[str] = []
    training = {size: _read(path) for size, path in found.train.items()}
    test, remark = _test_rows(found, training, max_test_rows)
    remarks.append(remark)
    test_path = folder / f"test-{len(test)}.tsv"
    _write(test_path, test)
    largest = training[max(training)]
    tasks = []
    for size in shots:
        if size not in training:
            remarks.append(f"{found.name} has no training file of {size} shots, only {', '.join(map(str, training))}")
            continue
        draws = _draws(training[size], largest, size, num_draws, found.name)
        if len(draws) < num_draws:
            remarks.append(f"{found.name} at {size} shots allows {len(draws)} draws, not {num_draws}")
        for number, rows in enumerate(draws):
            path = folder / f"train-{size}-draw-{number}.tsv"
            _write(path, rows)
            tasks.append(Task(found.name, size, number, path, test_path))
    hashes = {str(path): xxh3_of(path) for path in (*found.train.values(), *found.test)}
    content = {"sources": hashes, "test_rows": len(test), "remarks": remarks, "draw_seed": DRAW_SEED}
    write_text(folder / "data.json", json.dumps(content, indent=1) + "\n")
    return tasks, remarks


Rows = list[tuple[str, str]]
"""(bases, label) of each row"""


def _draws(own: Labelled, largest: Labelled, shots: int, num_draws: int, name: str) -> list[Rows]:
    """Return the training rows of draws 0, 1, ..., as many of ``num_draws`` as the files allow."""
    sizes = Counter(own.labels or [])
    fewest = min(sizes.values())
    if fewest < shots:
        raise ValueError(f"{own.path} has {fewest} rows of a class, not the {shots} that its folder's name says")
    if fewest >= 2 * shots:  # pooled runs
        shuffled = _shuffled_by_class(own, [DRAW_SEED, _number(name), shots])
        return [_part(shuffled, draw, shots) for draw in range(min(num_draws, fewest // shots))]
    draws = [_pairs(own)]
    if min(Counter(largest.labels or []).values()) >= 2 * shots:
        for draw in range(1, num_draws):
            draws.append(_part(_shuffled_by_class(largest, [DRAW_SEED, _number(name), shots, draw]), 0, shots))
    return draws


def _shuffled_by_class(rows: Labelled, seed: list[int]) -> dict[str, Rows]:
    """Return the rows of each class in a random order."""
    pairs = _pairs(rows)
    order = np.random.default_rng(seed).permutation(len(pairs))
    by_class: dict[str, Rows] = {label: [] for label in class_names(rows.labels or [])}
    for i in order:
        by_class[pairs[i][1]].append(pairs[i])
    return by_class


def _part(shuffled: dict[str, Rows], number: int, shots: int) -> Rows:
    return [row for rows in shuffled.values() for row in rows[number * shots : (number + 1) * shots]]


def _test_rows(found: FewshotSet, training: dict[int, Labelled], max_rows: int | None) -> tuple[Rows, str]:
    """Return the test rows, and a remark on the dropped ones."""
    seen = {sequence for rows in training.values() for sequence in rows.sequences}
    seen |= {reverse_complement(sequence) for sequence in seen}
    files = [_read(path) for path in found.test]
    pairs = [pair for rows in files for pair in _pairs(rows)]
    unique = list(dict.fromkeys(pairs))
    fresh = [pair for pair in unique if pair[0] not in seen]
    dropped = sum(rows.num_dropped for rows in files)
    names = " and ".join(path.name for path in found.test)
    remark = (
        f"{found.name}: of {len(pairs) + dropped} test rows ({names}) {dropped} with other letters,"
        f" {len(pairs) - len(unique)} repeated and {len(unique) - len(fresh)} that are training rows too are left out"
    )
    if max_rows is not None and len(fresh) > max_rows:
        chosen = np.random.default_rng([DRAW_SEED, _number(found.name)]).permutation(len(fresh))[:max_rows]
        fresh = [fresh[i] for i in np.sort(chosen)]
        remark += f"; {max_rows} of the rest are used"
    return fresh, remark


def _pairs(rows: Labelled) -> Rows:
    return list(zip(rows.sequences, rows.labels or [], strict=True))


def _read(path: Path) -> Labelled:
    """Read a file of the sets, whatever the name of its sequence column."""
    with open(path, encoding="utf-8-sig") as stream:
        header = stream.readline().replace(",", "\t").replace('"', "").split()
    column = next((name for name in _SEQUENCE_COLUMNS if name in header), _SEQUENCE_COLUMNS[0])
    return read_labelled(path, other_letters="drop", sequence_column=column)


def _write(path: Path, rows: Rows) -> None:
    write_text(path, "sequence\tlabel\n" + "".join(f"{bases}\t{label}\n" for bases, label in rows))


def _number(name: str) -> int:
    """Return a number computed from a set's name, for seeds."""
    return zlib.crc32(name.encode())
