"""The options of commands that mask rows of a shard set."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from gemsdata.cli.options import refuse_both, require
from gemsdata.masking.curriculum import strategy_in_stage
from gemsdata.masking.registry import load_plugins, names
from gemsdata.masking.strategies import CORRUPTIONS

import_option = click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Import a module that registers a strategy or a curriculum; may be repeated.",
)


def masking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --masking and its options; the command gets ``strategy``, ``split``, ``seed`` and ``stage``."""

    @functools.wraps(command)
    def with_strategy(
        masking: str,
        rate: float | None,
        budget: float | None,
        budget_unit: str,
        corruption: str,
        modules: tuple[str, ...],
        stage: int,
        **others: Any,
    ) -> Any:
        refuse_both("rate", "budget")
        require("budget_unit", "budget")
        load_plugins(modules)
        options = {"rate": rate, "budget": budget, "budget_unit": budget_unit, "corruption": corruption}
        return command(strategy=strategy_in_stage(masking, stage, **options), stage=stage, **others)

    options = [
        click.option(
            "--masking",
            required=True,
            help=f"Strategy: {', '.join(names(plugins=False))}; or a curriculum, for its strategy in --stage.",
        ),
        import_option,
        click.option(
            "--rate",
            type=float,
            help="Probability that a token is a span centre; default: the strategy's.",
        ),
        click.option("--budget", type=float, help="Mask exactly this share of every row, such as 0.15."),
        click.option(
            "--budget-unit",
            type=click.Choice(["token", "nucleotide"]),
            default="token",
            show_default=True,
            help="Unit of --budget.",
        ),
        click.option(
            "--corruption",
            type=click.Choice(CORRUPTIONS),
            default="token",
            show_default=True,
            help="[MASK], random or unchanged (80/10/10) per masked token, or per run of them; mask: all [MASK].",
        ),
        click.option("--split", default="train", show_default=True, help="Split of the rows: train or valid."),
        click.option("--seed", type=int, default=0, show_default=True, help="Random key of the masks."),
        click.option(
            "--stage", type=int, default=0, show_default=True, help="Stage of the curriculum, or of the strategy."
        ),
    ]
    for option in reversed(options):
        with_strategy = option(with_strategy)
    return with_strategy
