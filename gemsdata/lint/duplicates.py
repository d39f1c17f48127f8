"""Checks for duplicate sequences: within a file, across files, with conflicting labels, and on opposite strands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gemsdata.genome.vocab import reverse_complement
from gemsdata.lint.finding import Finding, number_of
from gemsdata.lint.sequences import Sequences

FilePairs = Sequence[tuple[int, int]]
"""pairs of file numbers to compare; (file, file) means within it"""

_NUM_EXAMPLES = 3


def check_duplicates(sequences: Sequences, file_pairs: FilePairs, *, compare_labels: bool) -> Iterator[Finding]:
    """Yield findings about duplicates within and across files, conflicting labels and reverse complements."""
    reverse_of = _reverse_complement_of(sequences.texts)
    for first, second in file_pairs:
        if first == second:
            yield from _within(sequences, first)
        else:
            yield from _across(sequences, first, second)
        if compare_labels:
            yield from _conflicts(sequences, first, second)
        if first == second or sequences.leaks(first, second):
            yield from _reverse_complements(sequences, first, second, reverse_of)


def _within(sequences: Sequences, file: int) -> Iterator[Finding]:
    num_rows = np.bincount(sequences.rows_of(file), minlength=len(sequences.texts))
    repeated = np.flatnonzero(num_rows > 1)
    if repeated.size:
        num_extra = int((num_rows[repeated] - 1).sum())
        yield Finding(
            code="duplicates",
            severity="warning",
            files=(sequences.files[file].name,),
            text=f"{number_of(repeated.size, 'sequence')} more than once: {number_of(num_extra, 'redundant row')}",
            counts={"sequences": repeated.size, "extra_rows": num_extra},
            examples=_lines_of(sequences, repeated, file),
        )


def _across(sequences: Sequences, first: int, second: int) -> Iterator[Finding]:
    shared = np.flatnonzero(sequences.in_file[first] & sequences.in_file[second])
    if not shared.size:
        return
    rows = [int(np.isin(sequences.rows_of(file), shared).sum()) for file in (first, second)]
    leaks = sequences.leaks(first, second)
    names = (sequences.files[first].name, sequences.files[second].name)
    text = f"{number_of(shared.size, 'sequence')} in both files ({rows[0]:,} and {rows[1]:,} rows)"
    yield Finding(
        code="duplicates-across",
        severity="error" if leaks else "note",
        files=names,
        text=text + ("" if leaks else "; both files have the same role, so nothing leaks"),
        counts={"sequences": shared.size, "rows_in_first": rows[0], "rows_in_second": rows[1]},
        examples=_pair_examples(sequences, shared, shared, first, second),
    )


def _conflicts(sequences: Sequences, first: int, second: int) -> Iterator[Finding]:
    """Yield sequences with several labels; across two files, only sequences with one label in each."""
    conflicting = sequences.num_labels([first, second]) > 1
    if first != second:
        conflicting &= sequences.in_file[first] & sequences.in_file[second]
        for file in (first, second):
            conflicting &= sequences.num_labels([file]) < 2
    found = np.flatnonzero(conflicting)
    if found.size:
        what = "several labels" if first == second else "different labels in the two files"
        yield Finding(
            code="conflicting-labels",
            severity="error",
            files=_names(sequences, first, second),
            text=f"{number_of(found.size, 'sequence')} with {what}",
            counts={"sequences": found.size},
            examples=_lines_of(sequences, found, first)
            if first == second
            else _pair_examples(sequences, found, found, first, second),
        )


def _reverse_complements(sequences: Sequences, first: int, second: int, reverse_of: np.ndarray) -> Iterator[Finding]:
    """Yield sequences of the first file whose reverse complement is in the second; within a file, each pair once."""
    there = np.flatnonzero(sequences.in_file[first] & (reverse_of >= 0))
    there = there[sequences.in_file[second, reverse_of[there]] & (reverse_of[there] != there)]
    if first == second:
        there = there[there < reverse_of[there]]
    if not there.size:
        return
    num_differ = int(sequences.labels_differ(there, reverse_of[there]).sum())
    yield Finding(
        code="reverse-complements",
        severity="warning",
        files=_names(sequences, first, second),
        text=f"{number_of(there.size, 'pair')} of reverse complements, {num_differ:,} with different labels",
        counts={"pairs": there.size, "different_labels": num_differ},
        examples=_pair_examples(sequences, there, reverse_of[there], first, second),
    )


def _reverse_complement_of(texts: list[str]) -> np.ndarray:
    """Return the index of each sequence's reverse complement, int64[S]; -1 where it does not occur."""
    number = {text: i for i, text in enumerate(texts)}
    return np.fromiter((number.get(reverse_complement(text), -1) for text in texts), np.int64, len(texts))


def _names(sequences: Sequences, first: int, second: int) -> tuple[str, ...]:
    return tuple(sequences.files[file].name for file in dict.fromkeys((first, second)))


def _lines_of(sequences: Sequences, repeated: np.ndarray, file: int) -> tuple[str, ...]:
    """Return ``FILE:LINE = LINE`` for the sequences that occur first in a file."""
    rows, lines = sequences.rows_of(file), sequences.files[file].lines
    chosen = repeated[np.argsort(sequences.first_rows(file)[repeated])][:_NUM_EXAMPLES].tolist()
    found = [np.flatnonzero(rows == sequence)[:_NUM_EXAMPLES].tolist() for sequence in chosen]
    return tuple(f"{sequences.files[file].name}:" + " = ".join(str(lines[row]) for row in group) for group in found)


def _pair_examples(
    sequences: Sequences, left: np.ndarray, right: np.ndarray, first: int, second: int
) -> tuple[str, ...]:
    return tuple(f"{a} = {b}" for a, b in sequences.locations(left, right, first, second, _NUM_EXAMPLES))
