"""Sections of the report about training runs: training curves and evaluation tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from markdown_it import MarkdownIt
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gemsdata.inspect.plot.style import FAINT, PALETTE, THOUSANDS, figure_style, set_title
from gemsdata.inspect.report.section import Picture, Section, Table
from gemsdata.inspect.report.svg import inline_svg

METRICS_FILE = "metrics.jsonl"
_LOSS = ("loss", "train_loss")
_PERPLEXITY = ("perplexity", "valid_perplexity", "val_perplexity", "eval_perplexity")
_EVALUATION = {
    "valid_loss": "all masked tokens",
    "valid_loss_mask": "shown as [MASK]",
    "valid_loss_kept": "kept",
    "valid_loss_random": "replaced at random",
    "valid_bits_per_base": "bits per hidden base",
    "markov_bits_per_base": "Markov chain, bits per base",
}
"""entries of the metrics file and the columns that show them"""
_GUESSING = "unigram_perplexity"
_MOST_TABLE_ROWS = 200
_SMOOTHED = 50
_LOG_RATIO = 20
"""ratio of the largest to the smallest perplexity above which the axis is logarithmic"""
_TABLE_HEADER = re.compile(r"<th(?=[ >])")


@dataclass(frozen=True)
class TrainingCurves:
    """Loss and perplexity of a training run, as written to its metrics file."""

    name: str
    loss: np.ndarray
    """(step, loss), float64[n, 2]"""
    perplexity: np.ndarray
    """(step, perplexity on validation rows), float64[n, 2]"""
    switches: list[tuple[int, Any]]
    """(step, stage) at each change of the stage"""
    evaluation: dict[str, float]
    """numbers of the last evaluation, by their names in the metrics file"""
    guessing: float | None = None
    """perplexity of guessing the validation rows by token frequencies, where the metrics file has it"""


def is_run(place: str | Path) -> bool:
    """Return whether a place is the output folder of a training run."""
    return (Path(place) / METRICS_FILE).is_file()


def set_of_run(run: Path) -> str:
    """Return the first shard set of a training run, as its newest checkpoint records it.

    Raises ValueError if there is no checkpoint that says it.
    """
    found = sorted(run.glob("checkpoints/step-*/state.json"))
    try:
        return str(json.loads(found[-1].read_text())["config"]["shards"][0])
    except (IndexError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{run} has no checkpoint that names its shard set; give it: report SHARDS {run}") from error


def run_section(folders: Sequence[Path]) -> list[Section]:
    """Return the sections of curves and of evaluation tables, without empty ones."""
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; give the output folder of a training run")
    names = run_names(folders)
    files = {name: _tables_in(folder) for name, folder in zip(names, folders, strict=True)}
    runs, notes = [], []
    for name, folder in zip(names, folders, strict=True):
        if (folder / METRICS_FILE).exists():
            runs.append(read_curves(folder / METRICS_FILE, name))
        elif not files[name]:
            notes.append(f"{name} contains neither {METRICS_FILE} nor a table (.md, .parquet).")
    sections = []
    if runs or notes:
        sections.append(_curves(runs, notes))
    results = [(name, path) for name, paths in files.items() for path in paths]
    if results:
        sections.append(
            Section(
                anchor="evaluation",
                title="Evaluation",
                tables=[_parquet_table(name, path) for name, path in results if path.suffix == ".parquet"],
                html=[_markdown(name, path) for name, path in results if path.suffix == ".md"],
            )
        )
    return sections


def read_curves(path: Path, name: str) -> TrainingCurves:
    """Read a metrics file in JSON lines; lines that are incomplete or have no step are ignored."""
    loss: list[tuple[int, float]] = []
    perplexity: list[tuple[int, float]] = []
    stages: list[tuple[int, Any]] = []
    evaluation: dict[str, float] = {}
    guessing: float | None = None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            step = int(entry["step"])
        except (ValueError, TypeError, KeyError):
            continue
        for series, fields in ((loss, _LOSS), (perplexity, _PERPLEXITY)):
            value = next((entry[field] for field in fields if isinstance(entry.get(field), int | float)), None)
            if value is not None and math.isfinite(value):
                series.append((step, float(value)))
        evaluation |= {name: float(entry[name]) for name in _EVALUATION if isinstance(entry.get(name), int | float)}
        guessing = entry[_GUESSING] if isinstance(entry.get(_GUESSING), int | float) else guessing
        if entry.get("stage") is not None:
            stages.append((step, entry["stage"]))
    switches = [later for before, later in pairwise(stages) if later[1] != before[1]]
    return TrainingCurves(name, _points(loss), _points(perplexity), switches, evaluation, guessing)


def plot_curves(runs: Sequence[TrainingCurves], attribute: str) -> Figure:
    """Return the figure of the ``loss`` or ``perplexity`` of runs by step; dashed lines mark changes of the stage."""
    figure = Figure(figsize=(4.6, 3.0))
    axes = figure.subplots()
    for run, colour in zip(runs, _colours(len(runs)), strict=True):
        points = getattr(run, attribute)
        if len(points) > 2 * _SMOOTHED:
            axes.plot(points[:, 0], points[:, 1], color=colour, alpha=0.2, linewidth=0.7)
            points = _smooth(points, len(points) // _SMOOTHED)
        marker = "o" if attribute == "perplexity" else None
        axes.plot(points[:, 0], points[:, 1], color=colour, marker=marker, markersize=3, label=run.name)
        if attribute == "perplexity" and run.guessing is not None:
            axes.axhline(run.guessing, color=colour, linewidth=0.9, linestyle=":")
        for step, stage in run.switches:
            axes.axvline(step, color=colour, linewidth=0.9, linestyle=(0, (4, 3)))
            late = step > np.mean(axes.get_xlim())
            axes.annotate(
                f"stage {stage} from here",
                (step, 1),
                xycoords=("data", "axes fraction"),
                xytext=(-3 if late else 3, -2),
                textcoords="offset points",
                fontsize=7,
                ha="right" if late else "left",
                va="top",
            )
    axes.set_ylabel("training loss" if attribute == "loss" else "validation perplexity")
    values = np.concatenate([getattr(run, attribute)[:, 1] for run in runs])
    if attribute == "perplexity" and values.size and values.max() > _LOG_RATIO * values.min() > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(THOUSANDS)
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color=FAINT, alpha=0.4, linewidth=0.6)
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.set_xlabel("step")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0, ncols=3)
    set_title(figure, curves_title(runs, attribute))
    return figure


def curves_title(runs: Sequence[TrainingCurves], attribute: str) -> str:
    """Return what the curves show: the first and last value of a run, or the range of the last values of several."""
    what = "Training loss" if attribute == "loss" else "Validation perplexity"
    shown = [values for run in runs if len(values := getattr(run, attribute)[:, 1])]
    if len(shown) == 1:
        return f"{what}: {shown[0][0]:,.2f} at first, {shown[0][-1]:,.2f} at last"
    last = [values[-1] for values in shown]
    return f"{what} of {len(shown)} runs: {min(last):,.2f} to {max(last):,.2f} at last"


def _curves(runs: Sequence[TrainingCurves], notes: list[str]) -> Section:
    pictures = []
    for attribute, what in (("loss", "Training loss"), ("perplexity", "Perplexity of the validation rows")):
        if any(len(getattr(run, attribute)) for run in runs):
            caption = _caption(what, runs, attribute)
            with figure_style():
                svg = inline_svg(plot_curves(runs, attribute), f"training-{attribute}", caption)
            pictures.append(Picture(svg=svg, caption=caption))
    if runs and not pictures:
        notes.append(f"No {METRICS_FILE} contains a loss or a perplexity.")
    rows = [_summary(run) for run in runs]
    columns = ["run", "steps", "last loss", "last perplexity", "best perplexity", "stage changes at"]
    tables = [Table(columns=columns, rows=rows)] if rows else []
    evaluated = [run for run in runs if run.evaluation]
    if evaluated:
        shown = [
            [run.name, *(f"{run.evaluation[name]:.4f}" if name in run.evaluation else "–" for name in _EVALUATION)]
            for run in evaluated
        ]
        caption = "Validation loss in nats per token at the last evaluation, by what the model was shown."
        tables.append(Table(columns=["run", *_EVALUATION.values()], rows=shown, caption=caption))
    return Section(anchor="training", title="Training", tables=tables, pictures=pictures, notes=notes)


def _caption(what: str, runs: Sequence[TrainingCurves], attribute: str) -> str:
    """Return what a figure of curves shows: first and last values, baselines, changes of the stage."""
    parts = []
    for run in runs:
        values = getattr(run, attribute)[:, 1]
        if len(values):
            part = f"{run.name} from {values[0]:,.2f} to {values[-1]:,.2f}"
            if attribute == "perplexity" and run.guessing is not None:
                part += f" (guessing by token frequencies, dotted: {run.guessing:,.2f})"
            parts.append(part)
    caption = f"{what}: {', '.join(parts)}."
    if any(run.switches for run in runs):
        caption += (
            " Dashed lines mark where a curriculum changes the masking; the training loss before and after is of"
            " different masks."
        )
    return caption


def _summary(run: TrainingCurves) -> list[str]:
    steps = [points[-1, 0] for points in (run.loss, run.perplexity) if len(points)]
    return [
        run.name,
        f"{max(steps):,.0f}" if steps else "–",
        f"{run.loss[-1, 1]:.4f}" if len(run.loss) else "–",
        f"{run.perplexity[-1, 1]:.2f}" if len(run.perplexity) else "–",
        f"{run.perplexity[:, 1].min():.2f}" if len(run.perplexity) else "–",
        ", ".join(f"{step:,}" for step, _ in run.switches) or "–",
    ]


def _tables_in(folder: Path) -> list[Path]:
    """Return the Markdown (except README.md) and Parquet files of a folder and of its subfolders."""
    found = [path for pattern in ("*.md", "*/*.md", "*.parquet", "*/*.parquet") for path in folder.glob(pattern)]
    return sorted(path for path in found if path.name.lower() != "readme.md")


def _markdown(run: str, path: Path) -> Markup:
    """Return a Markdown file as HTML below its name; HTML inside it is escaped."""
    text = path.read_text(encoding="utf-8", errors="replace")
    body = Markup(
        _TABLE_HEADER.sub('<th scope="col"', MarkdownIt("commonmark", {"html": False}).enable("table").render(text))
    )
    area = Markup(
        "<h3>{0} <small>{1}</small></h3>\n"
        '<div class="scroll text" tabindex="0" role="region" aria-label="{0}">{2}</div>'
    )
    return area.format(path.stem, run, body)


def _parquet_table(run: str, path: Path) -> Table:
    """Return the first rows of a Parquet file."""
    caption = f"{path.stem} ({run})"
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:
        return Table(columns=["cannot be read"], rows=[[str(error).splitlines()[0]]], caption=caption)
    if table.num_rows > _MOST_TABLE_ROWS:
        caption += f", the first {_MOST_TABLE_ROWS} of {table.num_rows:,} rows"
    rows = [[_cell(value) for value in row.values()] for row in table.slice(0, _MOST_TABLE_ROWS).to_pylist()]
    columns = [name.replace("_", " ") for name in table.column_names]  # so that long names wrap
    return Table(columns=columns, rows=rows, caption=caption)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def run_names(folders: Sequence[Path]) -> list[str]:
    """Return a name for each run: its folder, with as many parents as needed to be unique."""
    for depth in range(1, 9):
        names = ["/".join(folder.resolve().parts[-depth:]) for folder in folders]
        if len(set(names)) == len({folder.resolve() for folder in folders}):
            return names
    return [str(folder) for folder in folders]


def _points(pairs: list[tuple[int, float]]) -> np.ndarray:
    return np.array(pairs, float).reshape(-1, 2)


def _smooth(points: np.ndarray, width: int) -> np.ndarray:
    window = np.ones(width) / width
    return np.column_stack([np.convolve(points[:, i], window, mode="valid") for i in (0, 1)])


def _colours(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]
