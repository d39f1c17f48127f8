"""The pieces of a campaign in order; each is a command that can be started again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.gue.tasks import task
from train.recipes import pretrain_recipe

SIDES = ("plain", "gemsdata")
"""programs whose rates are compared"""
MASKINGS = ("dnabert", "genemask", "global-nms", "cm-gems")
RECOMMENDED = "recommended"
COMPARISONS = (
    ("genemask", "dnabert"),
    ("global-nms", "dnabert"),
    ("cm-gems", "dnabert"),
    ("cm-gems", "genemask"),
    ("cm-gems", "global-nms"),
    (RECOMMENDED, "cm-gems"),
)
"""pairs of arms to test, planned before any run"""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A training whose rate is measured."""

    model: str
    batch_rows: int
    micro_batch_rows: int
    num_steps: int
    compiled: bool = False
    """also with torch.compile"""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of a campaign."""

    check_model: str
    check_rows: int
    rates: Sequence[Rate]
    arms: dict[str, tuple[str, ...]]
    """name: its options of train/pretrain.py"""
    pretrain: tuple[str, ...]
    """options of all pretrainings"""
    fewshot: tuple[str, ...]
    """options of all few-shot evaluations"""
    gue_tasks: Sequence[str]
    gue: tuple[str, ...] = ()
    """options of all evaluations on GUE"""
    seeds: Sequence[int]
    """tried one after the other, until the time is used up"""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A command, done once."""

    name: str
    module: str
    """started with ``python -m``"""
    arguments: tuple[str, ...]
    minutes: float
    """it is only started if so much time is left: its duration, or a useful part of it if it is resumable"""
    resumable: bool = False
    """after an interrupt, the same command continues"""


def full_scale() -> Scale:
    """Return the scale of the papers: `logo`, 10,000 updates of 250 rows of 512 tokens."""
    return Scale(
        check_model="logo",
        check_rows=64,
        rates=(
            Rate(model="logo", batch_rows=256, micro_batch_rows=256, num_steps=60),
            Rate(model="dnabert", batch_rows=256, micro_batch_rows=128, num_steps=30, compiled=True),
            Rate(model="modern-base", batch_rows=256, micro_batch_rows=64, num_steps=30),
        ),
        arms=_arms(),
        pretrain=("--model", "logo", "--recipe", "papers", "--micro-batch-rows", "250", "--save-every", "1000"),
        fewshot=("--shots", "10", "100", "500", "--max-test-rows", "2000", "--controls", "--workers", "4"),
        gue_tasks=("mouse_0", "mouse_3", "tf_0", "tf_1", "tf_2", "tf_3", "tf_4", "prom_core_tata", "prom_300_tata"),
        gue=("--workers", "4"),
        seeds=range(1, 9),
    )


def toy_scale() -> Scale:
    """Return the scale of a dry run on a CPU."""
    steps = ("--max-steps", "12", "--batch-rows", "8", "--eval-every", "6", "--eval-rows", "16", "--row-tokens", "62")
    return Scale(
        check_model="smoke",
        check_rows=4,
        rates=(Rate(model="smoke", batch_rows=4, micro_batch_rows=2, num_steps=3),),
        arms={name: ("--masking", name) for name in ("dnabert", "cm-gems")},
        pretrain=("--model", "smoke", *steps),
        fewshot=("--shots", "10", "--max-test-rows", "100", "--workers", "1"),
        gue_tasks=("mouse_0",),
        gue=("--max-steps", "4", "--workers", "1"),
        seeds=(1,),
    )


def pieces(scale: Scale, data: Path, out: Path, *, mixed_precision: str) -> list[Piece]:
    """Return the pieces in order: check and rates; for each seed pretrainings, few-shot tasks and GUE."""
    shards = ("--shards", str(data / "genome"))
    precision = ("--mixed-precision", mixed_precision)
    model = ("--model", scale.check_model, "--rows", str(scale.check_rows))
    check = (*shards, *model, "--output", str(out / "check.json"))
    found = [Piece(name="check", module="tools.gpu_campaign.check", arguments=check, minutes=1.5)]
    found += [one for rate in scale.rates for one in _rates(rate, (*shards, *precision), out)]
    for seed in scale.seeds:
        folders = {arm: out / "models" / arm / f"seed-{seed}" for arm in scale.arms}
        for arm, options in scale.arms.items():
            own = ("--seed", str(seed), "--output-dir", str(folders[arm]), "--resume", *options)
            arguments = (*shards, *precision, *scale.pretrain, *own)
            found.append(_resumable(f"pretrain-{arm}-seed-{seed}", "train.pretrain", arguments))
        models = ("--models", *(f"{arm}={folder / 'final'}" for arm, folder in folders.items()))
        common = (*models, "--seeds", str(seed), *precision)
        fewshot = ("--data", str(data / "fewshot"), "--output-dir", str(out / "fewshot" / f"seed-{seed}"))
        found.append(_resumable(f"fewshot-seed-{seed}", "eval.fewshot", (*fewshot, *common, *scale.fewshot)))
        tasks = [name for name in scale.gue_tasks if not task(name).missing(data / "gue")]
        gue = ("--data", str(data / "gue"), "--output-dir", str(out / "gue" / f"seed-{seed}"), "--tasks", *tasks)
        if tasks:
            found.append(_resumable(f"gue-seed-{seed}", "eval.gue", (*gue, *common, *scale.gue)))
    return found


def _arms() -> dict[str, tuple[str, ...]]:
    """Return the published maskings, and the recommended recipe if there is one."""
    found = {name: ("--masking", name) for name in MASKINGS}
    try:
        pretrain_recipe(RECOMMENDED)
    except ValueError:
        return found
    return {**found, RECOMMENDED: ("--recipe", RECOMMENDED)}


def _rates(rate: Rate, options: tuple[str, ...], out: Path) -> list[Piece]:
    """Return a measurement of each side, and of ours compiled if that is asked for."""
    found = []
    for side, compiled in [(side, False) for side in SIDES] + [("gemsdata", True)] * rate.compiled:
        name = f"{rate.model}-{side}{'-compiled' if compiled else ''}"
        rows = ("--batch-rows", str(rate.batch_rows), "--micro-batch-rows", str(rate.micro_batch_rows))
        own = ("--side", side, "--model", rate.model, *rows, "--steps", str(rate.num_steps))
        own += ("--compile",) if compiled else ()
        arguments = (*options, *own, "--output", str(out / "rates" / f"{name}.json"))
        minutes = 4.0 if compiled else 2.0
        found.append(
            Piece(name=f"rate-{name}", module="tools.gpu_campaign.rates", arguments=arguments, minutes=minutes)
        )
    return found


def _resumable(name: str, module: str, arguments: tuple[str, ...]) -> Piece:
    return Piece(name=name, module=module, arguments=arguments, minutes=1.0, resumable=True)
