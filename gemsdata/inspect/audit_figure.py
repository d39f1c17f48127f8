"""The figure of an audit: six panels and the alerts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gemsdata.inspect.audit import LONGEST_RUN, Audit

_BLUE, _GREY, _ORANGE, _RED = "#2f6db3", "#9aa3ad", "#d9822b", "#b3302f"


def plot_audit(audit: Audit, path: str | Path) -> None:
    """Write the figure of an audit to an image file; the suffix of ``path`` decides the format."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("figures need matplotlib; install it with: pip install 'gemsdata[plot]'") from None
    figure = Figure(figsize=(13, 8.6), layout="constrained")
    axes = figure.subplots(2, 3)
    _draw_positions(axes[0, 0], audit)
    _draw_deciles(axes[0, 1], audit)
    _draw_runs(axes[0, 2], audit)
    _draw_rates(axes[1, 0], audit)
    _draw_repeats(axes[1, 1], audit)
    _draw_kmers(axes[1, 2], audit)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{_title(audit)}\n{audit.num_rows:,} rows, {audit.num_tokens:,} tokens {audit.tokens}", fontsize=13
    )
    lines = [f"{alert.level.upper()}: {alert.text}" for alert in audit.alerts] or ["no alerts"]
    color = _RED if audit.alarms else _ORANGE if audit.alerts else "#3a7d44"
    figure.supxlabel("\n".join(lines), fontsize=10, color=color, wrap=True)
    try:
        figure.savefig(path, dpi=120)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"cannot write the figure {path}: {error}") from None


def _title(audit: Audit) -> str:
    options = {key: audit.masking[key] for key in ("rate", "budget") if audit.masking.get(key) is not None}
    if "budget" in options:
        options["budget_unit"] = audit.masking["budget_unit"]
    options["corruption"] = audit.masking["corruption"]
    return f"masking {audit.masking['name']} (" + ", ".join(f"{key} {value}" for key, value in options.items()) + ")"


def _per_cent(axis: Any, which: str = "y") -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    side = axis.yaxis if which == "y" else axis.xaxis
    side.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    side.set_major_formatter(PercentFormatter(1.0))


def _draw_positions(axis: Any, audit: Audit) -> None:
    rates = np.array([np.nan if rate is None else rate for rate in audit.rate_by_position])
    axis.plot(np.arange(len(rates)), rates, color=_BLUE, linewidth=0.8)
    axis.axhline(audit.masked_token_rate, color=_ORANGE, linewidth=1.2, linestyle="--", label="mean")
    axis.set(title="Masked rate by position", xlabel="token position in the row", ylabel="masked", ylim=(0, None))
    axis.legend(frameon=False)
    _per_cent(axis)


def _draw_deciles(axis: Any, audit: Audit) -> None:
    axis.set(title="Masked rate by NPMI rank", xlabel="rank decile of the n-gram (1 = best)", ylabel="masked")
    if audit.rate_by_rank_decile is None:
        axis.text(0.5, 0.5, "no ranks", ha="center", transform=axis.transAxes)
        return
    axis.bar(range(1, 11), [rate or 0 for rate in audit.rate_by_rank_decile], color=_BLUE)
    axis.axhline(audit.masked_token_rate, color=_ORANGE, linewidth=1.2, linestyle="--")
    axis.set_xticks(range(1, 11))
    _per_cent(axis)
    if audit.mean_rank_of_chosen is not None:
        text = (
            f"mean rank of chosen tokens {audit.mean_rank_of_chosen:.0f}\nof all tokens {audit.mean_rank_of_tokens:.0f}"
        )
        axis.text(0.97, 0.96, text, ha="right", va="top", transform=axis.transAxes, fontsize=9)
        axis.set_ylim(0, axis.get_ylim()[1] * 1.18)


def _draw_runs(axis: Any, audit: Audit) -> None:
    names, counts = list(audit.run_lengths), list(audit.run_lengths.values())
    axis.bar(range(len(names)), counts, color=_BLUE)
    ticks = [i for i in (0, audit.k - 1, 2 * audit.k - 2, 19, 29, LONGEST_RUN - 1) if i < len(names)]
    axis.set_xticks(ticks, [names[i] for i in ticks])
    axis.set(title="Runs of masked tokens", xlabel="length (tokens)", ylabel="runs")


def _draw_rates(axis: Any, audit: Audit) -> None:
    bars = [
        ("tokens masked", audit.masked_token_rate, _BLUE),
        ("nucleotides hidden", audit.hidden_nucleotide_rate, _BLUE),
        ("of masked tokens: visible in\nunmasked neighbours", audit.given_away_by_unmasked, _GREY),
        ("of masked tokens: visible if\nkept tokens are read", audit.given_away_by_kept, _GREY),
        ("of hidden nucleotides:\nvisible in kept tokens", audit.hidden_shown_by_kept, _GREY),
    ]
    _horizontal(axis, bars)
    axis.set(title="Masked, hidden and visible")


def _draw_repeats(axis: Any, audit: Audit) -> None:
    rates = (audit.rate_in_soft_masked, audit.rate_outside_soft_masked)
    axis.set(title="Masked rate in repeats")
    if all(rate is None for rate in rates):
        axis.text(0.5, 0.5, "soft-masking unknown", ha="center", transform=axis.transAxes)
        return
    names = ("soft-masked\n(repeats)", "not\nsoft-masked")
    _horizontal(axis, [(name, rate or 0.0, _BLUE) for name, rate in zip(names, rates, strict=True)])


def _horizontal(axis: Any, bars: list[tuple[str, float, str]]) -> None:
    names, values, colors = zip(*bars, strict=True)
    axis.barh(range(len(bars)), values, color=colors)
    axis.set_yticks(range(len(bars)), names, fontsize=9)
    axis.invert_yaxis()
    for i, value in enumerate(values):
        axis.text(value, i, f" {value:.1%}", va="center", fontsize=9)
    axis.set_xlim(0, max(max(values) * 1.25, 0.01))
    _per_cent(axis, "x")


def _draw_kmers(axis: Any, audit: Audit) -> None:
    top = audit.most_masked_kmers
    axis.barh(range(len(top)), [entry["masked_rate"] for entry in top], color=_BLUE)
    labels = [f"{entry['kmer']} {'#' + str(entry['rank']):>6}" if entry["rank"] else entry["kmer"] for entry in top]
    axis.set_yticks(range(len(top)), labels, fontsize=8, family="monospace")
    axis.invert_yaxis()
    axis.set(title="Most-masked tokens  (# NPMI rank)", xlabel="share of occurrences masked")
    _per_cent(axis, "x")
