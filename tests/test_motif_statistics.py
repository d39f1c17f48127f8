"""What the tests of motifs count and compute: pairs, strata, permutations, correlations, occurrences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from eval.motifs import statistics as motif_statistics
from eval.motifs.enrichment import count_in_repeats, kmer_enrichment
from eval.motifs.ranking import pairs_of, strata
from eval.motifs.statistics import compare_within_strata, rank_correlation
from eval.results.statistics import holm
from gemsdata.genome.vocab import all_kmers, kmer_value
from tests.genomes import awkward_genome, random_dna, write_fasta
from tests.motif_support import (
    labelled_of,
    random_ranking,
    reverse_complement,
)

KMERS = [kmer.decode() for kmer in all_kmers(6)]


# Pairs and strata


def test_every_scored_kmer_is_in_one_pair_under_its_better_rank() -> None:
    ranking = random_ranking(1)
    ranking.npmi[[kmer_value("ACGTAC"), kmer_value("GTACGT"), kmer_value("AAAAAA")]] = np.nan
    pairs = pairs_of(ranking)
    scored = {kmer: x for kmer, x in zip(KMERS, ranking.npmi, strict=True) if np.isfinite(x)}
    expected = {min(kmer, reverse_complement(kmer)) for kmer in scored}
    assert {min(kmer, reverse_complement(kmer)) for kmer in pairs.kmers} == expected
    assert len(pairs) == len(expected) == 2080 - 1
    order = sorted(scored, key=scored.get, reverse=True)
    rank = {kmer: place for place, kmer in enumerate(order, 1)}
    count = dict(zip(KMERS, ranking.count, strict=True))
    for i, kmer in enumerate(pairs.kmers):
        other = reverse_complement(kmer)
        assert pairs.rank[i] == min(rank[kmer], rank.get(other, 4096)) == rank[kmer]
        assert pairs.count[i] == count[kmer] + count[other]
        assert pairs.index[kmer_value(kmer)] == pairs.index[kmer_value(other)] == i


def test_strata_hold_what_they_say() -> None:
    pairs = pairs_of(random_ranking(2))
    found = strata(pairs)
    for name, key in {
        "shuffled": lambda kmer: min(sorted(kmer), sorted(reverse_complement(kmer))),
        "G+C- and CpG-matched": lambda kmer: (kmer.count("G") + kmer.count("C"), kmer.count("CG")),
    }.items():
        keys = [str(key(kmer)) for kmer in pairs.kmers]
        assert (
            len(set(zip(keys, found[name].tolist(), strict=True))) == len(set(keys)) == len(set(found[name].tolist()))
        )
    blocks = found["frequency-matched"]
    assert np.bincount(blocks).max() == 40
    edges = [(pairs.count[blocks == b].min(), pairs.count[blocks == b].max()) for b in range(blocks.max() + 1)]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(edges))


# Statistics


def test_a_permutation_test_of_one_stratum_is_that_of_scipy() -> None:
    rng = np.random.default_rng(3)
    x, top = rng.normal(size=60), np.arange(60) < 15
    x[top] += 0.5
    found = compare_within_strata(x, top, np.zeros(60, int), draws=20_000, rng=np.random.default_rng(1))
    theirs = stats.permutation_test(
        (x[top], x[~top]), lambda a, b: a.mean() - b.mean(), n_resamples=20_000, rng=np.random.default_rng(2)
    )
    assert found.p_value == pytest.approx(theirs.pvalue, abs=0.01)
    assert found.mean_top - found.mean_control == pytest.approx(theirs.statistic)
    assert found.superiority == pytest.approx(stats.mannwhitneyu(x[top], x[~top]).statistic / (15 * 45))


def test_small_strata_are_compared_as_every_exchange_of_their_members_is() -> None:
    x = np.array([1.0, 5.0, 2.0, 7.0, 3.0, 9.0, np.nan])
    top = np.array([False, True, False, True, False, False, True])
    group = np.array([0, 0, 1, 1, 1, 2, 1])  # the last stratum has no top, the last value is unknown

    def difference(members: tuple[int, int]) -> float:
        rest = [np.delete(x[:2], members[0]).mean(), np.delete(x[2:5], members[1]).mean()]
        return (x[members[0]] - rest[0] + x[2 + members[1]] - rest[1]) / 2

    every = [difference(chosen) for chosen in itertools.product(range(2), range(3))]
    found = compare_within_strata(x, top, group, draws=30_000, rng=np.random.default_rng(0))
    assert found.num_top == 2
    assert found.mean_top - found.mean_control == pytest.approx(difference((1, 1)))
    exact = np.mean(np.abs(every) >= difference((1, 1)) - 1e-9)
    assert found.p_value == pytest.approx(exact, abs=0.015)
    assert found.superiority == 1.0
    assert found.spread == pytest.approx(np.std(every), rel=0.02)


@pytest.mark.parametrize("name", ["shuffled", "frequency-matched", "G+C- and CpG-matched"])
def test_p_values_of_random_rankings_are_uniform(name) -> None:
    """The match scores depend on composition; that alone must not make a random top look special."""
    p_values = []
    for seed in range(60):
        pairs = pairs_of(random_ranking(seed, k=5))
        rng = np.random.default_rng(seed + 1000)
        score = (pairs.digits >= 2).sum(axis=1) + rng.normal(size=len(pairs))
        found = compare_within_strata(score, pairs.rank <= 100, strata(pairs)[name], draws=199, rng=rng)
        p_values.append(found.p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(4)
    x = rng.integers(0, 50, 300).astype(float)
    y = x + rng.normal(0, 40, 300)
    theirs = stats.spearmanr(x, y)
    found = rank_correlation(x, y)
    assert found.rho == pytest.approx(theirs.statistic)
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert found.low < found.rho < found.high
    assert rank_correlation(x, -y).rho == pytest.approx(-found.rho)


def test_a_partial_correlation_takes_a_common_cause_away() -> None:
    rng = np.random.default_rng(5)
    cause = rng.normal(size=2000)
    x, y = cause + 0.5 * rng.normal(size=2000), cause + 0.5 * rng.normal(size=2000)
    ranks = stats.rankdata(cause)
    assert rank_correlation(x, y).rho > 0.7
    partial = rank_correlation(x, y, ranks[:, None])
    assert abs(partial.rho) < 0.1
    r_xy, r_xz, r_yz = (stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, cause), (y, cause)))
    assert partial.rho == pytest.approx((r_xy - r_xz * r_yz) / np.sqrt((1 - r_xz**2) * (1 - r_yz**2)))


def test_corrections_and_odds_are_those_of_the_definitions() -> None:
    p_values = np.array([0.01, 0.04, 0.03, 0.005, 0.6])
    np.testing.assert_allclose(holm(p_values), [0.04, 0.09, 0.09, 0.025, 0.6])
    np.testing.assert_allclose(motif_statistics.benjamini_hochberg(p_values), [0.025, 0.05, 0.05, 0.025, 0.6])
    odds = motif_statistics.log2_odds_ratio(np.array([10]), np.array([5]), 20, 20)
    assert odds[0] == pytest.approx(np.log2((10.5 / 10.5) / (5.5 / 15.5)))
    (p_value,) = motif_statistics.fisher_p_values(np.array([10]), np.array([5]), 20, 20)
    assert p_value == pytest.approx(stats.fisher_exact([[10, 10], [5, 15]]).pvalue)


# Counting


def test_repeats_are_counted_as_the_definition_says(tmp_path) -> None:
    contigs = awkward_genome()
    pairs = pairs_of(random_ranking(6, k=3))
    inside, total = np.zeros(len(pairs), int), np.zeros(len(pairs), int)
    for i, kmer in enumerate(pairs.kmers):
        for word in (kmer, reverse_complement(kmer)):  # one that is its own reverse complement counts twice a place
            for sequence in contigs.values():
                places = [p for p in range(len(sequence) - 2) if sequence[p : p + 3].upper() == word]
                total[i] += len(places)
                inside[i] += sum(sequence[p : p + 3].islower() for p in places)
    found = count_in_repeats(write_fasta(tmp_path / "g.fa", contigs), pairs)
    np.testing.assert_array_equal(found.total, total)
    np.testing.assert_array_equal(found.inside, inside)
    assert found.genome_share == inside.sum() / total.sum()


def test_kmers_in_sequences_are_counted_as_the_definition_says() -> None:
    rows = [(random_dna(80, seed), seed % 2) for seed in range(40)] + [("ACG", 1)]
    pairs = pairs_of(random_ranking(7, k=4))
    found = kmer_enrichment(labelled_of(rows), pairs)
    for i, kmer in enumerate(pairs.kmers):
        words = {kmer, reverse_complement(kmer)}
        counts = [sum(sequence[p : p + 4] in words for p in range(len(sequence) - 3)) for sequence, _ in rows]
        assert found.occurrences[i] == sum(counts)
        assert found.in_positive[i] == sum(c > 0 for c, (_, label) in zip(counts, rows, strict=True) if label == 1)
        assert found.in_negative[i] == sum(c > 0 for c, (_, label) in zip(counts, rows, strict=True) if label == 0)
    assert (found.num_positive, found.num_negative) == (21, 20)
