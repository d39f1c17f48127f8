"""Draw the figures of the README: loader speeds, the two kinds of span, and what verify and lint print.

The speeds are read from docs/benchmarks.md, and replaced in the README's text, too. What commands print is read from
console blocks of docs/, which the tests run.

    python -m tools.doc_figures

docs/images/audit.png is drawn by the command that the README names.
"""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gemsdata.files.publish import publish
from gemsdata.inspect.plot.style import BLUE, FAINT, GREEN, INK, ORANGE, RED, THOUSANDS, figure_style

REPOSITORY = Path(__file__).parents[1]
BENCHMARKS = REPOSITORY / "docs" / "benchmarks.md"
README = REPOSITORY / "README.md"
FOLDER = REPOSITORY / "docs" / "images"
COLUMNS = ("gemsdata, 2 processes", "litdata", "MosaicML streaming", "webdataset", "HF datasets")
"""loaders of the README's comparison; of several variants, the fastest is used"""

_K = 6
_SEQUENCE = "GATTACAGCCTGGGAGGCTGAGGTAGGA"
_SPANS = ((2, 7, "narrow span: 6 tokens, hides 1 base"), (10, 20, "wide span: 11 tokens, hides 6 bases"))
"""first and last masked token of each span, and what to write beside it"""


TERMINALS = {
    "verify": ("docs/getting-started.md", "$ gemsdata verify shards --fasta genome.fa"),
    "lint": ("docs/lint.md", "$ gemsdata lint train.csv test.csv"),
}
"""name of a figure: (page, command in its console block)"""
_COLOURS = {"$": BLUE, "ok:": GREEN, "error": RED, "difference:": RED, "advice": ORANGE}
"""colour of a line by its first word"""


def masked_rates(text: str) -> dict[str, int]:
    """Return {loader: rows a second} of the loaders that mask, from the table in docs/benchmarks.md.

    Raises ValueError if there is no such table.
    """
    block = re.search(r"<!-- bench:loader -->.*?\n\n\| loaders that mask \|.*?\n\n", text, flags=re.DOTALL)
    row = re.compile(r"^\| ([^|]+) \| (?:genemask|HF collator) \| ([\d,]+) \|", re.MULTILINE)
    rows = row.findall(block[0] if block else "")
    if not rows:
        raise ValueError(f"{BENCHMARKS} has no table of loaders that mask; run make bench")
    return {name: int(rate.replace(",", "")) for name, rate in rows}


def readme(rates: dict[str, int], text: str) -> str:
    """Return the README with these speeds in its comparison and in the description of its figure."""
    best = [max(rate for name, rate in rates.items() if name.startswith(column)) for column in COLUMNS]
    row = "| masked rows/s, 2 processes, 512 tokens | " + " | ".join(f"{rate:,}" for rate in best) + " |"
    ours = " and ".join(f"{rate:,}" for name, rate in rates.items() if name.startswith("gemsdata"))
    shown = f"![Masked rows per second: gemsdata {ours}, the others at most {max(best[1:]):,}]"
    text = re.sub(r"^\| masked rows/s.*$", row, text, flags=re.MULTILINE)
    return re.sub(r"!\[Masked rows per second[^\]]*\]", shown, text)


def draw_speed(rates: dict[str, int]) -> Figure:
    """Return bars of masked rows a second."""
    figure = Figure(figsize=(7, 2.6))
    axes = figure.subplots()
    names = list(rates)[::-1]
    colours = [BLUE if name.startswith("gemsdata") else FAINT for name in names]
    axes.barh(range(len(names)), [rates[name] for name in names], color=colours)
    for place, name in enumerate(names):
        axes.text(rates[name], place, f" {rates[name]:,}", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, max(rates.values()) * 1.15)
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.set_xlabel("masked rows of 512 tokens a second, 2 cores")
    return figure


def draw_spans() -> Figure:
    """Return a row of overlapping k-mers, each a bar over its bases, with a narrow and a wide span."""
    figure = Figure(figsize=(7, 4.2))
    axes = figure.subplots()
    num_tokens = len(_SEQUENCE) - _K + 1
    masked = {token for first, last, _ in _SPANS for token in range(first, last + 1)}
    shown = {base for token in set(range(num_tokens)) - masked for base in range(token, token + _K)}
    for token in range(num_tokens):
        colour = ORANGE if token in masked else FAINT
        axes.add_patch(Rectangle((token - 0.5, token + 0.12), _K, 0.76, facecolor=colour, edgecolor="none"))
        text = "[MASK]" if token in masked else _SEQUENCE[token : token + _K]
        axes.text(token + _K / 2 - 0.5, token + 0.5, text, ha="center", va="center", fontsize=6.5, family="monospace")
    for base, letter in enumerate(_SEQUENCE):
        if base not in shown:
            axes.add_patch(Rectangle((base - 0.5, -1.3), 1, 1, facecolor=BLUE, edgecolor="none"))
        colour = INK if base in shown else "white"
        axes.text(base, -0.8, letter, ha="center", va="center", family="monospace", color=colour)
    for first, last, label in _SPANS:
        axes.text(last + _K + 0.2, (first + last) / 2 + 0.5, label, va="center", fontsize=8)
    axes.text(len(_SEQUENCE), -0.8, "bases; blue: hidden", va="center", fontsize=8)
    axes.set_xlim(-1, len(_SEQUENCE) + 12)
    axes.set_ylim(num_tokens + 0.3, -1.6)
    axes.axis("off")
    return figure


def terminal_lines(page: str, command: str) -> list[str]:
    """Return the lines of a page's console block from a command on; raise ValueError if the page has none."""
    blocks = re.findall(r"^```console\n(.*?)^```", (REPOSITORY / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    for block in blocks:
        lines = block.splitlines()
        for number, line in enumerate(lines):
            if line.startswith(command):
                return lines[number:]
    raise ValueError(f"{page} has no console block with {command}")


def draw_terminal(lines: list[str]) -> Figure:
    """Return text as a terminal shows it."""
    figure = Figure(figsize=(7, 0.17 * len(lines) + 0.2))
    axes = figure.subplots()
    for number, line in enumerate(lines):
        words = line.split()
        colour = _COLOURS.get(words[0], INK) if words else INK
        axes.text(0, number, line, family="monospace", fontsize=7.5, color=colour, va="center", parse_math=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(lines), -1)
    axes.axis("off")
    return figure


def write(name: str, figure: Figure) -> Path:
    """Publish a figure as an SVG in docs/images; return its path."""
    path = FOLDER / f"{name}.svg"
    with figure_style(), publish(path) as stream:
        figure.savefig(stream, format="svg", facecolor="white", metadata={"Date": None})
    return path


def main() -> None:
    """Draw all figures, and write the speeds into the README."""
    FOLDER.mkdir(exist_ok=True)
    rates = masked_rates(BENCHMARKS.read_text())
    with figure_style():
        print(write("speed", draw_speed(rates)))
        print(write("masking", draw_spans()))
        for name, block in TERMINALS.items():
            print(write(name, draw_terminal(terminal_lines(*block))))
    README.write_text(readme(rates, README.read_text()))


if __name__ == "__main__":
    main()
