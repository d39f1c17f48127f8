"""The figure of an audit: six panels and the alerts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gemsdata.inspect.audit import LONGEST_RUN, Audit
from gemsdata.inspect.plot.style import BLUE, FAINT, INK, ORANGE, RED, figure_style, set_title


def plot_audit(audit: Audit, path: str | Path, *, name: str = "") -> None:
    """Write the figure of an audit to an image file; the suffix of ``path`` decides the format.

    ``name`` is that of the set, and stands below the title.
    """
    with figure_style():
        _save(_figure(audit, Figure(figsize=(12, 7.4)), name), path)


def _figure(audit: Audit, figure: Figure, name: str) -> Figure:
    axes = figure.subplots(2, 3)
    _draw_positions(axes[0, 0], audit)
    _draw_deciles(axes[0, 1], audit)
    _draw_runs(axes[0, 2], audit)
    _draw_rates(axes[1, 0], audit)
    _draw_repeats(axes[1, 1], audit)
    _draw_kmers(axes[1, 2], audit)
    for axis in axes.flat:
        axis.title.set_size(10)
    subject = f"{audit.num_rows:,} rows, {audit.num_tokens:,} tokens {audit.tokens}"
    set_title(figure, _title(audit), f"{name}: {subject}" if name else subject)
    lines = [f"{alert.level.upper()}: {alert.text}" for alert in audit.alerts] or ["no alerts"]
    figure.supxlabel("\n".join(lines), fontsize=9, color=RED if audit.alarms else INK, wrap=True)
    return figure


def _save(figure: Figure, path: str | Path) -> None:
    try:
        figure.savefig(path, dpi=150)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"cannot write the figure {path}: {error}") from None


def _title(audit: Audit) -> str:
    options = {key: audit.masking[key] for key in ("rate", "budget") if audit.masking.get(key) is not None}
    if "budget" in options:
        options["budget_unit"] = audit.masking["budget_unit"]
    options["corruption"] = audit.masking["corruption"]
    rates = f"{audit.masked_token_rate:.1%} of the tokens and hides {audit.hidden_nucleotide_rate:.1%} of the bases"
    return f"{audit.masking['name']} masks {rates} (" + ", ".join(f"{k} {v}" for k, v in options.items()) + ")"


def _per_cent(axis: Axes, which: str = "y") -> None:
    side = axis.yaxis if which == "y" else axis.xaxis
    side.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    side.set_major_formatter(PercentFormatter(1.0))


def _draw_positions(axis: Axes, audit: Audit) -> None:
    rates = np.array([np.nan if rate is None else rate for rate in audit.rate_by_position])
    axis.plot(np.arange(len(rates)), rates, color=BLUE, linewidth=0.8)
    axis.axhline(audit.masked_token_rate, color=ORANGE, linewidth=1.2, linestyle="--", label="mean")
    known = rates[~np.isnan(rates)]
    low, high = np.quantile(known, (0.05, 0.95)) if known.size else (0, 0)
    title = f"Positions are masked at {low:.1%} to {high:.1%}"
    axis.set(title=title, xlabel="token position in the row (title: 5 to 95 %)", ylabel="masked", ylim=(0, None))
    axis.legend(frameon=False)
    _per_cent(axis)


def _draw_deciles(axis: Axes, audit: Audit) -> None:
    axis.set(title="Masked rate by NPMI rank", xlabel="rank decile of the n-gram (1 = best)", ylabel="masked")
    if audit.rate_by_rank_decile is None:
        axis.text(0.5, 0.5, "no ranks", ha="center", transform=axis.transAxes)
        return
    rates = [rate or 0 for rate in audit.rate_by_rank_decile]
    axis.bar(range(1, 11), rates, color=BLUE)
    axis.set_title(f"Best-ranked tenth masked at {rates[0]:.1%}, last at {rates[-1]:.1%}")
    axis.axhline(audit.masked_token_rate, color=ORANGE, linewidth=1.2, linestyle="--")
    axis.set_xticks(range(1, 11))
    _per_cent(axis)
    if audit.mean_rank_of_chosen is not None:
        text = (
            f"mean rank of chosen tokens {audit.mean_rank_of_chosen:.0f}\nof all tokens {audit.mean_rank_of_tokens:.0f}"
        )
        axis.text(0.97, 0.96, text, ha="right", va="top", transform=axis.transAxes, fontsize=8)
        axis.set_ylim(0, axis.get_ylim()[1] * 1.18)


def _draw_runs(axis: Axes, audit: Audit) -> None:
    names, counts = list(audit.run_lengths), list(audit.run_lengths.values())
    axis.bar(range(len(names)), counts, color=BLUE)
    ticks = [i for i in (0, audit.k - 1, 2 * audit.k - 2, 19, 29, LONGEST_RUN - 1) if i < len(names)]
    axis.set_xticks(ticks, [names[i] for i in ticks])
    title = (
        f"{counts[int(np.argmax(counts))] / sum(counts):.0%} of the runs have length {names[int(np.argmax(counts))]}"
        if counts
        else "No runs"
    )
    axis.set(title=title, xlabel="length of a run of masked tokens", ylabel="runs")


def _draw_rates(axis: Axes, audit: Audit) -> None:
    bars = [
        ("tokens masked", audit.masked_token_rate, BLUE),
        ("nucleotides hidden", audit.hidden_nucleotide_rate, BLUE),
        ("of masked tokens: visible in\nunmasked neighbours", audit.given_away_by_unmasked, FAINT),
        ("of masked tokens: visible if\nkept tokens are read", audit.given_away_by_kept, FAINT),
        ("of hidden nucleotides:\nvisible in kept tokens", audit.hidden_shown_by_kept, FAINT),
    ]
    _horizontal(axis, bars)
    axis.set(title=f"{audit.hidden_nucleotide_rate:.1%} of the nucleotides are hidden")


def _draw_repeats(axis: Axes, audit: Audit) -> None:
    rates = (audit.rate_in_soft_masked, audit.rate_outside_soft_masked)
    axis.set(title="Masked rate in repeats")
    if all(rate is None for rate in rates):
        axis.text(0.5, 0.5, "soft-masking unknown", ha="center", transform=axis.transAxes)
        return
    inside, outside = (rate or 0.0 for rate in rates)
    axis.set_title(f"Repeats masked at {inside:.1%}, the rest at {outside:.1%}")
    names = ("soft-masked\n(repeats)", "not\nsoft-masked")
    _horizontal(axis, [(names[0], inside, BLUE), (names[1], outside, BLUE)])


def _horizontal(axis: Axes, bars: list[tuple[str, float, str]]) -> None:
    names, values, colors = zip(*bars, strict=True)
    axis.barh(range(len(bars)), values, color=colors)
    axis.set_yticks(range(len(bars)), names, fontsize=8)
    axis.invert_yaxis()
    for i, value in enumerate(values):
        axis.text(value, i, f" {value:.1%}", va="center", fontsize=8)
    axis.set_xlim(0, max(max(values) * 1.25, 0.01))
    _per_cent(axis, "x")


def _draw_kmers(axis: Axes, audit: Audit) -> None:
    top = audit.most_masked_kmers
    axis.barh(range(len(top)), [entry["masked_rate"] for entry in top], color=BLUE)
    labels = [f"{entry['kmer']} {'#' + str(entry['rank']):>6}" if entry["rank"] else entry["kmer"] for entry in top]
    axis.set_yticks(range(len(top)), labels, fontsize=8, family="monospace")
    axis.invert_yaxis()
    axis.set(title="Most masked tokens (# NPMI rank)", xlabel="share of occurrences masked")
    _per_cent(axis, "x")
