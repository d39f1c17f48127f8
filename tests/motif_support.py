"""Rankings, motifs and labelled sequences made for the tests of motifs."""

from __future__ import annotations

import csv

import numpy as np

from eval.motifs.__main__ import MotifConfig, evaluate
from eval.motifs.enrichment import LabelledSet
from eval.motifs.files import Motif
from eval.motifs.ranking import Ranking
from gemsdata.genome.vocab import all_kmers, base_codes, kmer_value
from tests.genomes import COMPLEMENT


def reverse_complement(sequence: str) -> str:
    return sequence.translate(COMPLEMENT)[::-1]


def random_ranking(seed: int, k: int = 6) -> Ranking:
    """Scores that have nothing to do with the letters, alike on both strands but for a little."""
    rng = np.random.default_rng(seed)
    kmers = [kmer.decode() for kmer in all_kmers(k)]
    score, count = {}, {}
    for kmer in kmers:
        strand = min(kmer, reverse_complement(kmer))
        score.setdefault(strand, rng.random())
        count.setdefault(strand, int(rng.integers(200, 20_000)))
    npmi = np.array([score[min(kmer, reverse_complement(kmer))] for kmer in kmers]) + 1e-9 * rng.random(len(kmers))
    return Ranking("random", k, npmi, np.array([count[min(kmer, reverse_complement(kmer))] for kmer in kmers]))


def make_motifs(number: int, seed: int = 5) -> list[Motif]:
    """Motifs of 8 to 12 columns, each column nearly one letter, or undecided at the edges."""
    rng = np.random.default_rng(seed)
    motifs = []
    for i in range(number):
        width = int(rng.integers(8, 13))
        counts = rng.dirichlet([0.6] * 4, size=width) * 30
        counts[1:7] = 1
        counts[np.arange(1, 7), rng.integers(0, 4, 6)] = 400
        motifs.append(Motif(f"M{i:03d} TF{i}", ((counts + 0.25) / (counts + 0.25).sum(axis=1, keepdims=True)).T))
    return motifs


def write_motifs(path, motifs: list[Motif]):
    lines = []
    for motif in motifs:
        lines.append(f">{motif.name}")
        lines += ["\t".join(f"{1000 * value:.4f}" for value in column) for column in motif.probabilities.T]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_ranking(path, ranking: Ranking):
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["kmer", "count", "npmi"])
        kmers = all_kmers(ranking.k)
        writer.writerows([kmer.decode(), c, x] for kmer, c, x in zip(kmers, ranking.count, ranking.npmi, strict=True))
    return path


def write_labelled(path, rows: list[tuple[str, str]]):
    path.write_text("sequence\tlabel\n" + "".join(f"{sequence}\t{label}\n" for sequence, label in rows))
    return path


def labelled_of(rows: list[tuple[str, int]]) -> LabelledSet:
    codes = [base_codes(sequence).astype(np.int64) for sequence, _ in rows]
    return LabelledSet("made", codes, np.array([label == 1 for _, label in rows]))


def planted(motifs: list[Motif]) -> Ranking:
    """A random ranking, but for the cores of the motifs on top."""
    ranking = random_ranking(11)
    for motif in motifs:
        core = motif.consensus[1:7]
        for word in (core, reverse_complement(core)):
            ranking.npmi[kmer_value(word)] += 2
    return ranking


def run(tmp_path, ranking: Ranking, motifs: list[Motif], **options):
    config = MotifConfig(
        npmi=str(write_ranking(tmp_path / "ranking.csv", ranking)),
        motifs=str(write_motifs(tmp_path / "motifs.pfm", motifs)),
        output_dir=str(tmp_path / "out"),
        **{"draws": 999, **options},
    )
    return evaluate(config, silent=True)
