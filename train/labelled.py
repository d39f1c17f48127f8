"""Labelled sequences from TSV and CSV files: bases or k-mer text, quoted or not, any number of classes."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gemsdata.genome.vocab import CLS_ID, NUM_SPECIAL, SEP_ID, UNK_ID, base_codes

OTHER_LETTERS = ("error", "drop", "unk")
_OTHER = 4


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The rows of a file."""

    path: Path
    sequences: list[str]
    """bases, upper case"""
    labels: list[str] | None
    """labels as written; None if the file has no label column"""
    num_dropped: int = 0
    """rows left out because of letters other than A, C, G, T"""

    def __len__(self) -> int:
        return len(self.sequences)


def read_labelled(
    path: str | Path,
    *,
    needs_labels: bool = True,
    other_letters: str = "error",
    sequence_column: str = "sequence",
    label_column: str = "label",
) -> Labelled:
    """Read a file with a header line; tabs or commas, whichever the header has.

    Parameters
    ----------
    needs_labels
        whether a missing label is an error.
    other_letters
        for sequences with letters other than A, C, G, T: raise an error ("error"), drop the row ("drop"), or keep it
        with [UNK] for k-mers with such letters ("unk").

    Raises
    ------
    FileNotFoundError, ValueError
        the message names the file and the row, and says what to do.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a TSV or CSV file with columns sequence and label")
    if other_letters not in OTHER_LETTERS:
        raise ValueError(f"--other-letters {other_letters!r} is unknown: use {', '.join(OTHER_LETTERS)}")
    sequences: list[str] = []
    labels: list[str] = []
    num_dropped = 0
    with io.StringIO(_text(path), newline="") as stream:
        header_line = stream.readline()
        delimiter = "\t" if "\t" in header_line else ","
        header = [name.strip() for name in next(_lines([header_line], delimiter, path, 1), (1, []))[1]]
        if sequence_column not in header:
            raise ValueError(f"{path} has no column {sequence_column!r}, only {_shown(header) or 'an empty header'}")
        has_labels = label_column in header
        if needs_labels and not has_labels:
            raise ValueError(f"{path} has no column {label_column!r}, only {_shown(header)}")
        at, label_at = header.index(sequence_column), header.index(label_column) if has_labels else -1
        for number, cells in _lines(stream, delimiter, path, 2):
            if not cells:
                continue
            where = f"{path}, line {number}"
            sequence = _bases(cells[at] if at < len(cells) else "", where)
            if other_letters != "unk" and base_codes(sequence).max() >= _OTHER:
                if other_letters == "error":
                    raise _other_letter(sequence, where)
                num_dropped += 1
                continue
            label = cells[label_at].strip() if has_labels and label_at < len(cells) else ""
            if needs_labels and not label:
                raise ValueError(f"{where}: the label is missing; give one in column {label_column!r}")
            sequences.append(sequence)
            labels.append(label)
    if not sequences:
        raise ValueError(f"{path} has no rows{' left' if num_dropped else ''}")
    return Labelled(path=path, sequences=sequences, labels=labels if has_labels else None, num_dropped=num_dropped)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; give a TSV or CSV file with columns sequence and label") from None


def _lines(stream: Iterable[str], delimiter: str, path: Path, first: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) by the rules of CSV quoting; raise ValueError for an invalid line."""
    lines = csv.reader(stream, delimiter=delimiter)
    number = first
    try:
        for number, cells in enumerate(lines, start=first):
            yield number, cells
    except csv.Error as error:
        raise ValueError(f"{path}, after line {number}: {error}") from None


def _shown(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if text.isprintable() else ascii(text)


def class_names(labels: Sequence[str]) -> list[str]:
    """Return the classes in order: by value if all are integers, else by name; raise ValueError for fewer than two."""
    found = set(labels)
    if len(found) < 2:
        raise ValueError(f"all training rows have the label {next(iter(found))!r}; at least two classes are needed")
    numeric = all(label.removeprefix("-").isdigit() for label in found)
    return sorted(found, key=int) if numeric else sorted(found)


def class_ids(rows: Labelled, classes: Sequence[str]) -> np.ndarray:
    """Return the class number of each row, int64[rows]; raise ValueError for a label that is not in ``classes``."""
    numbers = {name: i for i, name in enumerate(classes)}
    unknown = sorted(set(rows.labels or ()) - set(numbers))
    if unknown:
        raise ValueError(f"{rows.path} has the label {unknown[0]!r}; the classes of the model are {', '.join(classes)}")
    return np.array([numbers[label] for label in rows.labels or ()], np.int64)


def tokenise(sequence: str, *, k: int, max_tokens: int | None) -> np.ndarray:
    """Return the ids of [CLS], k-mers ([UNK] for those with other letters) and [SEP], int64[T], T <= ``max_tokens``."""
    codes = base_codes(sequence).astype(np.int64)
    if codes.size < k:
        return np.array([CLS_ID, SEP_ID])
    windows = np.lib.stride_tricks.sliding_window_view(codes, k)[: None if max_tokens is None else max_tokens - 2]
    ids = np.where(windows.max(axis=1) < _OTHER, windows @ 4 ** np.arange(k - 1, -1, -1) + NUM_SPECIAL, UNK_ID)
    return np.concatenate([[CLS_ID], ids, [SEP_ID]])


def batches(
    tokens: Sequence[np.ndarray], order: np.ndarray, batch_rows: int, *, pad_id: int
) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    """Yield (row numbers, {input_ids, attention_mask} int64[B, longest]) over rows in ``order``."""
    for first in range(0, len(order), batch_rows):
        chosen = order[first : first + batch_rows]
        lengths = np.array([len(tokens[row]) for row in chosen])
        real = np.arange(lengths.max()) < lengths[:, None]
        input_ids = np.full(real.shape, pad_id, np.int64)
        input_ids[real] = np.concatenate([tokens[row] for row in chosen])
        yield (
            chosen,
            {
                "input_ids": torch.from_numpy(input_ids),
                "attention_mask": torch.from_numpy(real.astype(np.int64)),
            },
        )


def _other_letter(sequence: str, where: str) -> ValueError:
    letter = next(letter for letter in sequence if letter not in "ACGT")
    return ValueError(
        f"{where}: the sequence has the letter {letter!r}, which is not A, C, G or T; drop such rows with"
        " --other-letters drop, or keep them with --other-letters unk"
    )


def _bases(text: str, where: str) -> str:
    """Return the bases of a cell, which may hold k-mer text (``ACGTAC CGTACG``), upper case, U as T."""
    words = text.upper().replace("U", "T").split()
    if not words:
        raise ValueError(f"{where}: the sequence is empty; remove the row")
    if not all(before[1:] == after[:-1] for before, after in itertools.pairwise(words)):
        raise ValueError(f"{where}: words are not overlapping k-mers; give k-mer text at stride 1, or plain bases")
    sequence = words[0] + "".join(word[-1] for word in words[1:])
    if not sequence.isascii():
        raise ValueError(f"{where}: the sequence has letters that are not ASCII; give bases")
    return sequence
