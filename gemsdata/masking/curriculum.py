"""When the masking changes: schedules known in advance, and the CM-GEMS controller (Roy et al., ECAI 2024).

A curriculum names the masking of every stage and tells the stage of a step. ``steps`` and ``cm-step`` know it from
the step alone; ``constant`` and ``cm-gems`` follow the stage log, that is `Loader.set_stage` and `Loader.observe`. A
step is a batch of the loader: with gradient accumulation over n batches, n steps make one optimizer update.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from gemsdata.kernels.keys import draw, key_of, unit
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.masking.strategies import Dnabert, GeneMask, GlobalMask, Strategy, resolve

_MASKING_FIELDS = ("masking", "easy", "hard")


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """What all curricula have in common."""

    name: ClassVar[str] = ""
    logged: ClassVar[bool] = False
    """the stage follows the stage log"""
    adaptive: ClassVar[bool] = False
    """the stage is decided from perplexities (`decide`)"""
    frozen_evaluation: ClassVar[bool] = True
    """perplexities come from a fixed mask set; False: from the masking of the stage in force"""

    def maskings(self) -> tuple[Strategy, ...]:
        """Return the masking of stage 0, 1, ...; later stages use the last."""
        raise NotImplementedError

    def stage(self, step: int, logged_stage: int, seed: int) -> int:
        """Return the stage of batch ``step``; ``logged_stage`` is what the stage log says."""
        raise NotImplementedError

    def decide(self, perplexities: Sequence[float]) -> int:
        """Return the stage that follows from all perplexities so far, in the order of the evaluations."""
        raise ValueError(f"curriculum {self.name!r} does not listen to perplexities; use 'cm-gems'")

    def with_options(self, **options: Any) -> Curriculum:
        """Return the same curriculum over maskings with these options, such as ``budget=0.15``."""
        changed: dict[str, Any] = {}
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if entry.name in _MASKING_FIELDS:
                changed[entry.name] = resolve(value, **options)
            elif entry.name == "stages":
                changed[entry.name] = tuple(resolve(masking, **options) for masking in value)
        return dataclasses.replace(self, **changed)

    def describe(self) -> dict[str, Any]:
        """Return the curriculum as a JSON-able dict, for saved states."""
        return {"name": self.name, "maskings": [masking.describe() for masking in self.maskings()]}


@dataclass(frozen=True, kw_only=True)
class Constant(Curriculum):
    """One masking throughout; its stage is what `Loader.set_stage` says (`RandomMask` grows with it)."""

    masking: str | Strategy = "genemask"
    name: ClassVar[str] = "constant"
    logged: ClassVar[bool] = True

    def maskings(self) -> tuple[Strategy, ...]:  # noqa: D102
        return (resolve(self.masking),)

    def stage(self, step: int, logged_stage: int, seed: int) -> int:  # noqa: D102
        return logged_stage


@dataclass(frozen=True, kw_only=True)
class Steps(Curriculum):
    """Stage i + 1 begins at step boundaries[i]; DNABERT's recipe is 15 % for 100,000 steps, then 20 %."""

    stages: tuple[str | Strategy, ...]
    boundaries: tuple[int, ...]
    name: ClassVar[str] = "steps"

    def __post_init__(self) -> None:
        if len(self.stages) != len(self.boundaries) + 1 or list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError(
                f"{len(self.stages)} stages with boundaries {self.boundaries}: give rising steps, one fewer than stages"
            )

    def maskings(self) -> tuple[Strategy, ...]:  # noqa: D102
        return tuple(resolve(masking) for masking in self.stages)

    def stage(self, step: int, logged_stage: int, seed: int) -> int:  # noqa: D102
        return sum(step >= boundary for boundary in self.boundaries)

    def describe(self) -> dict[str, Any]:  # noqa: D102
        return {**super().describe(), "boundaries": list(self.boundaries)}


