"""Section of the report that compares the audits of all masking strategies."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gemsdata.files.progress import Progress
from gemsdata.inspect.audit import Audit, audit
from gemsdata.inspect.plot.style import BLUE, FAINT, RED, figure_style
from gemsdata.inspect.report.section import Picture, Section, Table
from gemsdata.inspect.report.svg import inline_svg
from gemsdata.masking.registry import names
from gemsdata.masking.strategies import TARGET_RATE
from gemsdata.shards.manifest import NPMI_FILE
from gemsdata.shards.shard_set import ShardSet

_POSITION_BINS = 102
_PANELS_IN_A_ROW = 3


def mask_section(shards: ShardSet, num_rows: int, progress: Progress) -> Section:
    """Return the section with the audits of all strategies on the same rows."""
    title = "Masking strategies"
    if not (shards.folder / NPMI_FILE).exists():
        return Section(anchor="masks", title=title, notes=["No audit: the strategies need the ranks of an NPMI table."])
    audits: list[Audit] = []
    notes: list[str] = []
    for name in names():
        try:
            audits.append(audit(shards, name, num_rows=num_rows))
        except ValueError as reason:
            notes.append(f"{name}: {reason}")
        progress("auditing strategies", 1, len(names()))
    if not audits:
        return Section(anchor="masks", title=title, notes=notes)
    alerts = [[result.masking["name"], f"{alert.level}: {alert.text}"] for result in audits for alert in result.alerts]
    tables = [Table(columns=_COLUMNS, rows=[_row(result) for result in audits])]
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
    captions = {
        "mask-deciles": "Share of tokens masked, by tenth of the NPMI ranking (the best tenth on the left).",
        "mask-positions": "Share of tokens masked, by position in the row; level, but for the ends.",
    }
    with figure_style():
        figures = {"mask-deciles": _by_decile(audits), "mask-positions": _by_position(audits)}
    return [
        Picture(svg=inline_svg(figure, name, captions[name]), caption=captions[name])
        for name, figure in figures.items()
    ]


def _by_decile(audits: list[Audit]) -> Figure:
    figure, panels = _panels(audits)
    for axes, result in zip(panels, audits, strict=True):
        rates = _floats(result.rate_by_rank_decile or [])
        axes.bar(np.arange(1, rates.size + 1), rates, width=0.8, color=_colour(result))
        axes.set_xticks([1, 5, 10])
    figure.supxlabel("tenth of the ranking", fontsize=9)
    return figure


def _by_position(audits: list[Audit]) -> Figure:
    figure, panels = _panels(audits)
    for axes, result in zip(panels, audits, strict=True):
        rates = _floats(result.rate_by_position)
        width = max(1, rates.size // _POSITION_BINS)
        whole = rates[: rates.size // width * width].reshape(-1, width)
        axes.plot(np.arange(whole.shape[0]) * width, np.nanmean(whole, axis=1), color=_colour(result), linewidth=1)
    figure.supxlabel("token position", fontsize=9)
    return figure


def _panels(audits: list[Audit]) -> tuple[Figure, list[Axes]]:
    num_rows = -(-len(audits) // _PANELS_IN_A_ROW)
    figure = Figure(figsize=(4.6, 1.2 * num_rows + 0.4))
    grid = list(figure.subplots(num_rows, _PANELS_IN_A_ROW, sharex=True, sharey=True, squeeze=False).flat)
    for axes, result in zip(grid, audits, strict=False):
        axes.set_title(result.masking["name"], fontsize=8, loc="left", pad=3)
        axes.axhline(TARGET_RATE, color=FAINT, linewidth=0.8, zorder=0)
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
