"""Style of all figures: Okabe-Ito palette, thin lines, text as text in SVG, reproducible bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gemsdata.files.publish import publish

INK = "#1f2430"
FAINT = "#b9bec8"
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
"""distinguishable with the common forms of colour blindness"""
PALETTE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
BASE_COLOURS = {"A": GREEN, "C": BLUE, "G": ORANGE, "T": RED}
COLOUR_MAP = "cividis"
THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")
SUFFIXES = ("png", "svg")
_DOTS_PER_INCH = 300

_RC = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.3,
    "svg.fonttype": "none",
    "svg.hashsalt": "gemsdata",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Use the style of gemsdata's figures inside the block, independent of the user's matplotlib settings."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def set_title(figure: Figure, text: str, subject: str = "") -> None:
    """Write the title of a figure, and below it in small letters its source, such as a set's name."""
    figure.suptitle(f"{text}\n{subject}".strip(), x=0.01, ha="left", fontsize=9.5, linespacing=1.4)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Publish a figure as ``folder/name.png`` (300 dpi) and ``.svg``; return the paths."""
    paths = [folder / f"{name}.{suffix}" for suffix in SUFFIXES]
    for path, suffix in zip(paths, SUFFIXES, strict=True):
        metadata = {"Date": None} if suffix == "svg" else {"Software": None}
        with figure_style(), publish(path) as stream:
            figure.savefig(stream, format=suffix, dpi=_DOTS_PER_INCH, facecolor="white", metadata=metadata)
    return paths
