"""When the masking changes: schedules known in advance, and the CM-GEMS controller (Roy et al., ECAI 2024).

A curriculum names the masking of every stage and says which stage a step is in. ``steps`` and ``cm-step`` compute it
from the step alone; ``constant`` and ``cm-gems`` follow the stage log, that is `Loader.set_stage` and `Loader.observe`.
A step is a batch of the loader: with gradient accumulation over n batches, n steps make one optimizer update.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np

from gemsdata.kernels.keys import draw, key_of, unit
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.masking.registry import find_curriculum, is_curriculum, register_curriculum
from gemsdata.masking.strategies import Dnabert, GeneMask, GlobalMask, Strategy, resolve

_MASKING_FIELDS = ("masking", "easy", "hard")


@dataclass(frozen=True, kw_only=True, repr=False)
class Curriculum:
    """Base class of curricula."""

    name: ClassVar[str] = ""
    when: ClassVar[str] = "as `Curriculum.stage` returns"
    """when the stage changes, as text for messages"""
    logged: ClassVar[bool] = False
    """the stage follows the stage log"""
    adaptive: ClassVar[bool] = False
    """the stage is decided from perplexities (`decide`)"""
    frozen_evaluation: ClassVar[bool] = True
    """perplexities are computed with a fixed set of masks; False: with the masking of the current stage"""

    def maskings(self) -> tuple[Strategy, ...]:
        """Return the masking of stage 0, 1, ...; later stages use the last."""
        raise NotImplementedError

    def stage(self, step: int, logged_stage: int, seed: int) -> int:
        """Return the stage of batch ``step``; ``logged_stage`` is the stage in the stage log."""
        raise NotImplementedError

    def decide(self, perplexities: Sequence[float]) -> int:
        """Return the stage that follows from all perplexities so far, in the order of the evaluations."""
        raise ValueError(f"curriculum {self.name!r} does not depend on perplexities; use 'cm-gems'")

    def with_options(self, **options: Any) -> Curriculum:
        """Return the same curriculum with these options of its maskings replaced, such as ``budget=0.15``."""
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

    def __repr__(self) -> str:
        """Return the maskings of the stages, and when the stage changes."""
        stages = ", ".join(f"stage {i} {masking.name}" for i, masking in enumerate(self.maskings()))
        return f"{type(self).__name__} (curriculum {self.name!r}): {stages}\n  the stage changes {self.when}"


@register_curriculum("constant")
@dataclass(frozen=True, kw_only=True, repr=False)
class Constant(Curriculum):
    """One masking throughout; its stage is set by `Loader.set_stage` (the spans of `RandomMask` grow with it)."""

    masking: str | Strategy = "genemask"
    when: ClassVar[str] = "when Loader.set_stage says so"
    logged: ClassVar[bool] = True

    def maskings(self) -> tuple[Strategy, ...]:  # noqa: D102
        return (resolve(self.masking),)

    def stage(self, step: int, logged_stage: int, seed: int) -> int:  # noqa: D102
        return logged_stage


@register_curriculum("steps")
@dataclass(frozen=True, kw_only=True, repr=False)
class Steps(Curriculum):
    """Stage i + 1 begins at step boundaries[i]; DNABERT's recipe is 15 % for 100,000 steps, then 20 %."""

    stages: tuple[str | Strategy, ...]
    boundaries: tuple[int, ...]
    when: ClassVar[str] = "at fixed steps"

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


@register_curriculum("cm-gems")
@dataclass(frozen=True, kw_only=True, repr=False)
class CMGems(Curriculum):
    """CM-GEMS: `easy` until the perplexity hardly falls from one evaluation to the next, then `hard` to the end."""

    easy: str | Strategy = field(default_factory=GeneMask)
    hard: str | Strategy = field(default_factory=GlobalMask)
    threshold: float = 1.0
    """switch once perplexity(previous) - perplexity(now) is below this"""
    when: ClassVar[str] = "once, when the perplexity falls by less than a threshold between evaluations"
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
        """Return by how much the perplexity fell from each evaluation to the next."""
        if any(math.isnan(value) for value in perplexities):
            raise ValueError(f"perplexities {list(perplexities)} hold a NaN; the training has diverged")
        return [before - now for before, now in itertools.pairwise(perplexities)]

    def describe(self) -> dict[str, Any]:  # noqa: D102
        return {**super().describe(), "threshold": self.threshold}


