"""The pretrainings of a study: their options, and whether one is complete."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.compare.study import Arm, Study
from gemsdata.files.publish import write_text
from train.config import PretrainConfig
from train.pretrain import train
from train.program import Stopped
from train.rows import open_rows

_STARTED, _COMPLETE = "started.json", "complete.json"
_NOT_COMPARED = ("output_dir", "threads", "resume", "shards", "workers")


def pretraining_of(study: Study, arm: Arm, seed: int, out: Path, **options: Any) -> PretrainConfig:
    """Return the options of one pretraining; ``options`` apply to all arms; arm and study can override them."""
    own = {**study.pretrain, **arm.pretrain}
    unknown = set(own) - {entry.name for entry in dataclasses.fields(PretrainConfig)}
    if unknown:
        raise ValueError(f"arm {arm.name}: pretraining has no option {', '.join(sorted(unknown))}")
    folder = out / "models" / arm.name / f"seed-{seed}"
    fixed = {"masking": arm.masking, "seed": seed, "output_dir": str(folder), "resume": True}
    return PretrainConfig(**{**options, **own, **fixed}).resolved()


def named_sets(words: Sequence[str]) -> dict[str | None, tuple[str, ...]]:
    """Return the shard sets of ``FOLDER`` and ``NAME=FOLDER`` words by their names, None for those without one."""
    found: dict[str | None, tuple[str, ...]] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        key = name if equals and "/" not in name else None
        found[key] = (*found.get(key, ()), folder if key else word)
    return found


def shards_of(arm: Arm, sets: dict[str | None, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the shard sets that an arm pretrains on; raise ValueError if they are not given."""
    if arm.shards not in sets:
        raise ValueError(f"arm {arm.name} needs --shards {f'{arm.shards}=' if arm.shards else ''}FOLDER")
    return sets[arm.shards]


def is_complete(config: PretrainConfig) -> bool:
    """Return whether a pretraining is complete; raise ValueError if its folder contains another one."""
    folder = Path(config.output_dir)
    for name in (_STARTED, _COMPLETE):
        if (folder / name).exists() and json.loads((folder / name).read_text()) != _identity(config):
            raise ValueError(f"{folder} was pretrained with other options or shards; choose another --output-dir")
    return (folder / _COMPLETE).exists()


def pretrain(config: PretrainConfig) -> None:
    """Run a pretraining and record that it is complete; raise `Stopped` if it was interrupted."""
    folder, identity = Path(config.output_dir), json.dumps(_identity(config), indent=1) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / _STARTED, identity)
    if not train(config):
        raise Stopped(f"{folder} was interrupted; run the same command again to continue")
    write_text(folder / _COMPLETE, identity)


def _identity(config: PretrainConfig) -> dict[str, Any]:
    """Return everything that determines the weights."""
    options = {name: value for name, value in dataclasses.asdict(config).items() if name not in _NOT_COMPARED}
    identity: dict[str, Any] = json.loads(
        json.dumps({**options, "shards": open_rows(config.shards, config.view).fingerprints})
    )
    return identity
