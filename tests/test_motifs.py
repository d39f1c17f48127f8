"""Motifs: memelite beside slow computations, planted truths, the real data."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval.motifs.__main__ import MotifConfig, evaluate, main
from eval.motifs.enrichment import motif_enrichment
from eval.motifs.figure import clusters
from eval.motifs.files import LETTERS, Motif
from eval.motifs.matches import Alignments, align
from eval.motifs.ranking import pairs_of
from gemsdata.genome.vocab import base_codes, kmer_value, num_kmers
from tests.genomes import random_dna
from tests.motif_support import (
    labelled_of,
    make_motifs,
    planted,
    random_ranking,
    reverse_complement,
    run,
    write_labelled,
)

pytestmark = pytest.mark.once


# memelite beside slow computations from the papers


def naive_tomtom(kmer: str, motifs: list[Motif], grid: int = 1000) -> np.ndarray:
    """P-values by Gupta et al. (2007): column scores less their median, convolved; every offset, then both strands."""
    query = np.array([[float(letter == base) for letter in LETTERS] for base in kmer])
    both = [motif.probabilities.T for motif in motifs] + [motif.probabilities.T[::-1, ::-1] for motif in motifs]
    columns = np.concatenate(both)
    score = -np.linalg.norm(query[:, None] - columns[None], axis=2)
    score -= np.median(score, axis=1, keepdims=True)
    step = (score.max() - score.min()) / grid
    zero = -score.min() / step
    level = np.rint((score - score.min()) / step).astype(int)
    density = [np.bincount(row, minlength=grid + 1) / len(columns) for row in level]
    spans = {}
    for first in range(len(kmer)):
        span = np.ones(1)
        for last in range(first, len(kmer)):
            span = np.convolve(span, density[last])
            spans[first, last + 1] = span
    p_values, start = [], 0
    for target in both:
        width = len(target)
        overlaps, best = [], -np.inf
        for offset in range(1 - len(kmer), width):
            first, last = max(0, -offset), min(len(kmer), width - offset)
            total = sum(level[i, start + i + offset] - zero for i in range(first, last))
            best = max(best, total)
            overlaps.append((first, last))
        none_as_good = 1.0
        for first, last in overlaps:
            values = np.arange(spans[first, last].size) - (last - first) * zero
            none_as_good *= 1 - spans[first, last][values >= best - 1e-6].sum()
        p_values.append(1 - none_as_good)
        start += width
    smaller = np.minimum(p_values[: len(motifs)], p_values[len(motifs) :])
    return 1 - (1 - smaller) ** 2


@pytest.mark.slow
@pytest.mark.compiled
def test_tomtom_agrees_with_a_slow_computation() -> None:
    motifs = make_motifs(60)
    words = ["ACGTAC", "TTTTTT", "CAGGTG", motifs[3].consensus[1:7]]
    found = align(np.array([base_codes(word) for word in words]).astype(np.int64), motifs)
    for i, word in enumerate(words):
        slow = naive_tomtom(word, motifs)
        assert np.median(np.abs(np.log10(found.p_value[i] / slow))) < 0.02
        assert np.abs(np.log10(found.p_value[i] / slow)).max() < 0.3
        assert found.p_value[i].argmin() == slow.argmin()
    assert (found.offset[3, 3], found.reverse[3, 3]) == (1, False)


@pytest.mark.slow
@pytest.mark.compiled
def test_both_strands_of_a_kmer_match_the_same_motifs() -> None:
    motifs = make_motifs(40)
    words = ["ACGTAC", "CCCAGG", "TGACTC"]
    both = [np.array([base_codes(w) for w in ws]).astype(np.int64) for ws in (words, map(reverse_complement, words))]
    forward, backward = (align(digits, motifs) for digits in both)
    np.testing.assert_allclose(np.log10(forward.p_value), np.log10(backward.p_value), atol=0.1)


@pytest.mark.slow
@pytest.mark.compiled
def test_fimo_finds_the_words_whose_exact_p_value_is_small() -> None:
    motif = Motif("m", np.random.default_rng(8).dirichlet([1.0] * 4, size=6).T)
    log_odds = np.log2(motif.probabilities + 1e-4) + 2
    words = ["".join(word) for word in itertools.product(LETTERS, repeat=6)]
    scores = np.array([sum(log_odds[LETTERS.index(base), i] for i, base in enumerate(word)) for word in words])
    exact = {word: float((scores >= score - 1e-9).mean()) for word, score in zip(words, scores, strict=True)}
    either_strand = np.array([min(exact[word], exact[reverse_complement(word)]) for word in words])
    found = motif_enrichment(labelled_of([(word, i % 2) for i, word in enumerate(words)]), [motif], 0.02)
    num_found = int(found.in_positive[0] + found.in_negative[0])
    sure, perhaps = (either_strand < 0.02 / 1.2).sum(), (either_strand < 0.02 * 1.2).sum()  # memelite bins the scores
    assert 100 < sure <= num_found <= perhaps


@pytest.mark.slow
@pytest.mark.compiled
def test_a_hit_does_not_run_over_the_end_of_a_short_sequence() -> None:
    motif = Motif("m", np.full((4, 12), 0.002) + 0.992 * np.eye(4)[[0, 1, 2, 3] * 3].T)
    found = motif_enrichment(labelled_of([("ACGTACGTACGT", 1), ("TTACGTACGTAC", 0), ("ACGTACGTAC", 0)]), [motif], 1e-4)
    assert (found.in_positive[0], found.in_negative[0]) == (1, 0)


# Clusters of the figure


def test_a_cluster_takes_its_kmers_away_from_the_next() -> None:
    p_values = np.array([[1e-6, 1e-8, 1], [1e-5, 0.5, 1], [0.5, 0.4, 0.01]])
    found = Alignments(p_values, np.zeros((3, 3), np.int64), np.zeros((3, 3), bool))
    chosen = clusters(found)
    assert [(cluster.motif, cluster.members.tolist()) for cluster in chosen] == [(0, [0, 1])]


# Planted truths


@pytest.mark.slow
@pytest.mark.compiled
def test_planted_motifs_are_found_and_the_claim_holds(tmp_path) -> None:
    motifs = make_motifs(50)
    results = run(tmp_path, planted(motifs), motifs)
    assert results.conclusion.answer == "holds"
    assert "strong correlation holds for" in results.conclusion.sentence
    assert max(results.conclusion.adjusted.values()) <= 3 / 1000
    assert min(found.z for found in results.comparisons["-log10 p of the best motif"].values()) > 8
    table = pq.read_table(tmp_path / "out" / "motifs.parquet").to_pylist()
    by_kmer = {row["kmer"]: row for row in table}
    for motif in motifs[:5]:
        for word in (motif.consensus[1:7], reverse_complement(motif.consensus[1:7])):
            assert by_kmer[word]["top"]
            assert by_kmer[word]["motif_p_value"] < 1e-3


@pytest.mark.slow
@pytest.mark.compiled
def test_a_ranking_by_match_has_a_strong_correlation(tmp_path) -> None:
    motifs = make_motifs(50)
    ranking = random_ranking(12)
    pairs = pairs_of(ranking)
    score = -np.log10(align(pairs.digits, motifs).p_value.min(axis=1))
    ranking.npmi[:] = score[pairs.index] + 0.2 * ranking.npmi
    results = run(tmp_path, ranking, motifs)
    assert results.conclusion.answer == "holds"
    assert results.correlations["nothing"].rho > 0.9
    assert results.correlations["occurrences, G+C and CpG"].rho > 0.9
    assert results.correlations["nothing"].p_value < 1e-100
    assert "which is strong" in results.conclusion.sentence


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("seed", range(4))
def test_a_random_ranking_does_not_make_the_claim_hold(tmp_path, seed) -> None:
    results = run(tmp_path, random_ranking(seed), make_motifs(50))
    assert results.conclusion.answer == "does not hold"
    assert results.correlations["nothing"].p_value > 0.005
    assert min(results.conclusion.adjusted.values()) > 0.01


@pytest.mark.slow
@pytest.mark.compiled
def test_a_motif_planted_in_positives_is_enriched_there(tmp_path) -> None:
    motifs = make_motifs(50)
    core = motifs[0].consensus
    rows = [(random_dna(60, s) + (core if s % 2 else random_dna(len(core), s + 500)), str(s % 2)) for s in range(120)]
    path = write_labelled(tmp_path / "train.tsv", rows)
    results = run(tmp_path, planted(motifs), motifs, labelled=(f"made={path}:100",), match_q=0.3)
    table = pq.read_table(tmp_path / "out" / "enrichment.parquet").to_pylist()
    assert len(table) == len(results.pairs) + len(motifs)
    best = min((row for row in table if row["kind"] == "motif"), key=lambda row: row["p_value"])
    assert best["name"] == motifs[0].name
    assert best["q_value"] < 1e-6
    assert best["of_top"]
    assert (best["num_positive"], best["num_negative"], best["in_positive"]) == (50, 50, 50)
    kmers = sorted((row for row in table if row["kind"] == "kmer"), key=lambda row: row["p_value"])
    words = {core[i : i + 6] for i in range(len(core) - 5)}
    assert {row["name"] for row in kmers[: len(words)]} <= words | {reverse_complement(word) for word in words}


@pytest.mark.slow
@pytest.mark.compiled
def test_the_same_seed_gives_the_same_bytes_from_the_library_and_from_the_command(tmp_path, capsys) -> None:
    names = ["conclusion.json", "motifs.md", "motifs.parquet", "motifs.png", "motifs.svg"]
    results = run(tmp_path, planted(make_motifs(30)), make_motifs(30), draws=99)
    arguments = ["--npmi", str(tmp_path / "ranking.csv"), "--motifs", str(tmp_path / "motifs.pfm"), "--draws", "99"]
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "enrichment.parquet").write_text("of an earlier run with --labelled")
    assert main([*arguments, "--output-dir", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out.splitlines() == [results.conclusion.sentence, f"{tmp_path / 'again'}: complete"]
    for folder in ("out", "again"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    settings = json.loads((tmp_path / "out" / "conclusion.json").read_text())["settings"]
    assert (settings["top"], settings["draws"], settings["seed"]) == (100, 99, 1)


# The real data


@pytest.mark.slow
@pytest.mark.compiled
def test_the_published_ranking_on_real_data(data_dir, tmp_path) -> None:
    config = MotifConfig(
        npmi=str(data_dir / "npmi" / "published_6mer_npmi_grch38_chr1-3.csv"),
        motifs=str(data_dir / "motifs" / "JASPAR2022_vertebrates.pfm"),
        genome=str(data_dir / "genomes" / "hg38_chr1_28Mb.fa.gz"),
        labelled=(f"prom-core={data_dir / 'fewshot' / 'Prom-core' / '1000' / 'train.tsv'}:2000",),
        output_dir=str(tmp_path),
        draws=500,
    )
    results = evaluate(config, silent=True)
    conclusion = json.loads((tmp_path / "conclusion.json").read_text())
    assert (conclusion["k"], conclusion["num_motifs"], conclusion["num_pairs"], conclusion["num_top_pairs"]) == (
        6,
        838,
        2080,
        53,
    )
    assert conclusion["answer"] == "does not hold"
    assert 0.15 < conclusion["correlations"]["nothing"]["rho"] < 0.3
    assert abs(conclusion["correlations"]["occurrences, G+C and CpG"]["rho"]) < 0.08
    assert conclusion["repeat_share"]["top"] > conclusion["repeat_share"]["genome"] + 0.05
    for found in conclusion["comparisons"]["share of occurrences in repeats"].values():
        assert found["p_value"] <= 0.01
        assert found["cliffs_delta"] > 0.4
    table = pq.read_table(tmp_path / "motifs.parquet")
    assert table.num_rows == num_kmers(6)
    assert pq.read_table(tmp_path / "enrichment.parquet").num_rows == 2080 + 838
    e_box = table.to_pylist()[kmer_value("CACGTG")]
    assert e_box["motif_q_value"] < 0.01
    for motif in ("MA0093.3 USF1", "MA0526.4 USF2"):
        assert motif in {entry.name for entry in results.motifs}
    report = (tmp_path / "motifs.md").read_text()
    assert report.split("\n\n")[1] == f"**{conclusion['sentence']}**"
