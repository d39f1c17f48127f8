"""training.png: loss, validation by kind of masked token, and bits per hidden base over the steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.run_log import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = {"mask": "shown as [MASK]", "kept": "kept", "random": "replaced at random"}


def draw_run(run: Path) -> None:
    """Draw RUN/training.png from RUN/metrics.jsonl; without matplotlib nothing is drawn."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    lines = read_metrics(run / "metrics.jsonl")
    figure = Figure(figsize=(9, 8), layout="constrained")
    training, validation, bases = figure.subplots(3, 1, sharex=True)
    _curve(training, lines, "loss", "training", linewidth=1)
    _curve(validation, lines, "valid_loss", "all masked tokens", marker="o", markersize=4, linewidth=2)
    for kind, label in _KINDS.items():
        _curve(validation, lines, f"valid_loss_{kind}", label, marker=".", linewidth=1)
    _curve(bases, lines, "valid_bits_per_base", "model", marker="o", markersize=4)
    _level(bases, lines, "markov_bits_per_base", "Markov chain", linestyle="--")
    _level(bases, lines, "unigram_bits_per_base", "base frequencies", linestyle=":")
    switches = [line["stage_log"] for line in lines if line.get("stage_log")]
    for step, stage in switches[-1] if switches else []:
        for axes in (training, validation, bases):
            axes.axvline(step, color="tab:red", linestyle="--", linewidth=1)
        training.annotate(f"stage {stage}", (step, 1), xycoords=("data", "axes fraction"), xytext=(3, -12),
                          textcoords="offset points", color="tab:red")  # fmt: skip
    training.set_ylabel("loss, nats per masked token")
    validation.set_ylabel("validation loss, nats per token")
    bases.set_ylabel("bits per hidden base")
    bases.set_xlabel("step")
    for axes in (training, validation, bases):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(run / "training.png", dpi=120)


def _curve(axes: Axes, lines: list[dict[str, Any]], name: str, label: str, **style: Any) -> None:
    points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, **style)


def _level(axes: Axes, lines: list[dict[str, Any]], name: str, label: str, **style: Any) -> None:
    values = [line[name] for line in lines if line.get(name) is not None]
    if values:
        axes.axhline(values[-1], label=label, color="grey", linewidth=1, **style)
