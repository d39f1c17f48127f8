"""Kernels over bases against naive twins on strings."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemsdata.genome import packed as genome
from gemsdata.genome.fasta import Record
from gemsdata.genome.vocab import BASES, kmer_value, token_id
from gemsdata.kernels import kmer
from gemsdata.npmi.counts import NgramCounter, both_strands
from tests.genomes import COMPLEMENT, letters, random_dna

SEQUENCES = st.text("ACGTACGTACGTacgtacgtNRn", max_size=300)


def naive_counts(sequence: str, n: int) -> Counter[str]:
    windows = (sequence[i : i + n].upper() for i in range(len(sequence) - n + 1))
    return Counter(window for window in windows if set(window) <= set("ACGT"))


def pack(sequence: str) -> genome.Contig:
    return genome.pack_record(Record("x", letters(sequence)), "test")


def unpack(packed: np.ndarray, num_bases: int) -> str:
    return "".join(BASES[(packed[i // 4] >> (6 - 2 * (i % 4))) & 3] for i in range(num_bases))


@given(SEQUENCES)
def test_packing_keeps_acgt_and_clears_the_rest(sequence: str) -> None:
    contig = pack(sequence)
    assert contig.num_bases == len(sequence)
    assert unpack(contig.packed, len(sequence)) == re.sub("[^ACGT]", "A", sequence.upper())


@given(SEQUENCES)
def test_intervals_are_the_matches_of_a_regular_expression(sequence: str) -> None:
    contig = pack(sequence)
    assert contig.gaps.tolist() == [list(m.span()) for m in re.finditer("[^ACGT]+", sequence.upper())]
    assert contig.soft.tolist() == [list(m.span()) for m in re.finditer("[a-z]+", sequence)]
    assert contig.acgt_runs.tolist() == [list(m.span()) for m in re.finditer("[ACGTacgt]+", sequence)]
    assert contig.letters == dict(Counter(re.sub("[ACGT]", "", sequence.upper())))


@pytest.mark.parametrize("num_intervals", [65535, 65536, 70000])
@pytest.mark.compiled
def test_more_intervals_than_fit_in_one_chunk(num_intervals: int) -> None:
    contig = pack("AN" * num_intervals)
    assert contig.gaps.shape == (num_intervals, 2)
    assert contig.gaps[-1].tolist() == [2 * num_intervals - 1, 2 * num_intervals]


@given(st.lists(SEQUENCES, max_size=4), st.integers(1, 5))
def test_counts_of_all_orders_are_the_naive_ones(sequences: list[str], max_n: int) -> None:
    tally = NgramCounter(max_n)
    for sequence in sequences:
        contig = pack(sequence)
        tally.add(contig.packed, contig.acgt_runs)
    for n, counts in tally.counts().items():
        expected = np.zeros(4**n, np.int64)
        for sequence in sequences:
            for window, count in naive_counts(sequence, n).items():
                expected[kmer_value(window)] += count
        assert np.array_equal(counts, expected), n


def test_the_totals_of_two_counters_add_up_to_those_of_one() -> None:
    whole, first, second = NgramCounter(3), NgramCounter(3), NgramCounter(3)
    for part, sequence in ((first, "ACGTTGNACCA"), (second, "GGACGTNNCAT"), (second, "TTACG")):
        contig = pack(sequence)
        for tally in (whole, part):
            tally.add(contig.packed, contig.acgt_runs)
    first.add_totals(second.totals())
    for n, counts in whole.counts().items():
        assert first.counts()[n].tolist() == counts.tolist()


@given(st.text("ACGT", min_size=6, max_size=200))
def test_counts_on_both_strands_are_counts_of_both_texts(sequence: str) -> None:
    contig = pack(sequence)
    tally = NgramCounter(4)
    tally.add(contig.packed, contig.acgt_runs)
    both = both_strands(tally.counts())
    for n in range(1, 5):
        expected = naive_counts(sequence, n) + naive_counts(sequence.translate(COMPLEMENT)[::-1], n)
        assert both[n].sum() == sum(expected.values())
        assert all(both[n][kmer_value(window)] == count for window, count in expected.items())


@pytest.mark.compiled
def test_a_count_goes_beyond_one_byte() -> None:
    contig = pack("A" * 100_000 + "C" * 700)
    tally = NgramCounter(3)
    tally.add(contig.packed, contig.acgt_runs)
    counts = tally.counts()
    assert counts[3][kmer_value("AAA")] == 99_998
    assert counts[1].tolist() == [100_000, 0, 700, 0]


@given(st.data(), st.integers(1, 9))
def test_rows_are_the_token_ids_of_their_text(data: st.DataObject, k: int) -> None:
    sequence = random_dna(120, data.draw(st.integers(0, 99)))
    packed = pack(sequence).packed
    start = data.draw(st.lists(st.integers(0, 120 - k - 20), min_size=1, max_size=4))
    num_tokens = np.array([data.draw(st.integers(1, 20)) for _ in start], np.uint16)
    out = np.full((len(start), 22), 9, np.uint32)
    kmer.tokenize_rows(packed, np.array(start), num_tokens, k, out)
    for row, first in enumerate(start):
        n = int(num_tokens[row])
        ids = [token_id(sequence[first + t : first + t + k]) for t in range(n)]
        assert out[row].tolist() == ids + [0] * (22 - n)
