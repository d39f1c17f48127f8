"""Checks of the format of one file (header, quotes, k-mer text, letters), and of formats that differ within a set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from gemsdata.genome.vocab import base_codes
from gemsdata.lint.finding import Counts, Finding, number_of
from gemsdata.lint.labelled_file import LABEL_COLUMNS, SEQUENCE_COLUMNS, LabelledFile

_OTHER = 4
_NUM_EXAMPLES = 3


def check_format(rows: LabelledFile, k: int) -> Iterator[Finding]:
    """Yield findings about columns, line ends, quotes, k-mer text and letters of a file, for tokens of ``k`` bases."""
    yield from _columns(rows)
    yield from _encoding(rows)
    yield from _labels(rows)
    yield from _quotes(rows)
    yield from _words(rows, k)
    yield from _letters(rows, k)


def check_uniformity(files: Sequence[LabelledFile]) -> Iterator[Finding]:
    """Yield findings about files of a set that differ in column names, quotes or k-mer text."""
    usable = [rows for rows in files if len(rows)]
    columns = Counter(f"{rows.sequence_column}, {rows.label_column}" for rows in usable)
    if len(columns) > 1:
        usual = columns.most_common(1)[0][0]
        odd = [rows for rows in usable if f"{rows.sequence_column}, {rows.label_column}" != usual]
        yield _finding(
            "columns",
            "warning",
            odd,
            f"{number_of(len(odd), 'file')} of the set with other column names than the rest: "
            + "; ".join(f"{rows.sequence_column}, {rows.label_column}" for rows in odd)
            + f" instead of {usual}",
            {"files": len(odd)},
        )
    quoted = [rows for rows in usable if rows.quoted_lines]
    if quoted and len(quoted) < len(usable):
        yield _finding(
            "quotes",
            "warning",
            quoted,
            f"{len(quoted)} of {len(usable)} files of the set are quoted, the others are not: a reader that keeps"
            " quotes corrupts some splits only",
            {"quoted_files": len(quoted), "files": len(usable)},
        )
    text = [rows for rows in usable if rows.word_lengths]
    if text and len(text) < len(usable):
        plain = [rows for rows in usable if not rows.word_lengths]
        yield _finding(
            "k-mer-text",
            "warning",
            plain,
            f"{len(plain)} of {len(usable)} files of the set contain plain bases, the others k-mer text",
            {"plain_files": len(plain), "files": len(usable)},
        )


def _columns(rows: LabelledFile) -> Iterator[Finding]:
    shown = ", ".join(name[:20] for name in rows.columns)
    for what, column, names in (
        ("sequence", rows.sequence_column, SEQUENCE_COLUMNS),
        ("label", rows.label_column, LABEL_COLUMNS),
    ):
        if column is None:
            yield _finding(
                "columns",
                "error",
                [rows],
                f"no column {what} (nor {', '.join(names[1:])}) in the header: {shown}",
                {"columns": len(rows.columns)},
            )
            return
    if rows.extra_field_lines:
        lines = rows.extra_field_lines
        text = f"{number_of(len(lines), 'row')} with more fields than the header has columns"
        yield _finding("columns", "error", [rows], text, _rows(lines), lines)
    if not (len(rows) or rows.broken_text_lines):
        yield _finding("columns", "error", [rows], "the file has a header and no rows", {"rows": 0})


def _encoding(rows: LabelledFile) -> Iterator[Finding]:
    if rows.has_bom:
        text = "the file begins with a byte order mark: a reader of plain UTF-8 makes it part of the first column name"
        yield _finding("encoding", "warning", [rows], text, {"byte_order_marks": 1})
    if rows.num_carriage_returns:
        text = f"{number_of(rows.num_carriage_returns, 'line')} with a carriage return, which split leaves in the label"
        yield _finding("encoding", "warning", [rows], text, {"carriage_returns": rows.num_carriage_returns})
    if rows.empty_lines:
        text = f"{number_of(len(rows.empty_lines), 'empty line')} between the rows"
        yield _finding("encoding", "note", [rows], text, {"empty_lines": len(rows.empty_lines)}, rows.empty_lines)


def _labels(rows: LabelledFile) -> Iterator[Finding]:
    if rows.missing_sequence_lines:
        lines = rows.missing_sequence_lines
        yield _finding(
            "labels", "error", [rows], f"{number_of(len(lines), 'row')} without a sequence", _rows(lines), lines
        )
    if rows.label_column is not None and rows.missing_label_lines:
        lines = rows.missing_label_lines
        yield _finding(
            "labels", "error", [rows], f"{number_of(len(lines), 'row')} without a label", _rows(lines), lines
        )


def _quotes(rows: LabelledFile) -> Iterator[Finding]:
    if rows.open_quote_lines:
        lines = rows.open_quote_lines
        text = (
            f"{number_of(len(lines), 'row')} with an unclosed quote: a CSV reader joins the lines after it to the row"
        )
        yield _finding("quotes", "error", [rows], text, _rows(lines), lines)
    if rows.quoted_lines:
        lines, num_tokens = rows.quoted_lines, sum(rows.quoted_tokens)
        text = (
            f"the sequence of {number_of(len(lines), 'row')} is in quotes: a reader that keeps them turns"
            f" {number_of(num_tokens, 'token')} into [UNK], the first and the last of each row"
        )
        yield _finding("quotes", "warning", [rows], text, {**_rows(lines), "tokens": num_tokens}, lines)


def _words(rows: LabelledFile, k: int) -> Iterator[Finding]:
    if rows.broken_text_lines:
        lines = rows.broken_text_lines
        text = f"{number_of(len(lines), 'row')} of words that are not overlapping k-mers; the other checks ignore them"
        yield _finding("k-mer-text", "error", [rows], text, _rows(lines), lines)
    other = {length: count for length, count in sorted(rows.word_lengths.items()) if length != k}
    if other:
        lengths = ", ".join(map(str, other))
        text = f"{number_of(sum(other.values()), 'row')} of k-mers of {lengths} bases, but tokens have {k} (see --k)"
        yield _finding("k-mer-text", "warning", [rows], text, {"rows": sum(other.values())})


def _letters(rows: LabelledFile, k: int) -> Iterator[Finding]:
    found: Counter[str] = Counter()
    lines: list[int] = []
    short: list[int] = []
    num_unknown = 0
    for sequence, line in zip(rows.sequences, rows.lines, strict=True):
        if len(sequence) < k:
            short.append(line)
        if sequence.strip("ACGT"):
            codes = base_codes(sequence.encode("ascii", "replace"))
            found.update(letter for letter in sequence if letter not in "ACGT")
            lines.append(line)
            if len(sequence) >= k:
                windows = np.lib.stride_tricks.sliding_window_view(codes, k)
                num_unknown += int((windows.max(axis=1) >= _OTHER).sum())
    if lines:
        letters = ", ".join(f"{_shown(letter)} {count:,}" for letter, count in sorted(found.items()))
        counts = {**_rows(lines), "letters": sum(found.values())}
        text = f"{number_of(len(lines), 'row')} with letters other than A, C, G, T: {letters}"
        yield _finding("letters", "warning", [rows], text, counts, lines)
    if num_unknown:
        text = f"{number_of(num_unknown, 'token')} of {k} bases in {number_of(len(lines), 'row')} become [UNK]"
        yield _finding("unknown-tokens", "warning", [rows], text, {**_rows(lines), "tokens": num_unknown}, lines)
    if short:
        text = f"{number_of(len(short), 'row')} shorter than {k} bases, which have no token"
        yield _finding("unknown-tokens", "warning", [rows], text, _rows(short), short)
    if rows.lower_case_lines:
        lines = rows.lower_case_lines
        text = f"{number_of(len(lines), 'row')} with lower-case letters, which an upper-case vocabulary maps to [UNK]"
        yield _finding("letters", "warning", [rows], text, _rows(lines), lines)


def _shown(letter: str) -> str:
    return letter if letter.isprintable() else repr(letter)


def _rows(lines: Sequence[int]) -> Counts:
    return {"rows": len(lines)}


def _finding(
    code: str,
    severity: str,
    files: Sequence[LabelledFile],
    text: str,
    counts: Counts,
    lines: Sequence[int] = (),
) -> Finding:
    """Return a finding whose examples are lines of its first file."""
    return Finding(
        code=code,
        severity=severity,
        files=tuple(rows.name for rows in files),
        text=text,
        counts=counts,
        examples=tuple(f"{files[0].name}:{line}" for line in lines[:_NUM_EXAMPLES]),
    )