@dataclass(frozen=True, kw_only=True)
class CMGems(Curriculum):
    """CM-GEMS: `easy` until the perplexity hardly falls from one evaluation to the next, then `hard` for good."""

    easy: str | Strategy = field(default_factory=GeneMask)
    hard: str | Strategy = field(default_factory=GlobalMask)
    threshold: float = 1.0
    """switch once perplexity(previous) - perplexity(now) is below this"""
    name: ClassVar[str] = "cm-gems"
    logged: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True

    def maskings(self) -> tuple[Strategy, ...]:  # noqa: D102
        return resolve(self.easy), resolve(self.hard)

    def stage(self, step: int, logged_stage: int, seed: int) -> int:  # noqa: D102
        return logged_stage

    def decide(self, perplexities: Sequence[float]) -> int:  # noqa: D102
        drops = self.drops(perplexities)
        return int(any(drop < self.threshold for drop in drops))

    def drops(self, perplexities: Sequence[float]) -> list[float]:
        """Return what the threshold is compared with."""
        if any(math.isnan(value) for value in perplexities):
            raise ValueError(f"perplexities {list(perplexities)} hold a NaN; the training has diverged")
        return [before - now for before, now in itertools.pairwise(perplexities)]

    def describe(self) -> dict[str, Any]:  # noqa: D102
        return {**super().describe(), "threshold": self.threshold}


@dataclass(frozen=True, kw_only=True)
class CMGemsReleased(CMGems):
    """CM-GEMS as its published script runs: a rise does not fire; perplexity under the masking in force."""

    name: ClassVar[str] = "cm-gems-released"
    frozen_evaluation: ClassVar[bool] = False

    def drops(self, perplexities: Sequence[float]) -> list[float]:  # noqa: D102
        return [abs(drop) for drop in super().drops(perplexities)]


@dataclass(frozen=True, kw_only=True)
class CMStep(Curriculum):
    """CM-STEP: in part i of ten a batch is masked by `hard` with probability i/9, else by `easy`; a draw per step."""

    num_steps: int
    """length of the run in batches of the loader; beyond it the last part goes on"""
    easy: str | Strategy = field(default_factory=GeneMask)
    hard: str | Strategy = field(default_factory=GlobalMask)
    name: ClassVar[str] = "cm-step"

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps = {self.num_steps}; give the length of the run")

    def maskings(self) -> tuple[Strategy, ...]:  # noqa: D102
        return resolve(self.easy), resolve(self.hard)

    def share(self, step: int) -> float:
        """Return the probability of `hard` at a step."""
        return min(9, 10 * step // self.num_steps) / 9

    def stage(self, step: int, logged_stage: int, seed: int) -> int:  # noqa: D102
        bits = np.uint64(draw(np.uint64(key_of(seed, RandomStream.CURRICULUM_ARM, step)), np.uint64(0)))
        return int(unit(bits) < self.share(step))

    def describe(self) -> dict[str, Any]:  # noqa: D102
        return {**super().describe(), "num_steps": self.num_steps}


@dataclass(frozen=True, kw_only=True)
class CMStepReleased(CMStep):
    """CM-STEP as its published script runs: a hundred blocks of share 0.00 .. 0.99, and the easy arm is DNABERT's."""

    easy: str | Strategy = field(default_factory=Dnabert)
    name: ClassVar[str] = "cm-step-released"

    def share(self, step: int) -> float:  # noqa: D102
        return min(100, 100 * step // self.num_steps) / 100


_BY_NAME: dict[str, type[Curriculum]] = {
    cls.name: cls for cls in (Constant, Steps, CMGems, CMGemsReleased, CMStep, CMStepReleased)
}


def curriculum_names() -> list[str]:
    """Return the names of all curricula."""
    return list(_BY_NAME)


def resolve_curriculum(
    masking: str | Strategy, curriculum: str | Curriculum | None = None, *, num_steps: int | None = None
) -> Curriculum:
    """Return the curriculum of a run.

    Parameters
    ----------
    masking
        what `Constant` masks with; or, without ``curriculum``, the name of a curriculum, such as "cm-gems".
    curriculum
        a curriculum or the name of one; it brings its own maskings, unless it is "constant".
    num_steps
        length of the run in batches, which "cm-step" needs when it is given by name.
    """
    if isinstance(curriculum, Curriculum):
        return curriculum
    name = curriculum
    if name is None:
        name = masking if isinstance(masking, str) and masking in _BY_NAME else "constant"
    if name not in _BY_NAME:
        raise ValueError(f"curriculum {name!r} is unknown: use one of {', '.join(_BY_NAME)}")
    cls = _BY_NAME[name]
    if cls is Steps:
        raise ValueError("curriculum 'steps' needs its stages: give gemsdata.Steps(stages=(...), boundaries=(...))")
    if issubclass(cls, CMStep):
        if num_steps is None:
            raise ValueError(f"curriculum {name!r} needs the length of the run: give num_steps, in batches")
        return cls(num_steps=num_steps)
    return Constant(masking="genemask" if masking == "constant" else masking) if cls is Constant else cls()
