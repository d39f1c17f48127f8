"""Checks for similar sequences: near-duplicates, shifted windows, and negatives made by mutating positives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemsdata.genome.vocab import reverse_complement
from gemsdata.lint.duplicates import FilePairs
from gemsdata.lint.finding import Finding, number_of
from gemsdata.lint.sequences import Sequences
from gemsdata.lint.shared_kmers import IN_PLACE_K, SKETCH_K, Pairs, pairs_in_place, pairs_of_shared_content

NEAR = 0.5
"""share of the shorter sequence's 12-mers in common from which two sequences are near-duplicates"""
TWIN = 0.2
"""share of 8-mers in common at the same positions from which two sequences of different classes are mutated twins"""
MANY = 0.01
"""share of a file's sequences from which mutated twins are a warning and not a note"""

_NUM_EXAMPLES = 3


def check_similar(sequences: Sequences, file_pairs: FilePairs, *, compare_labels: bool) -> Iterator[Finding]:
    """Yield findings about near-duplicates and, if labels are comparable, mutated twins, within and across files."""
    texts = sequences.texts
    file_pairs = [(first, second) for first, second in file_pairs if first == second or sequences.leaks(first, second)]
    near, num_left_out = pairs_of_shared_content(texts, NEAR)
    both_strands = np.array([reverse_complement(texts[a]) == texts[b] for a, b in near.T.tolist()], bool)
    near = near[:, ~both_strands]
    shifted = np.array([is_shifted(texts[a], texts[b]) for a, b in near.T.tolist()], bool)
    if num_left_out:
        yield Finding(
            code="near-duplicates",
            severity="warning",
            files=tuple(file.name for file in sequences.files),
            text=f"{num_left_out:,} {SKETCH_K}-mers occur in too many sequences to compare all: pairs may be missing",
            counts={"kmers_left_out": num_left_out},
        )
    for first, second in file_pairs:
        yield from _near(sequences, near, shifted, first, second)
    if compare_labels:
        twins = pairs_in_place(texts, TWIN, sequences.labels_differ)
        known = near[0] * len(texts) + near[1]
        twins = twins[:, ~np.isin(twins[0] * len(texts) + twins[1], known)]
        for first, second in file_pairs:
            yield from _twins(sequences, twins, first, second)


def is_shifted(first: str, second: str) -> bool:
    """Return whether a suffix of one sequence is a prefix of the other, or one contains the other, on either strand."""
    for other in (second, reverse_complement(second)):
        for left, right in ((first, other), (other, first)):
            at = left.find(right[:SKETCH_K])
            while at >= 0:
                if right.startswith(left[at:]) or left.startswith(right, at):
                    return True
                at = left.find(right[:SKETCH_K], at + 1)
    return False


def _near(sequences: Sequences, pairs: Pairs, shifted: np.ndarray, first: int, second: int) -> Iterator[Finding]:
    here = _between(sequences, pairs, first, second)
    if not here.any():
        return
    found = pairs[:, here]
    num_shifted = int(shifted[here].sum())
    num_differ = int(sequences.labels_differ(found[0], found[1]).sum())
    involved = _involved(sequences, found, first, second)
    text = (
        f"{number_of(found.shape[1], 'pair')} of sequences with {NEAR:.0%} or more of their {SKETCH_K}-mers in common"
        f" ({_shares(sequences, involved, first, second)}); {num_shifted:,} overlapping windows of one region,"
        f" {num_differ:,} with different labels"
    )
    yield Finding(
        code="near-duplicates",
        severity="warning",
        files=tuple(sequences.files[file].name for file in dict.fromkeys((first, second))),
        text=text,
        counts={
            "pairs": found.shape[1],
            "shifted": num_shifted,
            "different_labels": num_differ,
            "sequences_in_first": involved[0],
            "sequences_in_second": involved[1],
        },
        examples=_examples(sequences, found, first, second),
    )


def _twins(sequences: Sequences, pairs: Pairs, first: int, second: int) -> Iterator[Finding]:
    here = _between(sequences, pairs, first, second)
    if not here.any():
        return
    found = pairs[:, here]
    involved = _involved(sequences, found, first, second)
    many = involved[0] >= MANY * sequences.in_file[first].sum() or involved[1] >= MANY * sequences.in_file[second].sum()
    text = (
        f"{number_of(found.shape[1], 'pair')} of sequences of different classes with {TWIN:.0%} or more of their"
        f" {IN_PLACE_K}-mers in common at the same positions ({_shares(sequences, involved, first, second)}): probably"
        " one made from the other by replacing chunks"
    )
    yield Finding(
        code="mutated-twins",
        severity="warning" if many else "note",
        files=tuple(sequences.files[file].name for file in dict.fromkeys((first, second))),
        text=text,
        counts={
            "pairs": found.shape[1],
            "sequences_in_first": involved[0],
            "sequences_in_second": involved[1],
        },
        examples=_examples(sequences, found, first, second),
    )


def _between(sequences: Sequences, pairs: Pairs, first: int, second: int) -> np.ndarray:
    """Return which pairs have one sequence in the first file and one in the second, bool[pairs]."""
    a, b = pairs
    in_file = sequences.in_file
    return (in_file[first, a] & in_file[second, b]) | (in_file[first, b] & in_file[second, a])


def _involved(sequences: Sequences, pairs: Pairs, first: int, second: int) -> tuple[int, int]:
    """Return the number of sequences of the first and of the second file that are in a pair."""
    in_file = sequences.in_file
    forward, backward = (
        in_file[first, pairs[0]] & in_file[second, pairs[1]],
        in_file[first, pairs[1]] & in_file[second, pairs[0]],
    )
    in_first = np.concatenate([pairs[0, forward], pairs[1, backward]])
    in_second = np.concatenate([pairs[1, forward], pairs[0, backward]])
    return np.unique(in_first).size, np.unique(in_second).size


def _shares(sequences: Sequences, involved: tuple[int, int], first: int, second: int) -> str:
    """Return a text with the number of distinct sequences of each file that are in a pair."""
    num = [int(sequences.in_file[file].sum()) for file in (first, second)]
    if first == second:
        return f"{involved[0]:,} of {num[0]:,} sequences"
    return f"{involved[0]:,} of {num[0]:,} sequences of the first file, {involved[1]:,} of {num[1]:,} of the second"


def _examples(sequences: Sequences, pairs: Pairs, first: int, second: int) -> tuple[str, ...]:
    forward = sequences.in_file[first, pairs[0]] & sequences.in_file[second, pairs[1]]
    left, right = np.where(forward, pairs, pairs[::-1])
    return tuple(f"{a} ~ {b}" for a, b in sequences.locations(left, right, first, second, _NUM_EXAMPLES))
