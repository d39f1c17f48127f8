"""Occurrence of k-mers and motifs (FIMO): in positive and negative sequences, and in the repeats of a genome."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from memelite import fimo

from eval.motifs.files import LETTERS, Motif
from eval.motifs.ranking import Pairs
from eval.motifs.statistics import benjamini_hochberg, fisher_p_values, log2_odds_ratio
from gemsdata.genome.packed import GenomeReport, complement, read_contigs
from gemsdata.genome.vocab import BASES, base_codes
from gemsdata.npmi.counts import NgramCounter, countable_runs
from train.labelled import class_names, read_labelled

_ACGT = np.array([LETTERS.index(base) for base in BASES])


@dataclass(frozen=True)
class LabelledSet:
    """Sequences of two classes."""

    name: str
    codes: list[np.ndarray]
    """base digits A0 T1 C2 G3 of each sequence"""
    positive: np.ndarray
    """bool[sequences]: the class that sorts last, such as 1 of 0 and 1"""


@dataclass(frozen=True)
class Enrichment:
    """Number of sequences in which each of m k-mers or motifs occurs; arrays [m]."""

    num_positive: int
    num_negative: int
    in_positive: np.ndarray
    """int64, positives with at least one occurrence on either strand"""
    in_negative: np.ndarray
    occurrences: np.ndarray
    """int64, in all sequences"""
    p_value: np.ndarray
    """Fisher's exact test, two-sided"""
    q_value: np.ndarray
    """Benjamini and Hochberg over the m tests of this set"""

    @property
    def log2_odds(self) -> np.ndarray:
        """log2 of the odds ratio, 1/2 added to each cell; above 0: more positives have it."""
        return log2_odds_ratio(self.in_positive, self.in_negative, self.num_positive, self.num_negative)


@dataclass(frozen=True)
class Repeats:
    """Occurrences of each pair on both strands of a genome; arrays int64[P]."""

    inside: np.ndarray
    """all bases of the k-mer are soft-masked"""
    total: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """Share of the occurrences that lie inside repeats, float64[P]; NaN for a k-mer that does not occur."""
        return np.divide(self.inside, self.total, out=np.full(self.total.size, np.nan), where=self.total > 0)

    @property
    def genome_share(self) -> float:
        """The share over all k-mers."""
        return float(self.inside.sum() / self.total.sum())


def read_set(argument: str) -> LabelledSet:
    """Read ``NAME=FILE`` or ``NAME=FILE:ROWS`` (the first ROWS rows); rows with letters other than ACGT are dropped.

    Raises FileNotFoundError, or ValueError if it is not a labelled file with two classes.
    """
    name, _, rest = argument.partition("=")
    path, colon, number = rest.rpartition(":")
    limited = bool(colon) and number.isdigit()
    if not name or not rest or (limited and int(number) < 1):
        raise ValueError(f"--labelled {argument!r} is not of the form NAME=FILE or NAME=FILE:ROWS")
    rows = read_labelled(path if limited else rest, other_letters="drop")
    most = int(number) if limited else len(rows)
    labels = (rows.labels or [])[:most]
    classes = class_names(labels)
    if len(classes) != 2:
        raise ValueError(f"{rows.path} has {len(classes)} classes; enrichment needs two: positives and negatives")
    return LabelledSet(
        name=name,
        codes=[base_codes(sequence).astype(np.int64) for sequence in rows.sequences[:most]],
        positive=np.array([label == classes[1] for label in labels]),
    )


def kmer_enrichment(labelled: LabelledSet, pairs: Pairs) -> Enrichment:
    """Count each pair of k-mers, on either strand, in the sequences of a set."""
    index, powers = pairs.index, 4 ** np.arange(pairs.k - 1, -1, -1)
    found = np.zeros((2, len(pairs)), np.int64)
    occurrences = np.zeros(len(pairs), np.int64)
    for codes, positive in zip(labelled.codes, labelled.positive, strict=True):
        if codes.size < pairs.k:
            continue
        here = index[np.lib.stride_tricks.sliding_window_view(codes, pairs.k) @ powers]
        counts = np.bincount(here[here >= 0], minlength=len(pairs))
        found[int(positive)] += counts > 0
        occurrences += counts
    return _tested(labelled, found[1], found[0], occurrences)


def motif_enrichment(labelled: LabelledSet, motifs: Sequence[Motif], p_value: float) -> Enrichment:
    """Scan the sequences of a set with all motifs on both strands for hits below ``p_value`` (memelite's FIMO)."""
    lengths = np.array([codes.size for codes in labelled.codes])
    width = max(int(lengths.max()), *(motif.probabilities.shape[1] for motif in motifs))
    one_hot = np.zeros((lengths.size, len(LETTERS), width), np.int8)
    for row, codes in enumerate(labelled.codes):
        one_hot[row, _ACGT[codes], np.arange(codes.size)] = 1
    found = np.zeros((2, len(motifs)), np.int64)
    occurrences = np.zeros(len(motifs), np.int64)
    hits_of = fimo({str(i): motif.probabilities for i, motif in enumerate(motifs)}, one_hot, threshold=p_value)
    for i, hits in enumerate(hits_of):
        row = hits["sequence_name"].to_numpy().astype(np.int64)
        row = row[hits["end"].to_numpy().astype(np.int64) <= lengths[row]]  # a padded base scores 0, as N does in FIMO
        occurrences[i] = row.size
        found[:, i] = np.bincount(labelled.positive[np.unique(row)].astype(np.int64), minlength=2)
    return _tested(labelled, found[1], found[0], occurrences)


def count_in_repeats(genome: str | Path, pairs: Pairs) -> Repeats:
    """Count the k-mers of a FASTA or .2bit file inside soft-masked intervals and anywhere.

    Raises ValueError if the genome is not soft-masked.
    """
    report = GenomeReport()
    inside, total = NgramCounter(pairs.k), NgramCounter(pairs.k)
    for contig in read_contigs([str(genome)], report):
        total.add(contig.packed, contig.acgt_runs)
        unmasked = dataclasses.replace(contig, soft=complement(contig.soft, contig.num_bases))
        inside.add(contig.packed, countable_runs(unmasked, exclude_soft_masked=True))
    if report.num_soft_masked == 0:
        raise ValueError(f"{genome} has no lower-case bases, so repeats are unknown; give a soft-masked genome")
    both = [tally.counts()[pairs.k] for tally in (inside, total)]
    return Repeats(*(counts[pairs.value] + counts[pairs.partner] for counts in both))


def _tested(labelled: LabelledSet, in_positive: np.ndarray, in_negative: np.ndarray, total: np.ndarray) -> Enrichment:
    num_positive = int(labelled.positive.sum())
    num_negative = labelled.positive.size - num_positive
    p_values = fisher_p_values(in_positive, in_negative, num_positive, num_negative)
    q_values = benjamini_hochberg(p_values)
    return Enrichment(num_positive, num_negative, in_positive, in_negative, total, p_values, q_values)
