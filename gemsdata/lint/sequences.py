"""The distinct sequences of several files, and the rows in which each occurs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gemsdata.lint.grouping import role_of
from gemsdata.lint.labelled_file import LabelledFile

_NO_LABEL = -1


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """R rows of F files with S distinct sequences, numbered in alphabetical order."""

    files: Sequence[LabelledFile]
    texts: list[str]
    of_row: np.ndarray
    """sequence of each row, int64[R]; rows are numbered across the files"""
    file_of_row: np.ndarray
    """int64[R]"""
    in_file: np.ndarray
    """whether a file contains a sequence, bool[F, S]"""
    label: np.ndarray
    """number of the sequence's label, the first by name if it has several, int64[S]; -1 without one"""
    label_of_row: np.ndarray
    """number of the row's label, int64[R]; -1 where it is missing"""

    @classmethod
    def of(cls, files: Sequence[LabelledFile]) -> Sequences:
        """Index the sequences and the labels of files."""
        rows = list(itertools.chain.from_iterable(file.sequences for file in files))
        labels = list(itertools.chain.from_iterable(file.labels for file in files))
        texts = sorted(set(rows))
        sequence_number = {text: i for i, text in enumerate(texts)}
        label_number = {label: i for i, label in enumerate(sorted(set(labels) - {""}))}
        of_row = np.fromiter((sequence_number[text] for text in rows), np.int64, len(rows))
        label_of_row = np.fromiter((label_number.get(label, _NO_LABEL) for label in labels), np.int64, len(rows))
        file_of_row = np.repeat(np.arange(len(files)), [len(file) for file in files])
        in_file = np.zeros((len(files), len(texts)), bool)
        in_file[file_of_row, of_row] = True
        first = np.full(len(texts), len(label_number))
        labelled = label_of_row != _NO_LABEL
        np.minimum.at(first, of_row[labelled], label_of_row[labelled])
        return cls(
            files=files,
            texts=texts,
            of_row=of_row,
            file_of_row=file_of_row,
            in_file=in_file,
            label=np.where(first == len(label_number), _NO_LABEL, first),
            label_of_row=label_of_row,
        )

    def rows_of(self, file: int) -> np.ndarray:
        """Return the sequence of each row of a file, int64[rows]."""
        return self.of_row[self.file_of_row == file]

    def first_rows(self, file: int) -> np.ndarray:
        """Return the first row of each sequence in a file, int64[S]; the number of rows if it does not occur."""
        rows = self.rows_of(file)
        first = np.full(len(self.texts), rows.size)
        np.minimum.at(first, rows, np.arange(rows.size))
        return first

    def locations(
        self, left: np.ndarray, right: np.ndarray, first: int, second: int, num_pairs: int
    ) -> Iterator[tuple[str, str]]:
        """Yield (FILE:LINE, FILE:LINE) of the first pairs: ``left`` in the first file, ``right`` in the second."""
        rows_left, rows_right = self.first_rows(first)[left], self.first_rows(second)[right]
        for pair in np.lexsort((rows_right, rows_left))[:num_pairs].tolist():
            yield self._location(first, rows_left[pair]), self._location(second, rows_right[pair])

    def _location(self, file: int, row: int) -> str:
        return f"{self.files[file].name}:{self.files[file].lines[row]}"

    def labels_differ(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return which pairs of sequences have labels that differ, bool[pairs]."""
        a, b = self.label[first], self.label[second]
        return (a != b) & (a != _NO_LABEL) & (b != _NO_LABEL)

    def num_labels(self, files: Sequence[int]) -> np.ndarray:
        """Return the number of distinct labels of each sequence in some files, int64[S]."""
        rows = np.isin(self.file_of_row, files) & (self.label_of_row != _NO_LABEL)
        different = np.unique(np.stack([self.of_row[rows], self.label_of_row[rows]]), axis=1)
        return np.bincount(different[0], minlength=len(self.texts))

    def leaks(self, first: int, second: int) -> bool:
        """Return whether a sequence in both files is a leak: unless both are known to have the same role."""
        role = role_of(self.files[first].path)
        return role is None or role != role_of(self.files[second].path)
