"""Windows: laws of coverage, and the held-out regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemsdata.genome.fasta import Record
from gemsdata.genome.packed import GenomeWriter, PackedGenome, pack_record
from gemsdata.shards import windows
from gemsdata.shards.manifest import SCHEMES
from tests.genomes import awkward_genome, letters, random_dna


def store(folder: Path, contigs: dict[str, str]) -> PackedGenome:
    with GenomeWriter(folder) as writer:
        for name, sequence in contigs.items():
            writer.add(pack_record(Record(name, letters(sequence)), "test"))
        return writer.finish()


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> PackedGenome:
    return store(tmp_path_factory.mktemp("genome"), awkward_genome())


def intervals_of(mask: np.ndarray) -> list[list[int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return edges.reshape(-1, 2).tolist()


INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=8)


@given(INTERVALS)
def test_merge_is_the_union(pairs: list[tuple[int, int]]) -> None:
    intervals = np.array(sorted((start, start + size) for start, size in pairs), np.int64).reshape(-1, 2)
    mask = np.zeros(100, bool)
    for start, end in intervals.tolist():
        mask[start:end] = True
    merged = windows.merge(intervals)
    assert [pair for pair in merged.tolist() if pair[0] < pair[1]] == intervals_of(mask)


@settings(max_examples=40)
@given(st.floats(0, 0.6), st.integers(0, 50), st.integers(20, 500))
def test_segments_of_both_splits_are_all_acgt_and_disjoint(
    genome: PackedGenome, fraction: float, seed: int, row_bases: int
) -> None:
    regions = windows.hashed_regions(genome, fraction, row_bases, seed)
    segments = windows.segments(genome, regions)
    for contig, sequence in enumerate(awkward_genome().values()):
        acgt = np.array([letter in "ACGTacgt" for letter in sequence], bool)
        held_out = np.zeros(len(sequence), bool)
        for _, start, end in regions[regions[:, 0] == contig].tolist():
            held_out[start:end] = True
        for split, mask in (("train", acgt & ~held_out), ("valid", acgt & held_out)):
            here = segments[split][segments[split][:, 0] == contig, 1:]
            assert here.tolist() == intervals_of(mask)


@settings(max_examples=40)
@given(st.data())
def test_the_gaps_of_a_region_are_counted(genome: PackedGenome, data: st.DataObject) -> None:
    contig = data.draw(st.integers(0, len(genome.names) - 1))
    start = data.draw(st.integers(0, int(genome.num_bases[contig])))
    end = data.draw(st.integers(start, int(genome.num_bases[contig])))
    region = list(awkward_genome().values())[contig][start:end]
    gaps = sum(letter not in "ACGTacgt" for letter in region)
    assert windows._gap_bases(genome, np.array([[contig, start, end]])).tolist() == [gaps]


@settings(max_examples=40)
@given(st.sampled_from(SCHEMES), st.integers(1, 8), st.integers(10, 600), st.integers(0, 9))
def test_windows_cover_their_segments(genome: PackedGenome, scheme: str, k: int, row_tokens: int, seed: int) -> None:
    segments = windows.segments(genome, windows.hashed_regions(genome, 0.1, 100, seed))["train"]
    cut = windows.cut(segments, scheme=scheme, k=k, row_tokens=row_tokens, seed=seed, num_contigs=len(genome.names))
    assert cut.num_tokens.min() >= 1
    assert cut.num_tokens.max() <= row_tokens
    covered = [np.zeros(n, np.int64) for n in genome.num_bases.tolist()]
    for contig, start, num_tokens in zip(cut.contig, cut.start, cut.num_tokens, strict=True):
        size = int(num_tokens) if scheme == "fixed" else int(num_tokens) + k - 1
        covered[contig][start : start + size] += 1
    for contig, start, end in segments.tolist():
        inside = covered[contig][start:end]
        if scheme == "fixed":  # every k-mer of a segment is a token of exactly one row
            assert inside[: max(end - start - k + 1, 0)].tolist() == [1] * max(end - start - k + 1, 0)
            assert inside[max(end - start - k + 1, 0) :].sum() == 0
        else:  # pieces share no base, and what is left out is shorter than a k-mer
            assert inside.max() <= 1
            assert all(b - a < 5 * k for a, b in intervals_of(inside == 0))
        covered[contig][start:end] = 0
    assert all(c.sum() == 0 for c in covered)  # nothing outside the segments


def test_half_of_the_dnabert_pieces_are_full(tmp_path: Path) -> None:
    genome = store(tmp_path / "g", {"a": random_dna(400_000, 1)})
    segments = windows.segments(genome, np.empty((0, 3), np.int64))["train"]
    cut = windows.cut(segments, scheme="dnabert", k=6, row_tokens=510, seed=0, num_contigs=1)
    full = cut.num_tokens == 510
    assert 0.42 < full.mean() < 0.58  # about 1,000 pieces: 4.5 standard errors and the last piece
    short = cut.num_tokens[~full].astype(int) + 5
    assert 235 < short.mean() < 280  # uniform in 6..510


@pytest.mark.parametrize("fraction", [0.01, 0.02, 0.1, 0.5])
def test_the_fraction_is_met(tmp_path: Path, fraction: float) -> None:
    genome = store(tmp_path / "g", {"a": random_dna(300_000, 1), "b": "N" * 5000 + random_dna(90_000, 2)})
    regions = windows.hashed_regions(genome, fraction, 515, 3)
    held_out = windows.segments(genome, regions)["valid"]
    share = (held_out[:, 2] - held_out[:, 1]).sum() / 390_000
    assert share == pytest.approx(fraction, rel=0.1)


def test_an_unknown_contig_is_named(genome: PackedGenome) -> None:
    with pytest.raises(ValueError, match=r"'chr9' is not in the genome; its contigs are NC_000001\.11, short"):
        windows.whole_contigs(genome, ["last", "chr9"])
    assert windows.whole_contigs(genome, ["last"]).tolist() == [[5, 0, 1700]]
