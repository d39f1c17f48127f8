"""How much of each k-mer's occurrences lies in repeats: the soft-masked, lower-case bases of a genome."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.motif_ranking import Pairs
from gemsdata.genome.packed import GenomeReport, complement, read_contigs
from gemsdata.npmi.counts import NgramCounter, countable_runs


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


def count_in_repeats(genome: str | Path, pairs: Pairs) -> Repeats:
    """Count the k-mers of a FASTA or .2bit file inside soft-masked intervals and anywhere.

    Raises ValueError when the genome is not soft-masked.
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
