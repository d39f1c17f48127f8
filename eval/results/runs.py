"""Runs: the single fine-tunings of an evaluation. Each is run once, stored in its own file, and is a row of one table.

OUT/runs/<values of the key>/run.json holds the key, the scores on the test file and the hashes of all inputs. It is
published last, so a run is either complete or started again.
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

from eval.results.jobs import Job, run_jobs
from gemsdata.files.hashing import xxh3_of
from gemsdata.files.publish import publish, write_text
from train.classifier import refuse_code
from train.finetune import FinetuneConfig, finetune
from train.program import Stopped

SCORES = ("accuracy", "mcc", "f1", "auroc", "loss")
_NOT_COMPARED = ("output_dir", "threads", "trust_remote_code")
"""options that do not change a result"""
RANDOM_SUFFIX = "-random"


@dataclass(frozen=True)
class Model:
    """A model folder with a name."""

    name: str
    folder: str
    random_weights: bool = False
    """use the folder's architecture and tokenizer with random weights, as a baseline"""


def parse_models(words: Sequence[str], *, controls: bool = False) -> list[Model]:
    """Return the models of ``NAME=FOLDER`` words; with ``controls``, each also with random weights.

    Raises ValueError for a word of another form, a name with a slash, or a name that occurs twice.
    """
    found = []
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder) or "/" in name:
            raise ValueError(f"--models {word!r}: give NAME=FOLDER, such as mine=RUN/final")
        found.append(Model(name, folder))
        if controls:
            found.append(Model(name + RANDOM_SUFFIX, folder, random_weights=True))
    names = [model.name for model in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--models has the name {name!r} twice; give each model its own name")
    return found


@dataclass(frozen=True)
class Run:
    """One fine-tuning and the key of its result."""

    key: Mapping[str, str | int]
    """columns of the table that identify the run, such as dataset, shots, draw, model, seed"""
    config: FinetuneConfig
    """the fine-tuning to run; its output_dir is set by `run_all`"""

    @property
    def name(self) -> str:
        """The values of the key, as a path."""
        return "/".join(_in_a_path(column, value) for column, value in self.key.items())

    def folder(self, out: Path) -> Path:
        """Return the folder of the run's files under the output folder of an evaluation."""
        return out / "runs" / self.name


def run_all(runs: Sequence[Run], out: Path, *, workers: int, report: Callable[[pd.DataFrame], None]) -> pd.DataFrame:
    """Do the missing runs, ``workers`` at a time; call ``report`` with the `table` of all runs and return it.

    Raises ValueError if ``out`` contains a run of the same key made from other files or options, or if a model needs
    code that is not allowed; and `Stopped` as `run_jobs` does, after the complete runs have been reported.
    """
    hashes = _Hashes()
    missing = []
    for run in runs:
        inputs = _inputs(run.config, hashes)
        saved = read_run(run, out)
        if saved is None:
            missing.append(Job(run.name, _finetune, (run, out, inputs)))
            continue
        before = {name: value for name, value in saved["inputs"].items() if name not in _NOT_COMPARED}
        given = {name: value for name, value in inputs.items() if value is not None or name in before}  # a new option
        if before != given:
            changed = sorted(name for name in inputs | before if inputs.get(name) != before.get(name))
            raise ValueError(
                f"{run.folder(out)} was made with another {', '.join(changed)}; choose another --output-dir, or remove"
                " that folder"
            )
    failure: Stopped | None = None
    try:
        run_jobs(missing, workers=workers, label="fine-tuning", log=out / "log.txt")
    except Stopped as error:
        failure = error
    found = table(runs, out)
    if len(found):
        report(found)
    if failure is not None:
        raise failure
    return found


def read_run(run: Run, out: Path) -> dict[str, Any] | None:
    """Return the contents of a run's file; None if it is not complete."""
    path = run.folder(out) / "run.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(runs: Sequence[Run], out: Path) -> pd.DataFrame:
    """Return a row for each complete run: key, scores on the test file, numbers of rows, seconds."""
    rows = []
    for run in runs:
        saved = read_run(run, out)
        if saved is not None:
            rows.append({**run.key, **saved["scores"], **saved["rows"], "seconds": saved["seconds"]})
    return pd.DataFrame(rows)


def write_table(found: pd.DataFrame, path: Path) -> None:
    """Publish a table as Parquet."""
    with publish(path) as stream:
        found.to_parquet(stream, index=False)


def _finetune(run: Run, out: Path, inputs: dict[str, Any]) -> None:
    folder = run.folder(out)
    began = time.perf_counter()
    found = finetune(dataclasses.replace(run.config, output_dir=str(folder)))
    content = {
        "key": dict(run.key),
        "scores": {name: found["test"][name] for name in SCORES},
        "rows": {f"{name}_rows": found["rows"][name]["used"] for name in found["rows"]},
        "seconds": round(time.perf_counter() - began, 2),
        "inputs": inputs,
    }
    write_text(folder / "run.json", json.dumps(content, indent=1) + "\n")


class _Hashes(dict[Path, str]):
    """The xxh3 of files, each read once."""

    def __missing__(self, path: Path) -> str:
        self[path] = xxh3_of(path)
        return self[path]


def _inputs(config: FinetuneConfig, hashes: _Hashes) -> dict[str, Any]:
    """Return everything that determines a result: options, with hashes in place of paths."""
    options = {name: value for name, value in dataclasses.asdict(config).items() if name not in _NOT_COMPARED}
    for name in ("train", "dev", "test"):
        if options[name]:
            options[name] = hashes[_existing(options[name])]
    options["predict"] = [hashes[_existing(path)] for path in config.predict]
    folder = Path(config.model)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} is not a Hugging Face model folder (it has no config.json); give RUN/final")
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
