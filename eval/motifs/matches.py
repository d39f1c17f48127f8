"""TOMTOM: the motif most similar to each k-mer, with its p-value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from memelite import tomtom

from eval.motifs.files import LETTERS, Motif
from eval.motifs.ranking import Pairs
from eval.motifs.statistics import benjamini_hochberg
from gemsdata.genome.vocab import BASES

FEWEST_MOTIFS = 25
"""with fewer motifs, there are too few columns for a background (memelite warns; MEME's tomtom warns below 50)"""
_SMALLEST_P = 1e-16


@dataclass(frozen=True)
class Alignments:
    """The best alignment of each of n k-mers with each of m motifs; arrays [n, m]."""

    p_value: np.ndarray
    """float64, TOMTOM's p-value for all offsets on both strands"""
    offset: np.ndarray
    """int64, column of the motif (or of its reverse complement) under the first base of the k-mer; may be negative"""
    reverse: np.ndarray
    """bool, the k-mer lies along the reverse complement of the motif"""


@dataclass(frozen=True)
class Matches:
    """The best motif of each pair of k-mers; arrays [P]. Offsets and strands are those of the better-ranked k-mer."""

    p_value: np.ndarray
    q_value: np.ndarray
    """float64, Benjamini and Hochberg over all pairs and motifs"""
    motif: np.ndarray
    """int64, index of the motif"""
    offset: np.ndarray
    reverse: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """-log10 of the p-value, float64[P]: the quantity that the tests compare."""
        return -np.log10(self.p_value)


def align(digits: np.ndarray, motifs: Sequence[Motif]) -> Alignments:
    """Align k-mers, base digits (A0 T1 C2 G3) int64[n, k], with motifs (Gupta et al., 2007; memelite's TOMTOM).

    A k-mer is a matrix of ones and zeros, without pseudo-counts: with them it would be closest to motifs that happen to
    have the same pseudo-counts, those with few sites, and not to the most certain ones. Raises ValueError for fewer
    than 25 motifs.
    """
    if len(motifs) < FEWEST_MOTIFS:
        raise ValueError(f"{len(motifs)} motifs are too few for TOMTOM's background; give at least {FEWEST_MOTIFS}")
    rows = np.array([LETTERS.index(base) for base in BASES])[digits]
    one_hot = np.eye(len(LETTERS))[rows].transpose(0, 2, 1)
    p_values, _, offsets, _, strands = tomtom(list(one_hot), [motif.probabilities for motif in motifs])
    return Alignments(np.clip(p_values, _SMALLEST_P, 1.0), offsets.astype(np.int64), strands == 1)


def match(pairs: Pairs, motifs: Sequence[Motif]) -> Matches:
    """Return the best motif of each pair; raise ValueError for fewer than 25 motifs."""
    found = align(pairs.digits, motifs)
    best = found.p_value.argmin(axis=1)
    here = np.arange(len(pairs)), best
    q_values = benjamini_hochberg(found.p_value)
    return Matches(found.p_value[here], q_values[here], best, found.offset[here], found.reverse[here])
