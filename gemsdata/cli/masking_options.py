"""The options of commands that mask rows of a shard set."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from gemsdata.masking.registry import load_plugins, names
from gemsdata.masking.strategies import resolve

import_option = click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Import a module that registers a strategy of yours; may be given several times.",
)


def masking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --masking and what goes with it; the command gets a ``strategy``, and ``split``, ``seed`` and ``stage``."""

    @functools.wraps(command)
    def with_strategy(
        masking: str,
        rate: float | None,
        budget: float | None,
        budget_unit: str,
        corruption: str,
        modules: tuple[str, ...],
        **others: Any,
    ) -> Any:
        load_plugins(modules)
        strategy = resolve(masking, rate=rate, budget=budget, budget_unit=budget_unit, corruption=corruption)
        return command(strategy=strategy, **others)

    options = [
        click.option("--masking", "masking", required=True, help=f"Strategy: {', '.join(names(plugins=False))}."),
        import_option,
        click.option("--rate", type=float, help="Probability that a token is a centre; default: the strategy's own."),
        click.option("--budget", type=float, help="Mask exactly this share of every row, such as 0.15."),
        click.option(
            "--budget-unit",
            type=click.Choice(["token", "nucleotide"]),
            default="token",
            show_default=True,
            help="What the budget counts.",
        ),
        click.option(
            "--corruption",
            type=click.Choice(["token", "span"]),
            default="token",
            show_default=True,
            help="Decide 80/10/10 for each masked token, or once for each run of them.",
        ),
        click.option("--split", default="train", show_default=True, help="Rows of which split."),
        click.option("--seed", type=int, default=0, show_default=True, help="Key of the random numbers."),
        click.option("--stage", type=int, default=0, show_default=True, help="Stage of a strategy that grows."),
    ]
    for option in reversed(options):
        with_strategy = option(with_strategy)
    return with_strategy
