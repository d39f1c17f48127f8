"""Read labelled TSV and CSV files, and record quotes, line ends and malformed rows instead of repairing them."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gemsdata.genome import decompress

SUFFIXES = (".tsv", ".csv", ".tsv.gz", ".csv.gz")
SEQUENCE_COLUMNS = ("sequence", "seq")
LABEL_COLUMNS = ("label", "labels", "class")
"""accepted column names, the usual one first; case does not matter"""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class LabelledFile:
    """The usable rows of a file, and the lines with problems."""

    path: Path
    columns: list[str]
    sequence_column: str | None
    """None if the file has no such column; then there are no rows"""
    label_column: str | None
    sequences: list[str] = field(default_factory=list)
    """bases of each row, upper case; no entry is empty"""
    labels: list[str] = field(default_factory=list)
    """label of each row, as written; empty if missing"""
    lines: list[int] = field(default_factory=list)
    """line number of each row; the header is line 1"""
    quoted_lines: list[int] = field(default_factory=list)
    """rows whose sequence is in quotes"""
    quoted_tokens: list[int] = field(default_factory=list)
    """for each of them, the number of tokens with a quote if a reader keeps quotes"""
    open_quote_lines: list[int] = field(default_factory=list)
    """lines with a quote that is not closed on the line"""
    extra_field_lines: list[int] = field(default_factory=list)
    """rows with more fields than the header"""
    empty_lines: list[int] = field(default_factory=list)
    missing_sequence_lines: list[int] = field(default_factory=list)
    missing_label_lines: list[int] = field(default_factory=list)
    broken_text_lines: list[int] = field(default_factory=list)
    """rows of several words that are not overlapping k-mers; not in ``sequences``"""
    lower_case_lines: list[int] = field(default_factory=list)
    word_lengths: Counter[int] = field(default_factory=Counter)
    """number of rows of k-mer text by k; rows of plain bases are not counted"""
    has_bom: bool = False
    num_carriage_returns: int = 0

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def name(self) -> str:
        """The path as given."""
        return str(self.path)


def read_file(path: str | Path) -> LabelledFile:
    """Read a TSV or CSV file, plain or compressed; the header decides between tabs and commas.

    Raises FileNotFoundError if there is no file, ValueError if it is empty or not UTF-8 text.
    """
    path = Path(path)
    data = _bytes(path)
    has_bom = data.startswith(_BOM)
    try:
        text = data.removeprefix(_BOM).decode()
    except UnicodeDecodeError:
        raise ValueError(
            f"{path} is not UTF-8 text; give a TSV or CSV file with the columns sequence and label"
        ) from None
    num_carriage_returns = text.count("\r")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    if not lines[0].strip():
        what = "is empty" if len(lines) == 1 else "begins with an empty line"
        raise ValueError(f"{path} {what}; its first line must name the columns sequence and label")
    delimiter = "\t" if "\t" in lines[0] else ","
    columns = [name.strip() for name in _fields(lines[0], delimiter, path, 1)]
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
        fields = raw
        if '"' in line:
            fields = _fields(line, delimiter, path, number)
            _note_quotes(rows, raw[sequence_at] if sequence_at < len(raw) else "", number)
            if line.count('"') % 2:
                rows.open_quote_lines.append(number)
        if len(fields) > len(columns):
            rows.extra_field_lines.append(number)
        _add(rows, _field(fields, sequence_at), _field(fields, label_at), number)
    return rows


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give TSV or CSV files, or folders of them")
    try:
        with open(path, "rb") as stream:
            return decompress.whole(stream, str(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None


def _fields(line: str, delimiter: str, path: Path, number: int) -> list[str]:
    """Split a line into fields by the rules of CSV quoting."""
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"{path}, line {number}: {error}") from None


def _field(fields: list[str], at: int | None) -> str:
    return fields[at].strip() if at is not None and at < len(fields) else ""


def _find(columns: list[str], accepted: tuple[str, ...]) -> int | None:
    """Return the index of the column with the first accepted name that occurs."""
    lower = [name.lower() for name in columns]
    return next((lower.index(name) for name in accepted if name in lower), None)


def _note_quotes(rows: LabelledFile, raw: str, number: int) -> None:
    """Count the tokens with a quote: words of k-mer text, or the first and the last k-mer of plain bases."""
    if '"' in raw:
        rows.quoted_lines.append(number)
        words = raw.split()
        rows.quoted_tokens.append(sum('"' in word for word in words) if len(words) > 1 else raw.count('"'))


def _add(rows: LabelledFile, field: str, label: str, number: int) -> None:
    """Add one row, or record why it is unusable."""
    words = field.upper().split()
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
    if field != field.upper():
        rows.lower_case_lines.append(number)
    rows.sequences.append(words[0] + "".join(word[-1] for word in words[1:]))
    rows.labels.append(label)
    rows.lines.append(number)
