"""The definition of a study: its arms, their budgets, seeds and data sets."""

from __future__ import annotations

import dataclasses
import runpy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from train.finetune import FinetuneConfig

RANDOM = "random-weights"
"""name of the control"""
SCREENING, CONFIRMATION = "screening", "confirmation"


@dataclass(frozen=True)
class Arm:
    """One way to pretrain."""

    name: str
    masking: str
    """masking strategy or curriculum"""
    pretrain: dict[str, Any] = field(default_factory=dict)
    """options of `PretrainConfig` that override those of the study"""
    finetune: dict[str, Any] = field(default_factory=dict)
    """options of `FinetuneConfig` that override those of the study"""
    weights_of: str | None = None
    """arm whose pretrained model is fine-tuned; None: its own"""
    shards: str | None = None
    """name of the shard set to pretrain on, given as --shards NAME=FOLDER; None: the sets without a name"""


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
    baseline: str | None = None
    """arm that is always run"""
    num_best: int | None = None
    """run only this many of the other arms, those with the highest scores in a screening (--after)"""
    tested: bool = True
    """whether arms are tested, which needs three seeds; False: a screening, which only ranks them"""

    def check(self) -> None:
        """Raise ValueError for invalid arms, seeds or comparisons."""
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names) or RANDOM in names or not names:
            raise ValueError(f"the arms of a study need different names, not {', '.join(names) or 'none'}")
        unknown = {name for pair in self.comparisons for name in pair} - {*names, RANDOM}
        if unknown:
            raise ValueError(f"comparisons name {', '.join(sorted(unknown))}; the arms are {', '.join(names)}")
        options = {entry.name for entry in dataclasses.fields(FinetuneConfig)}
        for arm in self.arms:
            if arm.weights_of is not None and self.arm(arm.weights_of).weights_of is not None:
                raise ValueError(f"arm {arm.name} has the weights of {arm.weights_of}, which has none of its own")
        if self.baseline is not None:
            self.arm(self.baseline)
        if wrong := set(self.finetune).union(*(arm.finetune for arm in self.arms)) - options:
            raise ValueError(f"fine-tuning has no option {', '.join(sorted(wrong))}; see gemsdata finetune --help")
        if not self.sets or not self.shots or self.draws < 1 or (self.max_test_rows or 1) < 1:
            raise ValueError("a study needs sets, shots, at least one draw, and max_test_rows of 1 or more, or None")
        if len(self.seeds) < 3 and self.tested:
            raise ValueError(f"{len(self.seeds)} seeds: a comparison needs at least three")

    def arm(self, name: str) -> Arm:
        """Return an arm by its name; raise ValueError if there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ValueError(f"the study has no arm {name}; its arms are {', '.join(arm.name for arm in self.arms)}")

    @property
    def pretrained_arms(self) -> list[Arm]:
        """The arms whose models are fine-tuned, each once, in order."""
        return [self.arm(name) for name in dict.fromkeys(arm.weights_of or arm.name for arm in self.arms)]

    def best_after(self, screening: pd.DataFrame) -> Study:
        """Return the study of the baseline and the ``num_best`` other arms with the highest scores in a screening.

        ``screening`` has a row for each fine-tuning; the score of an arm is its mean of `set_means`. Comparisons of
        other arms are dropped. Raises ValueError if an arm was not screened.
        """
        scores = set_means(screening).groupby("model")["accuracy"].mean()
        others = [arm.name for arm in self.arms if arm.name != self.baseline]
        if missing := sorted(set(others) - set(scores.index)):
            raise ValueError(f"the screening has no results of {', '.join(missing)}; finish it first")
        best = sorted(others, key=lambda name: -scores[name])[: self.num_best]
        kept = {self.baseline, *best}
        arms = [self._with_own_weights(arm, kept) for arm in self.arms if arm.name in kept]
        pairs = [pair for pair in self.comparisons if {*pair} <= {*kept, RANDOM}]
        return dataclasses.replace(self, arms=arms, comparisons=pairs, num_best=None)

    def _with_own_weights(self, arm: Arm, kept: set[str | None]) -> Arm:
        """Return an arm that pretrains its own model if the arm that does it is not ``kept``."""
        if arm.weights_of is None or arm.weights_of in kept:
            return arm
        return dataclasses.replace(self.arm(arm.weights_of), name=arm.name, finetune=arm.finetune)


def set_means(found: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy of each model with each seed: the mean over data sets of the mean over shots and draws."""
    of_sets = found.groupby(["model", "seed", "dataset"], sort=False)["accuracy"].mean()
    return of_sets.groupby(["model", "seed"], sort=False).mean().reset_index()


def load_study(path: Path, stage: str | None = None) -> Study:
    """Run a study's file and return its STUDY, or its study of a ``stage``, SCREENING or CONFIRMATION.

    Raises ValueError or FileNotFoundError if there is none.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a Python file that sets STUDY = Study(...)")
    values = runpy.run_path(str(path))
    if stage not in (None, SCREENING, CONFIRMATION):
        raise ValueError(f"--stage {stage!r} is unknown: use {SCREENING} or {CONFIRMATION}")
    found = values.get((stage or "study").upper())
    if stage is None and found is None and isinstance(values.get("SCREENING"), Study):
        raise ValueError(f"{path} has two stages; give --stage {SCREENING} or {CONFIRMATION}")
    if stage is not None and not isinstance(found, Study):
        raise ValueError(f"{path} has no stage {stage}: it does not define {stage.upper()} = Study(...)")
    if not isinstance(found, Study):
        raise ValueError(f"{path} does not define STUDY = Study(...) of eval.compare.study")
    found.check()
    return found
