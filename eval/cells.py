"""Cells: single fine-tunings of an evaluation, each run once, kept in a file of its own, gathered in one table.

OUT/cells/<values of the key>/cell.json holds the key, the scores on the test file and the hashes of all that went
in. It is published last, so a cell is either done or begun anew.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from eval.pool import Job, run_jobs
from gemsdata.files.hashing import xxh3_of
from gemsdata.files.publish import publish, write_text
from train.contestant import refuse_code
from train.finetune import FinetuneConfig, finetune
from train.options import Stopped

SCORES = ("accuracy", "mcc", "f1", "auroc", "loss")
_NOT_COMPARED = ("output_dir", "threads", "trust_remote_code")
"""options that change nothing about a result"""


@dataclass(frozen=True)
class Cell:
    """One fine-tuning and how its result is called."""

    key: Mapping[str, str | int]
    """columns of the table that tell the cell from all others, such as dataset, shots, draw, contestant, seed"""
    config: FinetuneConfig
    """what to run; its output_dir is the store's to choose"""

    @property
    def name(self) -> str:
        """The values of the key, as a path."""
        return "/".join(_in_a_path(column, value) for column, value in self.key.items())

    def folder(self, out: Path) -> Path:
        """Return where the cell's files are under the folder of an evaluation."""
        return out / "cells" / self.name


def run_cells(
    cells: Sequence[Cell], out: Path, *, workers: int, report: Callable[[pd.DataFrame], None]
) -> pd.DataFrame:
    """Run the cells that have not been run, ``workers`` at a time; ``report`` and return the `table` of all.

    Raises ValueError when ``out`` holds a cell of the same key made from other files or options, or a model is none
    that may be run; and `Stopped` as `run_jobs` does, after the cells that did not fail have been reported.
    """
    hashes = _Hashes()
    missing = []
    for cell in cells:
        inputs = _inputs(cell.config, hashes)
        saved = read_cell(cell, out)
        if saved is None:
            missing.append(Job(cell.name, _run, (cell, out, inputs)))
            continue
        before = {name: value for name, value in saved["inputs"].items() if name not in _NOT_COMPARED}
        if before != inputs:
            changed = sorted(name for name in inputs | before if inputs.get(name) != before.get(name))
            raise ValueError(
                f"{cell.folder(out)} was run with another {', '.join(changed)}; choose another --output-dir, or remove"
                " that folder"
            )
    failure: Stopped | None = None
    try:
        run_jobs(missing, workers=workers, label="fine-tuning", log=out / "log.txt")
    except Stopped as error:
        failure = error
    found = table(cells, out)
    if len(found):
        report(found)
    if failure is not None:
        raise failure
    return found


def read_cell(cell: Cell, out: Path) -> dict[str, Any] | None:
    """Return the contents of a cell's file, None when it has not been run."""
    path = cell.folder(out) / "cell.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(cells: Sequence[Cell], out: Path) -> pd.DataFrame:
    """Return a row for each cell that has been run: key, scores on the test file, numbers of rows, seconds, hashes."""
    rows = []
    for cell in cells:
        saved = read_cell(cell, out)
        if saved is not None:
            rows.append({**cell.key, **saved["scores"], **saved["rows"], "seconds": saved["seconds"]})
    return pd.DataFrame(rows)


def write_table(found: pd.DataFrame, path: Path) -> None:
    """Publish a table as Parquet."""
    with publish(path) as stream:
        found.to_parquet(stream, index=False)


def _run(cell: Cell, out: Path, inputs: dict[str, Any]) -> None:
    folder = cell.folder(out)
    began = time.perf_counter()
    found = finetune(dataclasses.replace(cell.config, output_dir=str(folder)))
    content = {
        "key": dict(cell.key),
        "scores": {name: found["test"][name] for name in SCORES},
        "rows": {f"{name}_rows": found["rows"][name]["used"] for name in found["rows"]},
        "seconds": round(time.perf_counter() - began, 2),
        "inputs": inputs,
    }
    write_text(folder / "cell.json", json.dumps(content, indent=1) + "\n")


class _Hashes(dict[Path, str]):
    """The xxh3 of files, each read once."""

    def __missing__(self, path: Path) -> str:
        self[path] = xxh3_of(path)
        return self[path]


def _inputs(config: FinetuneConfig, hashes: _Hashes) -> dict[str, Any]:
    """Return what a result depends on: options, and hashes in place of paths."""
    options = {name: value for name, value in dataclasses.asdict(config).items() if name not in _NOT_COMPARED}
    for name in ("train", "dev", "test"):
        if options[name]:
            options[name] = hashes[_existing(options[name])]
    options["predict"] = [hashes[_existing(path)] for path in config.predict]
    folder = Path(config.model)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} is no Hugging Face model folder (it has no config.json); give RUN/final")
    if not config.trust_remote_code:
        refuse_code(folder)
    files = sorted(path for path in folder.glob("*") if path.is_file())
    options["model"] = {path.name: hashes[path] for path in files}
    return options


def _existing(path: str) -> Path:
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist")
    return Path(path)


def _in_a_path(column: str, value: str | int) -> str:
    text = str(value)
    if not text or any(letter in text for letter in "/\\:") or text.startswith("."):
        raise ValueError(f"{column} {text!r} cannot be part of a file name; choose another name")
    return text if isinstance(value, str) else f"{column}-{text}"
