"""training.png: loss, validation by kind of masked token, and bits per hidden base over the steps."""

from __future__ import annotations

import math
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemsdata.masking.curriculum import CMGems, Curriculum
from train.run_log import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = {"mask": "shown as [MASK]", "kept": "kept", "random": "replaced at random"}
_NOTE_COLUMNS = 84


def draw_run(run: Path, curriculum: Curriculum, subject: str, *, decided_by: str = "valid_loss") -> None:
    """Draw RUN/training.png from RUN/metrics.jsonl; do nothing without matplotlib.

    ``subject`` says what was trained on what, in a line below the title; ``decided_by`` is the loss whose perplexity an
    adaptive curriculum observed.
    """
    try:
        from matplotlib.figure import Figure

        from gemsdata.inspect.plot.style import FAINT, INK, figure_style, set_title
    except ImportError:
        return
    lines = read_metrics(run / "metrics.jsonl")
    with figure_style():
        figure = Figure(figsize=(8, 8.4))
        training, validation, bases = figure.subplots(3, 1, sharex=True)
        _curve(training, lines, "loss", "training", linewidth=1)
        _curve(validation, lines, "valid_loss", "all masked tokens", marker="o", markersize=4, linewidth=2)
        for kind, label in _KINDS.items():
            _curve(validation, lines, f"valid_loss_{kind}", label, marker=".", linewidth=1)
        _level(validation, _unigram_loss(lines), "token frequencies", linestyle=":")
        _curve(bases, lines, "valid_bits_per_base", "model", marker="o", markersize=4)
        _level(bases, _last(lines, "markov_bits_per_base"), "Markov chain", linestyle="--")
        _level(bases, _last(lines, "unigram_bits_per_base"), "base frequencies", linestyle=":")
        switches = _last(lines, "stage_log") or []
        for step, stage in switches:
            for axes in (training, validation, bases):
                axes.axvline(step, color=INK, linestyle="--", linewidth=0.9)
            training.annotate(f"from here: {_masking(curriculum, stage)}", (step, 1), xytext=(3, -12),
                              xycoords=("data", "axes fraction"), textcoords="offset points")  # fmt: skip
        training.set(ylabel="nats per masked token", title=_title("Training loss", lines, "loss"))
        validation.set(ylabel="nats per masked token", title=_validation_title(lines))
        bases.set(ylabel="bits per hidden base", title=_bases_title(lines))
        bases.set_xlabel("step" + (f"\n\n{switch_note(lines, curriculum, decided_by)}" if switches else ""))
        for axes in (training, validation, bases):
            if len(axes.get_legend_handles_labels()[0]) > 1:
                axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
            axes.grid(color=FAINT, alpha=0.4)
        set_title(figure, _headline(lines), f"{run.resolve().name}: {subject}")
        figure.savefig(run / "training.png", dpi=150)


def switch_note(lines: list[dict[str, Any]], curriculum: Curriculum, decided_by: str) -> str:
    """Return why the masking changes at the dashed lines of the figure, and what that means for the curves."""
    step, stage = _last(lines, "stage_log")[0]
    text = f"Dashed line: the masking changes from {_masking(curriculum, stage - 1)} to {_masking(curriculum, stage)}"
    evaluations = [(line["step"], math.exp(line[decided_by])) for line in lines if line.get(decided_by) is not None]
    if isinstance(curriculum, CMGems):
        drops = curriculum.drops([perplexity for _, perplexity in evaluations])
        for drop, ((first, _), (last, _)) in zip(drops, pairwise(evaluations), strict=True):
            if drop < curriculum.threshold:
                change = f"fell by only {drop:.2f}" if drop >= 0 else f"rose by {-drop:.2f}"
                text += (
                    f" at step {step}. The validation perplexity {change} from step {first} to step {last};"
                    f" the curriculum goes on when it falls by less than {curriculum.threshold:g}"
                )
                break
    text += ". Other tokens are masked from there on, so the training loss before and after are of different tasks"
    text += "; the validation masks stay the same." if curriculum.frozen_evaluation else "."
    return textwrap.fill(text, _NOTE_COLUMNS)


def _masking(curriculum: Curriculum, stage: int) -> str:
    return curriculum.maskings()[stage].name


def _headline(lines: list[dict[str, Any]]) -> str:
    """Return how the model compares with the Markov chain at the last evaluation."""
    model, markov = _last(lines, "valid_bits_per_base"), _last(lines, "markov_bits_per_base")
    if model is None or markov is None:
        return "Training"
    better = "less" if model < markov else "not less"
    return f"The model needs {model:.2f} bits for a hidden base, {better} than a Markov chain ({markov:.2f})"


def _title(what: str, lines: list[dict[str, Any]], name: str) -> str:
    """Return ``what`` with the first and the last value of a metric."""
    values = [line[name] for line in lines if line.get(name) is not None]
    return f"{what}: {values[0]:.2f} at first, {values[-1]:.2f} at last" if values else what


def _validation_title(lines: list[dict[str, Any]]) -> str:
    perplexity, unigram = _last(lines, "valid_perplexity"), _last(lines, "unigram_perplexity")
    if perplexity is None:
        return "Validation loss"
    title = f"Validation loss: perplexity {perplexity:,.1f} at last"
    return f"{title}, {unigram:,.1f} by token frequencies" if unigram is not None else title


def _bases_title(lines: list[dict[str, Any]]) -> str:
    model, markov = _last(lines, "valid_bits_per_base"), _last(lines, "markov_bits_per_base")
    if model is None or markov is None:
        return "Hidden bases"
    return f"Hidden bases: {model:.2f} bits at last, {markov:.2f} by a Markov chain"


def _unigram_loss(lines: list[dict[str, Any]]) -> float | None:
    perplexity = _last(lines, "unigram_perplexity")
    return math.log(perplexity) if perplexity else None


def _last(lines: list[dict[str, Any]], name: str) -> Any:
    """Return the last value of a metric, or None."""
    return next((line[name] for line in reversed(lines) if line.get(name) is not None), None)


def _curve(axes: Axes, lines: list[dict[str, Any]], name: str, label: str, **style: Any) -> None:
    points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, **style)


def _level(axes: Axes, value: float | None, label: str, **style: Any) -> None:
    if value is not None:
        axes.axhline(value, label=label, color="grey", linewidth=1, **style)
