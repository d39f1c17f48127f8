"""Section of the report that compares the audits of all masking strategies."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gemsdata.files.progress import Progress
from gemsdata.inspect.audit import Audit, audit
from gemsdata.inspect.plot.style import BLUE, FAINT, RED, figure_style
from gemsdata.inspect.report.section import Picture, Section, Table
from gemsdata.inspect.report.svg import inline_svg
from gemsdata.masking.registry import names
from gemsdata.masking.strategies import TARGET_RATE
from gemsdata.shards.shard_set import ShardSet

_POSITION_BINS = 102
_PANELS_IN_A_ROW = 4
RELEASED_SUFFIX = "-released"
"""suffix of the names of strategies that reproduce published code with its defects"""


def mask_section(shards: ShardSet, num_rows: int, progress: Progress) -> Section:
    """Return the section with the audits of all strategies on the same rows.

    The ``-released`` variants, which reproduce defects of published code, are not part of it: docs/masking.md compares
    them. For the same reason a strategy that does not use ranks gets no warning that its masks are independent of them.
    """
    title = "Masking strategies"
    if not shards.has_npmi:
        return Section(anchor="masks", title=title, notes=["No audit: the strategies need the ranks of an NPMI table."])
    audits: list[Audit] = []
    notes: list[str] = []
    chosen = [name for name in names() if not name.endswith(RELEASED_SUFFIX)]
    for name in chosen:
        try:
            audits.append(audit(shards, name, num_rows=num_rows))
        except ValueError as reason:
            notes.append(f"{name}: {reason}")
        progress("auditing strategies", 1, len(chosen))
    if not audits:
        return Section(anchor="masks", title=title, notes=notes)
    tables = [Table(columns=_COLUMNS, rows=[_row(result) for result in audits])]
    alerts = [
        [result.masking["name"], f"{alert.level}: {alert.text}"]
        for result in audits
        for alert in result.alerts
        if not alert.is_expected
    ]
    if alerts:
        tables.append(Table(columns=["strategy", "alert"], rows=alerts, caption="Alerts"))
    return Section(
        anchor="masks",
        title=title,
        text=f"All strategies on the same {audits[0].num_rows:,} training rows, {audits[0].num_tokens:,} tokens.",
        tables=tables,
        pictures=_pictures(audits),
        notes=notes,
    )


_COLUMNS = [
    "strategy",
    "masked tokens",
    "hidden bases",
    "visible in neighbours",
    "visible in kept tokens",
    "mean rank of chosen",
    "mean rank of all",
    "masked in repeats",
    "masked elsewhere",
    "alarms",
]


def _row(result: Audit) -> list[str]:
    return [
        str(result.masking["name"]),
        _percent(result.masked_token_rate),
        _percent(result.hidden_nucleotide_rate),
        _percent(result.given_away_by_unmasked),
        _percent(result.given_away_by_kept),
        "–" if result.mean_rank_of_chosen is None else f"{result.mean_rank_of_chosen:,.0f}",
        "–" if result.mean_rank_of_tokens is None else f"{result.mean_rank_of_tokens:,.0f}",
        _percent(result.rate_in_soft_masked),
        _percent(result.rate_outside_soft_masked),
        str(len(result.alarms)),
    ]


def _pictures(audits: list[Audit]) -> list[Picture]:
    with figure_style():
        by_decile, by_position = _by_decile(audits), _by_position(audits)
    return [
        _picture(by_decile, "mask-deciles", _decile_caption(audits)),
        _picture(by_position, "mask-positions", _position_caption(audits)),
    ]


def _picture(figure: Figure, name: str, caption: str) -> Picture:
    return Picture(svg=inline_svg(figure, name, caption), caption=caption, wide=True)


def _decile_caption(audits: list[Audit]) -> str:
    """Describe the panels by rank decile, with the strategies of the largest and the smallest difference."""
    text = "Masked share of the tokens by NPMI rank decile (1: best ranks). The axes of the panels differ."
    ratios = []
    for result in audits:
        rates = _floats(result.rate_by_rank_decile or [])
        if rates.size and rates[-1] > 0 and rates[0] > 0:
            ratios.append((rates[0] / rates[-1], result.masking["name"]))
    if ratios:
        ratio, name = max(ratios)
        text += f" {name} masks tokens of the best decile {ratio:.1f} times as often as those of the worst"
        low, other = min(ratios)
        text += f", {other} {low:.1f} times." if other != name else "."
    return text


def _position_caption(audits: list[Audit]) -> str:
    """Describe the panels by position, with the range of the rates away from the ends of the row."""
    text = "Masked share of the tokens by position in the row"
    inner = [rates[rates.size // 10 : -(rates.size // 10) or None] for rates in map(_position_rates, audits)]
    known = np.concatenate([rates[np.isfinite(rates)] for rates in inner]) if inner else np.empty(0)
    if known.size:
        text += f"; {_percent(known.min())} to {_percent(known.max())} in the inner 80 % of the positions"
    return text + "."


def _by_decile(audits: list[Audit]) -> Figure:
    """Draw one panel per strategy, each with an axis of its own: some mask the best decile nearly always."""
    figure, panels = _panels(audits, shared_y=False)
    for axes, result in zip(panels, audits, strict=True):
        rates = _floats(result.rate_by_rank_decile or [])
        axes.bar(np.arange(1, rates.size + 1), rates, width=0.8, color=_colour(result))
        axes.set_ylim(0, _top(rates))
        axes.set_xticks([1, 5, 10])
    figure.supxlabel("rank decile", fontsize=9)
    return figure


def _by_position(audits: list[Audit]) -> Figure:
    """Draw one panel per strategy on the smallest common axis."""
    figure, panels = _panels(audits, shared_y=True)
    curves = [_position_rates(result) for result in audits]
    for axes, result, rates in zip(panels, audits, curves, strict=True):
        width = max(1, len(result.rate_by_position) // _POSITION_BINS)
        axes.plot(np.arange(rates.size) * width, rates, color=_colour(result), linewidth=1)
    panels[0].set_ylim(0, _top(np.concatenate(curves)))
    figure.supxlabel("token position", fontsize=9)
    return figure


def _position_rates(result: Audit) -> np.ndarray:
    """Return the masked share in bins of positions, float64[bins]; NaN where no row reaches."""
    rates = _floats(result.rate_by_position)
    width = max(1, rates.size // _POSITION_BINS)
    whole = rates[: rates.size // width * width].reshape(-1, width)
    known = np.isfinite(whole).sum(axis=1)
    return np.where(known > 0, np.nansum(whole, axis=1) / np.maximum(known, 1), np.nan)


def _top(rates: np.ndarray) -> float:
    """Return the end of an axis from 0 that shows all rates and the target rate."""
    return 1.15 * float(np.nanmax(np.append(rates, TARGET_RATE)))


def _panels(audits: list[Audit], *, shared_y: bool) -> tuple[Figure, list[Axes]]:
    num_rows = -(-len(audits) // _PANELS_IN_A_ROW)
    figure = Figure(figsize=(7.0, 1.3 * num_rows + 0.4))
    grid = list(figure.subplots(num_rows, _PANELS_IN_A_ROW, sharex=True, sharey=shared_y, squeeze=False).flat)
    for axes, result in zip(grid, audits, strict=False):
        axes.set_title(result.masking["name"], fontsize=8, loc="left", pad=3)
        axes.axhline(TARGET_RATE, color=FAINT, linewidth=0.8, zorder=0)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in grid[len(audits) :]:
        axes.set_visible(False)
    return figure, grid[: len(audits)]


def _colour(result: Audit) -> str:
    return RED if result.alarms else BLUE


def _floats(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
