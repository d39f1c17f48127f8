"""The definition of a study: its arms, their budgets, seeds and data sets."""

from __future__ import annotations

import dataclasses
import runpy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.finetune import FinetuneConfig

RANDOM = "random-weights"
"""name of the control"""


@dataclass(frozen=True)
class Arm:
    """One way to pretrain."""

    name: str
    masking: str
    """masking strategy or curriculum"""
    pretrain: dict[str, Any] = field(default_factory=dict)
    """options of `PretrainConfig` that override those of the study"""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study: arms, common options, seeds, data sets and comparisons."""

    arms: Sequence[Arm]
    pretrain: dict[str, Any]
    """options of `PretrainConfig` for all arms: model, max_steps, batch_rows, masking_budget, ..."""
    finetune: dict[str, Any] = field(default_factory=dict)
    """options of `FinetuneConfig` in which fine-tunings differ from the papers' recipe: epochs, peak_lr, ..."""
    seeds: Sequence[int]
    """each is one pretraining of every arm, and the seed of its fine-tunings"""
    sets: Sequence[str]
    """few-shot data sets"""
    shots: Sequence[int]
    draws: int = 1
    max_test_rows: int | None = None
    random_weights: bool = True
    """also fine-tune random weights of the same architecture"""
    comparisons: Sequence[tuple[str, str]] = ()
    """pairs of arms to test, planned before the results are known; empty: all pairs"""

    def check(self) -> None:
        """Raise ValueError for invalid arms, seeds or comparisons."""
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names) or RANDOM in names or not names:
            raise ValueError(f"the arms of a study need different names, not {', '.join(names) or 'none'}")
        unknown = {name for pair in self.comparisons for name in pair} - {*names, RANDOM}
        if unknown:
            raise ValueError(f"comparisons name {', '.join(sorted(unknown))}; the arms are {', '.join(names)}")
        options = {entry.name for entry in dataclasses.fields(FinetuneConfig)}
        if wrong := set(self.finetune) - options:
            raise ValueError(f"fine-tuning has no option {', '.join(sorted(wrong))}; see gemsdata finetune --help")
        if not self.sets or not self.shots or self.draws < 1 or (self.max_test_rows or 1) < 1:
            raise ValueError("a study needs sets, shots, at least one draw, and max_test_rows of 1 or more, or None")
        if len(self.seeds) < 3:
            raise ValueError(f"{len(self.seeds)} seeds: a comparison needs at least three")


def load_study(path: Path) -> Study:
    """Run a study's file and return its STUDY; raise ValueError or FileNotFoundError if there is none."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a Python file that sets STUDY = Study(...)")
    found = runpy.run_path(str(path)).get("STUDY")
    if not isinstance(found, Study):
        raise ValueError(f"{path} does not define STUDY = Study(...) of eval.compare.study")
    found.check()
    return found