@register_curriculum("cm-gems-released")
@dataclass(frozen=True, kw_only=True, repr=False)
class CMGemsReleased(CMGems):
    """CM-GEMS as in its published script: a rise does not switch; perplexities under the current masking."""

    frozen_evaluation: ClassVar[bool] = False

    def drops(self, perplexities: Sequence[float]) -> list[float]:  # noqa: D102
        return [abs(drop) for drop in super().drops(perplexities)]


@register_curriculum("cm-step")
@dataclass(frozen=True, kw_only=True, repr=False)
class CMStep(Curriculum):
    """CM-STEP: in part i of ten a batch is masked by `hard` with probability i/9, else by `easy`; a draw per step."""

    num_steps: int
    """length of the run in batches of the loader; after it the last part continues"""
    easy: str | Strategy = field(default_factory=GeneMask)
    hard: str | Strategy = field(default_factory=GlobalMask)
    when: ClassVar[str] = "at every step, the last masking with increasing probability"

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps = {self.num_steps}; give the length of the run")

    def maskings(self) -> tuple[Strategy, ...]:  # noqa: D102
        return resolve(self.easy), resolve(self.hard)

    def hard_probability(self, step: int) -> float:
        """Return the probability of `hard` at a step."""
        return min(9, 10 * step // self.num_steps) / 9

    def stage(self, step: int, logged_stage: int, seed: int) -> int:  # noqa: D102
        bits = np.uint64(draw(np.uint64(key_of(seed, RandomStream.CURRICULUM_ARM, step)), np.uint64(0)))
        return int(unit(bits) < self.hard_probability(step))

    def describe(self) -> dict[str, Any]:  # noqa: D102
        return {**super().describe(), "num_steps": self.num_steps}


@register_curriculum("cm-step-released")
@dataclass(frozen=True, kw_only=True, repr=False)
class CMStepReleased(CMStep):
    """CM-STEP as in its published script: a hundred blocks of probability 0.00 .. 0.99; `easy` is DNABERT's masking."""

    easy: str | Strategy = field(default_factory=Dnabert)

    def hard_probability(self, step: int) -> float:  # noqa: D102
        return min(100, 100 * step // self.num_steps) / 100


def resolve_curriculum(
    masking: str | Strategy, curriculum: str | Curriculum | None = None, *, num_steps: int | None = None
) -> Curriculum:
    """Return the curriculum of a run.

    Parameters
    ----------
    masking
        the masking of `Constant`; or, without ``curriculum``, the name of a curriculum, such as "cm-gems".
    curriculum
        a curriculum or the name of one; it brings its own maskings, unless it is "constant".
    num_steps
        length of the run in batches, for curricula given by name that have such a field ("cm-step").

    Raises
    ------
    ValueError
        for an unknown name, or a curriculum that needs more than its name.
    """
    if isinstance(curriculum, Curriculum):
        return curriculum
    name = curriculum
    if name is None:
        name = masking if isinstance(masking, str) and is_curriculum(masking) else "constant"
    cls = find_curriculum(name)
    if cls is Steps:
        raise ValueError("curriculum 'steps' needs its stages: give gemsdata.Steps(stages=(...), boundaries=(...))")
    if cls is Constant:
        constant = Constant(masking="genemask" if masking == "constant" else masking)
        constant.maskings()  # raises for an unknown name
        return constant
    if "num_steps" not in {entry.name for entry in dataclasses.fields(cls)}:
        return cls()
    if num_steps is None:
        raise ValueError(f"curriculum {name!r} needs the length of the run: give num_steps, in batches")
    needs_length: Any = cls
    return cast("Curriculum", needs_length(num_steps=num_steps))


def strategy_in_stage(masking: str | Strategy, stage: int = 0, **options: Any) -> Strategy:
    """Return the strategy that masks the rows of a stage, given its name or that of a curriculum.

    ``options`` replace fields of the strategy, such as ``budget=0.15``. Raises ValueError as `resolve_curriculum` does.
    """
    if isinstance(masking, str) and is_curriculum(masking):
        maskings = resolve_curriculum(masking, num_steps=1).maskings()
        masking = maskings[min(stage, len(maskings) - 1)]
    return resolve(masking, **options)
