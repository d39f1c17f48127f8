"""Sequences that are nearly the same: few differences, shifted windows, negatives made from positives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemsdata.genome.vocab import reverse_complement
from gemsdata.lint.copies import Places
from gemsdata.lint.finding import Finding, number_of
from gemsdata.lint.sequences import Sequences
from gemsdata.lint.shared_kmers import IN_PLACE_K, SKETCH_K, Pairs, pairs_in_place, pairs_of_shared_content

NEAR = 0.5
"""share of the shorter sequence's 12-mers in common, from which two are near-duplicates"""
TWIN = 0.2
"""share of 8-mers in common in place, from which two sequences of different classes are twins"""
MANY = 0.01
"""share of a file's sequences from which twins are a warning and no note"""

_NUM_EXAMPLES = 3


def check_similar(sequences: Sequences, places: Places, *, compare_labels: bool) -> Iterator[Finding]:
    """Yield near-duplicates and, where labels can be compared, mutated twins; within files and where they leak."""
    texts = sequences.texts
    places = [(first, second) for first, second in places if first == second or sequences.leaks(first, second)]
    near, num_left_out = pairs_of_shared_content(texts, NEAR)
    both_strands = np.array([reverse_complement(texts[a]) == texts[b] for a, b in near.T.tolist()], bool)
    near = near[:, ~both_strands]
    shifted = np.array([is_shifted(texts[a], texts[b]) for a, b in near.T.tolist()], bool)
    if num_left_out:
        yield Finding(
            code="near-duplicates",
            severity="warning",
            files=tuple(file.name for file in sequences.files),
            text=f"{num_left_out:,} {SKETCH_K}-mers stand in too many sequences to compare all: pairs may be missing",
            counts={"kmers_left_out": num_left_out},
        )
    for first, second in places:
        yield from _near(sequences, near, shifted, first, second)
    if compare_labels:
        twins = pairs_in_place(texts, TWIN, sequences.labels_differ)
        known = near[0] * len(texts) + near[1]
        twins = twins[:, ~np.isin(twins[0] * len(texts) + twins[1], known)]
        for first, second in places:
            yield from _twins(sequences, twins, first, second)


def is_shifted(first: str, second: str) -> bool:
    """Return whether one sequence ends with what the other begins with, or holds it whole, on either strand."""
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
        f" ({_shares(sequences, involved, first, second)}); shifted windows of one stretch: {num_shifted:,}, of"
        f" different labels: {num_differ:,}"
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
    many = involved[0] >= MANY * sequences.held[first].sum() or involved[1] >= MANY * sequences.held[second].sum()
    text = (
        f"{number_of(found.shape[1], 'pair')} of sequences of different classes with {TWIN:.0%} or more of their"
        f" {IN_PLACE_K}-mers in common, in place ({_shares(sequences, involved, first, second)}): one made from the"
        " other by replacing chunks?"
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
    held = sequences.held
    return (held[first, a] & held[second, b]) | (held[first, b] & held[second, a])


def _involved(sequences: Sequences, pairs: Pairs, first: int, second: int) -> tuple[int, int]:
    """Return how many sequences of the first and of the second file are in a pair between them."""
    held = sequences.held
    forward, backward = held[first, pairs[0]] & held[second, pairs[1]], held[first, pairs[1]] & held[second, pairs[0]]
    in_first = np.concatenate([pairs[0, forward], pairs[1, backward]])
    in_second = np.concatenate([pairs[1, forward], pairs[0, backward]])
    return np.unique(in_first).size, np.unique(in_second).size


def _shares(sequences: Sequences, involved: tuple[int, int], first: int, second: int) -> str:
    """Say how many of the different sequences of each file are in a pair."""
    num = [int(sequences.held[file].sum()) for file in (first, second)]
    if first == second:
        return f"{involved[0]:,} of {num[0]:,} sequences"
    return f"{involved[0]:,} of {num[0]:,} sequences of the first file, {involved[1]:,} of {num[1]:,} of the second"


def _examples(sequences: Sequences, pairs: Pairs, first: int, second: int) -> tuple[str, ...]:
    forward = sequences.held[first, pairs[0]] & sequences.held[second, pairs[1]]
    left, right = np.where(forward, pairs, pairs[::-1])
    return tuple(f"{a} ~ {b}" for a, b in sequences.places(left, right, first, second, _NUM_EXAMPLES))
