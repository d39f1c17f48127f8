"""Read labelled DNA as it stands in the bytes: quotes, line ends and odd rows are kept in mind, not repaired."""

from __future__ import annotations

import csv
import itertools
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from xopen import xopen

SUFFIXES = (".tsv", ".csv", ".tsv.gz", ".csv.gz")
SEQUENCE_COLUMNS = ("sequence", "seq")
LABEL_COLUMNS = ("label", "labels", "class")
"""accepted names, the usual one first; case does not matter"""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class LabelledFile:
    """The usable rows of a file, and what is odd about the file and the rest of its rows."""

    path: Path
    columns: list[str]
    sequence_column: str | None
    """None: the file has no such column, and no rows here"""
    label_column: str | None
    sequences: list[str] = field(default_factory=list)
    """bases of each row, upper case; never empty"""
    labels: list[str] = field(default_factory=list)
    """of each row, as written; empty where it is missing"""
    lines: list[int] = field(default_factory=list)
    """line number of each row, the header is line 1"""
    quoted_lines: list[int] = field(default_factory=list)
    """rows whose sequence is in quotes"""
    quoted_tokens: list[int] = field(default_factory=list)
    """of each of them, the tokens that hold a quote for a reader that keeps quotes"""
    open_quote_lines: list[int] = field(default_factory=list)
    """lines with a quote that is not closed on the line"""
    extra_cell_lines: list[int] = field(default_factory=list)
    """rows of more cells than the first line names"""
    empty_lines: list[int] = field(default_factory=list)
    missing_sequence_lines: list[int] = field(default_factory=list)
    missing_label_lines: list[int] = field(default_factory=list)
    broken_text_lines: list[int] = field(default_factory=list)
    """rows of several words that are not overlapping k-mers; not among ``sequences``"""
    lower_case_lines: list[int] = field(default_factory=list)
    word_lengths: Counter[int] = field(default_factory=Counter)
    """rows of k-mer text by the length of their words; rows of plain bases are not counted"""
    has_bom: bool = False
    num_carriage_returns: int = 0

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def name(self) -> str:
        """The path as given."""
        return str(self.path)


def read_file(path: str | Path) -> LabelledFile:
    """Read a TSV or CSV file, plain or compressed; tabs or commas, whichever the header has.

    Raises FileNotFoundError where there is no file, ValueError for one that is no text or empty.
    """
    path = Path(path)
    data = _bytes(path)
    has_bom = data.startswith(_BOM)
    try:
        text = data.removeprefix(_BOM).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; give a TSV or CSV file with columns sequence and label") from None
    num_carriage_returns = text.count("\r")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    if not lines[0].strip():
        what = "is empty" if len(lines) == 1 else "begins with an empty line"
        raise ValueError(f"{path} {what}; its first line must name the columns, sequence and label")
    delimiter = "\t" if "\t" in lines[0] else ","
    columns = [name.strip() for name in _cells(lines[0], delimiter, path, 1)]
    sequence_at, label_at = _find(columns, SEQUENCE_COLUMNS), _find(columns, LABEL_COLUMNS)
    rows = LabelledFile(
        path=path,
        columns=columns,
        sequence_column=None if sequence_at is None else columns[sequence_at],
        label_column=None if label_at is None else columns[label_at],
        has_bom=has_bom,
        num_carriage_returns=num_carriage_returns,
    )
    if sequence_at is None:
        return rows
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            rows.empty_lines.append(number)
            continue
        raw = line.split(delimiter)
        cells = raw
        if '"' in line:
            cells = _cells(line, delimiter, path, number)
            _note_quotes(rows, raw[sequence_at] if sequence_at < len(raw) else "", number)
            if line.count('"') % 2:
                rows.open_quote_lines.append(number)
        if len(cells) > len(columns):
            rows.extra_cell_lines.append(number)
        _add(rows, _cell(cells, sequence_at), _cell(cells, label_at), number)
    return rows


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give TSV or CSV files, or folders of them")
    try:
        with xopen(path, "rb", threads=0) as stream:
            return stream.read()
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}; is it whole?") from None


def _cells(line: str, delimiter: str, path: Path, number: int) -> list[str]:
    """Split a line as a CSV reader does that knows quotes."""
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"{path}, line {number}: {error}") from None


def _cell(cells: list[str], at: int | None) -> str:
    return cells[at].strip() if at is not None and at < len(cells) else ""


def _find(columns: list[str], accepted: tuple[str, ...]) -> int | None:
    """Return the number of the first column with one of the accepted names."""
    lower = [name.lower() for name in columns]
    return next((lower.index(name) for name in accepted if name in lower), None)


def _note_quotes(rows: LabelledFile, raw: str, number: int) -> None:
    """Count the tokens that keep a quote: words of k-mer text, or the first and the last k-mer of plain bases."""
    if '"' in raw:
        rows.quoted_lines.append(number)
        words = raw.split()
        rows.quoted_tokens.append(sum('"' in word for word in words) if len(words) > 1 else raw.count('"'))


def _add(rows: LabelledFile, cell: str, label: str, number: int) -> None:
    """Add one row, or note why it is unusable."""
    words = cell.upper().split()
    if not words:
        rows.missing_sequence_lines.append(number)
        return
    if not all(before[1:] == after[:-1] for before, after in itertools.pairwise(words)):
        rows.broken_text_lines.append(number)
        return
    if len(words) > 1:
        rows.word_lengths[len(words[0])] += 1
    if not label:
        rows.missing_label_lines.append(number)
    if cell != cell.upper():
        rows.lower_case_lines.append(number)
    rows.sequences.append(words[0] + "".join(word[-1] for word in words[1:]))
    rows.labels.append(label)
    rows.lines.append(number)
