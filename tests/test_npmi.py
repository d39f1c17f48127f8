"""NPMI against the published table, and against segmentations listed one by one."""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

import gemsdata as gd
from gemsdata.genome.fasta import Record
from gemsdata.genome.packed import pack_record
from gemsdata.genome.vocab import NUM_SPECIAL, kmer_of_value, kmer_value, token_id
from gemsdata.npmi.counts import countable_runs
from gemsdata.npmi.estimators import ESTIMATORS, _log, _pmi_with_pieces, _shared_total, rank_descending
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.npmi import check_scores
from tests.genomes import letters, random_dna, write_fasta

PUBLISHED = "published_6mer_npmi_grch38_chr1-3.csv"


@pytest.fixture(scope="module")
def published(data_dir: Path) -> dict[str, np.ndarray]:
    """The published columns in token-id order."""
    columns = {"count": np.int64, "naive.pmi": float, "dp.true.pmi": float, "norm_dp_true_pmi": float}
    out = {name: np.zeros(4096, dtype) for name, dtype in columns.items()}
    with open(data_dir / "npmi" / PUBLISHED) as stream:
        for row in csv.DictReader(stream):
            for name in columns:
                out[name][kmer_value(row["ngram"])] = float(row[name])
    return out


@pytest.fixture(scope="module")
def human(data_dir: Path) -> NpmiTable:
    return NpmiTable.from_fasta(data_dir / "genomes" / "hg38_chr1_28Mb.fa.gz", max_k=6)


def test_published_counts_give_the_published_scores(published: dict[str, np.ndarray]) -> None:
    table = NpmiTable.from_counts({6: published["count"]}, estimator="published")
    scores = table.scores(6)
    assert published["count"].sum() == 669_128_271
    assert np.abs(scores.npmi - published["norm_dp_true_pmi"]).max() < 0.004
    assert np.abs(scores.pmi - published["dp.true.pmi"]).max() < 0.004
    assert np.abs(table.scores(6, "naive").pmi - published["naive.pmi"]).max() < 0.004
    assert spearmanr(scores.npmi, published["norm_dp_true_pmi"]).statistic > 0.9999


def test_the_named_kmers_of_the_published_table(published: dict[str, np.ndarray]) -> None:
    table = NpmiTable.from_counts({6: published["count"]})
    best = [kmer_of_value(int(v), 6) for v in np.argsort(table.scores(6).rank)[:8]]
    assert best == ["CCTCCC", "GGGAGG", "GTGTGT", "CCCAGC", "GCTGGG", "ACACAC", "AAAAAA", "TTTTTT"]
    assert table.counts[6][kmer_value("TCGCGA")] == 2947
    assert table.counts[6][kmer_value("CCTCCC")] == 446_610
    assert table.npmi(6)[kmer_value("CCTCCC")] == pytest.approx(2.1030761926846, abs=0.004)


@pytest.mark.compiled
def test_28_megabases_rank_like_the_published_table(human: NpmiTable, published: dict[str, np.ndarray]) -> None:
    assert human.counts[1].sum() == 28_608_453
    agreement = spearmanr(human.npmi(6), published["norm_dp_true_pmi"]).statistic
    assert agreement == pytest.approx(0.992, abs=0.001)


@pytest.mark.compiled
def test_levine_is_another_estimator(human: NpmiTable, published: dict[str, np.ndarray]) -> None:
    """With per-order totals, as defined, 0.886; the figure 0.842 belongs to one denominator for every order."""
    levine = human.scores(6, "levine").npmi
    assert spearmanr(levine, published["norm_dp_true_pmi"]).statistic == pytest.approx(0.886, abs=0.001)
    total = _shared_total(human.counts)
    pmi = _pmi_with_pieces({n: _log(human.counts[n], total) for n in range(1, 7)}, 6, 6)
    shared = pmi * human.npmi(6) / human.scores(6).pmi  # the discount
    assert spearmanr(shared, published["norm_dp_true_pmi"]).statistic == pytest.approx(0.842, abs=0.001)


def compositions(k: int) -> list[tuple[int, ...]]:
    """Every ordered sum of two or more pieces."""
    return [
        pieces for size in range(2, k + 1) for pieces in itertools.product(range(1, k), repeat=size) if sum(pieces) == k
    ]


def naive_score(counts: dict[int, np.ndarray], word: str, estimator: str) -> float:
    """Score one k-mer from the definitions of algorithms.md, in plain floats."""
    shared = int(counts[1].sum() + counts[2].sum())

    def log_p(piece: str) -> float:
        frequency = int(counts[len(piece)][kmer_value(piece)])
        total = int(counts[len(piece)].sum()) if estimator == "levine" else shared
        return math.log(frequency / total) if frequency else -math.inf

    longest = {"published": 2, "levine": len(word), "naive": 1}[estimator]
    best = math.inf
    for pieces in compositions(len(word)):
        if max(pieces) <= longest:
            ends = list(itertools.accumulate(pieces))
            parts = [word[end - size : end] for end, size in zip(ends, pieces, strict=True)]
            best = min(best, log_p(word) - sum(log_p(part) for part in parts))
    frequency = int(counts[len(word)][kmer_value(word)])
    return best * math.log(frequency) / (math.log(frequency) + math.log(101))


@settings(max_examples=25)
@given(st.integers(2, 4), st.data())
def test_scores_are_the_minimum_over_listed_segmentations(k: int, data: st.DataObject) -> None:
    table = NpmiTable.from_counts({k: data.draw(arrays(np.int64, 4**k, elements=st.integers(1, 5000)))}, min_count=101)
    for estimator in ESTIMATORS:
        scores = table.scores(k, estimator)
        for value in range(0, 4**k, 3):
            if table.counts[k][value] < 101:
                assert np.isnan(scores.npmi[value])
                assert scores.rank[value] == 4**k
            else:
                expected = naive_score(dict(table.counts), kmer_of_value(value, k), estimator)
                assert scores.npmi[value] == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.one_of(st.just(math.nan), st.floats(-3, 3)), max_size=40))
def test_ranks_count_the_better_ones(values: list[float]) -> None:
    ranks = rank_descending(np.array(values))
    for value, rank in zip(values, ranks.tolist(), strict=True):
        better = sum(other > value for other in values)
        assert rank == (len(values) if math.isnan(value) else better + 1)


def test_special_ids_get_the_worst_rank(published: dict[str, np.ndarray]) -> None:
    ranks = NpmiTable.from_counts({6: published["count"]}).ranks(6)
    assert ranks.shape == (4101,)
    assert ranks.dtype == np.uint16
    assert ranks[:5].tolist() == [4096] * 5
    assert sorted(ranks[5:].tolist()) == list(range(1, 4097))


@pytest.mark.parametrize("canonical", [False, True])
@pytest.mark.parametrize("exclude", [False, True])
def test_a_table_survives_parquet(tmp_path: Path, canonical: bool, exclude: bool) -> None:
    fasta = write_fasta(tmp_path / "g.fa", {"a": random_dna(3000, 1, "ACGTacgtN"), "b": "ACGT"})
    table = NpmiTable.from_fasta(
        fasta, max_k=3, min_count=2, estimator="levine", canonical=canonical, exclude_soft_masked=exclude
    )
    table.to_parquet(tmp_path / "t.parquet")
    again = NpmiTable.from_parquet(tmp_path / "t.parquet")
    assert (again.estimator, again.min_count) == ("levine", 2)
    assert (again.canonical, again.exclude_soft_masked) == (canonical, exclude)
    for k in range(1, 4):
        assert np.array_equal(again.counts[k], table.counts[k])
    assert np.array_equal(again.ranks(3), table.ranks(3))


def test_a_table_without_scores_has_the_same_counts_and_ranks(tmp_path: Path) -> None:
    table = NpmiTable.from_counts({3: np.random.default_rng(3).integers(90, 5000, 64)}, estimator="levine")
    table.to_parquet(tmp_path / "ranks.parquet", scores=False)
    stored = pq.read_table(tmp_path / "ranks.parquet")
    assert stored.column_names == ["k", "kmer", "token_id", "count", "rank_levine"]
    table.to_parquet(tmp_path / "full.parquet")
    full = pq.read_table(tmp_path / "full.parquet")
    assert stored.equals(full.select(stored.column_names))
    again = NpmiTable.from_parquet(tmp_path / "ranks.parquet")
    assert again.to_arrow().equals(full)
    assert np.array_equal(
        NpmiTable.from_parquet(tmp_path / "ranks.parquet", "naive").npmi(3),
        table.scores(3, "naive").npmi,
        equal_nan=True,
    )
    pq.write_table(stored.drop_columns("rank_levine").replace_schema_metadata(stored.schema.metadata), tmp_path / "x")
    with pytest.raises(ValueError, match="has no column 'rank_levine'"):
        NpmiTable.from_parquet(tmp_path / "x")


def test_queries_have_the_scores_that_a_table_does_not_store(tmp_path: Path) -> None:
    table = NpmiTable.from_counts({3: np.random.default_rng(3).integers(90, 5000, 64)}, min_count=100)
    table.to_parquet(tmp_path / "ranks.parquet", scores=False)
    table.to_parquet(tmp_path / "complete.parquet")
    with gd.catalog(tmp_path / "ranks.parquet", tmp_path / "complete.parquet") as con:
        for _ in range(2):  # the rows are kept for the next query
            query = "SELECT * FROM {}.npmi ORDER BY k, token_id"
            found, wanted = (con.execute(query.format(name)).fetchall() for name in ("ranks", "complete"))
            assert found == wanted
        assert con.execute("SELECT npmi_of('acg')").fetchone() == (table.npmi(3)[token_id("ACG") - NUM_SPECIAL],)


@pytest.mark.parametrize("change", ["exchanged", "equal", "null"])
def test_ranks_without_scores_are_verified(tmp_path: Path, change: str) -> None:
    path = tmp_path / "t.parquet"
    table = NpmiTable.from_counts({3: np.random.default_rng(3).integers(90, 5000, 64)}, min_count=100)
    table.to_parquet(path, scores=False)
    assert check_scores(table, path) == "the ranks of estimator published of all orders follow from the counts"
    stored = pq.read_table(path)
    ranks = stored["rank_published"].to_pylist()
    first = 4 + 16  # the first of the 3-mers
    best, second = (first + ranks[first:].index(rank) for rank in (1, 2))
    ranks[best], ranks[second] = {"exchanged": (2, 1), "equal": (1, 1), "null": (None, 2)}[change]
    pq.write_table(stored.set_column(4, stored.schema.field(4), pa.array(ranks, pa.int32())), path)
    with pytest.raises(VerificationError, match=r"rank_published of [ACGT]{3} "):
        check_scores(table, path)


def test_soft_masked_bases_can_be_left_out(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "g.fa", {"a": "ACGTTaaaaaaaaaacgtGGCAnACGTT"})
    everything = NpmiTable.from_fasta(fasta, max_k=2)
    upper = NpmiTable.from_fasta(fasta, max_k=2, exclude_soft_masked=True)
    assert everything.counts[1].sum() == 27
    assert upper.counts[1].sum() == 14
    assert upper.counts[2].sum() == 4 + 3 + 4
    assert upper.counts[2][kmer_value("AA")] == 0


@given(st.text("ACGTacgNn", min_size=1, max_size=40))
@example("ACaannaaGTAC")  # a gap within a soft-masked run
@example("ACGTaaACGT")
@settings(max_examples=60)
def test_without_soft_masked_bases_the_runs_of_upper_case_are_counted(sequence: str) -> None:
    contig = pack_record(Record("c", letters(sequence)), "test")
    runs = [list(found.span()) for found in re.finditer("[ACGT]+", sequence)]
    assert countable_runs(contig, exclude_soft_masked=True).tolist() == runs
    both = [list(found.span()) for found in re.finditer("[ACGTacgt]+", sequence)]
    assert countable_runs(contig, exclude_soft_masked=False).tolist() == both


def test_canonical_pools_both_strands(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "g.fa", {"a": "AACCGT"})
    counts = NpmiTable.from_fasta(fasta, max_k=2, canonical=True).counts
    assert counts[2][kmer_value("AA")] == counts[2][kmer_value("TT")] == 1
    assert counts[2][kmer_value("CG")] == 2  # its own reverse complement: once on each strand
    assert np.array_equal(counts[1], [3, 3, 3, 3])


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    table = NpmiTable.from_counts({2: np.ones(16, np.int64)})
    with pytest.raises(ValueError, match="make one with --max-k 6"):
        table.ranks(6)
    with pytest.raises(ValueError, match="choose one of published, levine, naive"):
        NpmiTable.from_counts({2: np.ones(16)}, estimator="best")
    with pytest.raises(ValueError, match=r"shape \(15,\); \(16,\) is needed"):
        NpmiTable.from_counts({2: np.ones(15)})
    with pytest.raises(ValueError, match="2-mers hold negative numbers"):
        NpmiTable.from_counts({2: np.append(np.ones(15), -1)})
    with pytest.raises(ValueError, match="min_count = 0; a count of at least 1"):
        NpmiTable.from_counts({2: np.ones(16)}, min_count=0)
    assert NpmiTable.from_counts({2: np.ones(16)}, min_count=1).min_count == 1
    with pytest.raises(FileNotFoundError, match="no such file"):
        NpmiTable.from_parquet(tmp_path / "absent.parquet")
    (tmp_path / "other.parquet").write_bytes(b"not parquet")
    with pytest.raises(ValueError, match="is not an NPMI table"):
        NpmiTable.from_parquet(tmp_path / "other.parquet")


def write_small_table(path: Path, *, content_hash: bool = True) -> NpmiTable:
    """Write a table of 1- to 3-mers, as this version does or as those before the content hash did."""
    rng = np.random.default_rng(3)
    table = NpmiTable.from_counts({3: rng.integers(90, 5000, 64)}, estimator="levine")
    table.to_parquet(path)
    if not content_hash:
        rewrite(path, lambda columns: columns)
    return table


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write a table again without its content hash."""
    old = pq.read_table(path)
    new = change(old)
    kept = {key: value for key, value in old.schema.metadata.items() if key != b"gemsdata.npmi.content"}
    pq.write_table(new.replace_schema_metadata(kept), path)


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, pa.field(name, table.schema.field(name).type), pa.array(values, table[name].type))


def test_a_table_of_an_older_version_is_still_read(tmp_path: Path) -> None:
    table = write_small_table(tmp_path / "t.parquet", content_hash=False)
    again = NpmiTable.from_parquet(tmp_path / "t.parquet")
    assert np.array_equal(again.counts[3], table.counts[3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["count"]), "has no column 'count'"),
        (lambda t: t.drop_columns(["rank_naive"]), "has no column 'rank_naive'"),
        (lambda t: t.set_column(3, "count", t["count"].cast(pa.int32())), "column 'count' is int32, not int64"),
        (lambda t: t.slice(0, 80), "a table has all 4\\*\\*k of each k"),
        (lambda t: t.slice(4), "a table has all 4\\*\\*k of each k"),
        (lambda t: t.slice(0, 0), "has rows of no k"),
        (lambda t: with_column(t, "count", [None, *t["count"].to_pylist()[1:]]), "column 'count' has 1 nulls"),
        (lambda t: with_column(t, "count", [-1, *t["count"].to_pylist()[1:]]), "has the negative number -1"),
        (lambda t: with_column(t, "token_id", [6, *t["token_id"].to_pylist()[1:]]), "not 5 .. 8, each once"),
        (lambda t: with_column(t, "token_id", [0, *t["token_id"].to_pylist()[1:]]), "not 5 .. 8, each once"),
        (lambda t: with_column(t, "kmer", ["C", *t["kmer"].to_pylist()[1:]]), "token id 5 of k = 1 is A, not C"),
        (lambda t: with_column(t, "count", [*t["count"].to_pylist()[:-1], 91]), "does not follow from the counts"),
        (lambda t: with_column(t, "rank_levine", t["rank_naive"]), "rank_levine of the .*-mers is not the order"),
    ],
)
def test_a_table_that_does_not_hold_together_is_refused(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    write_small_table(tmp_path / "t.parquet")
    rewrite(tmp_path / "t.parquet", change)
    with pytest.raises(ValueError, match=message):
        NpmiTable.from_parquet(tmp_path / "t.parquet")


def test_the_settings_stand_where_tables_of_version_1_have_them(tmp_path: Path) -> None:
    """Tables written before there was a hash of the content have this one key, and must stay readable."""
    path = tmp_path / "table.parquet"
    NpmiTable.from_counts({2: np.full(16, 200)}, min_count=3).to_parquet(path)
    table = pq.read_table(path)
    settings = (
        b'{"canonical": false, "estimator": "published", "exclude_soft_masked": false, "min_count": 3, "version": 1}'
    )
    assert table.schema.metadata[b"gemsdata.npmi"] == settings
    pq.write_table(table.replace_schema_metadata({b"gemsdata.npmi": settings}), path)
    assert NpmiTable.from_parquet(path).min_count == 3


def test_a_changed_count_is_told_by_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_small_table(path)
    table = pq.read_table(path)
    changed = with_column(table, "count", [table["count"][0].as_py() + 1, *table["count"].to_pylist()[1:]])
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(ValueError, match="is damaged: its counts or settings do not match the stored hash"):
        NpmiTable.from_parquet(path)


@pytest.mark.once
def test_a_damaged_file_is_one_clear_error_or_the_same_table(tmp_path: Path) -> None:
    """Three hundred files with a few changed bytes, a piece missing or a piece twice."""
    path = tmp_path / "t.parquet"
    table = write_small_table(path)
    good = path.read_bytes()
    rng, messages = np.random.default_rng(0), []
    for turn in range(300):
        data = bytearray(good)
        at = int(rng.integers(len(data)))
        if turn % 3 == 0:
            del data[at : at + int(rng.integers(1, 200))]
        elif turn % 3 == 1:
            data[at:at] = data[at : at + 64]
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            again = NpmiTable.from_parquet(path)
        except ValueError as error:
            messages.append(str(error))
            continue
        assert (again.estimator, again.min_count) == (table.estimator, table.min_count)
        assert all(np.array_equal(again.counts[k], table.counts[k]) for k in (1, 2, 3))
    assert len(messages) > 200
    assert all(str(path) in message and "\n" not in message for message in messages)


def test_a_table_says_what_it_is() -> None:
    table = NpmiTable.from_counts({2: np.array([10] * 3 + [200] * 13)}, min_count=300, canonical=True)
    assert repr(table).splitlines() == [
        "NpmiTable: n-grams of 1 to 2 bases counted in 5,260 bases, both strands",
        "  estimator published; 11 of 16 2-mers occur at least 300 times and have a score",
    ]


@pytest.mark.parametrize("sequence", ["AAAAacgtCCCC", "AAAAacnngtCCCC", "acNNgtACGT", "ACGT", "nnACnacgACgtN"])
def test_runs_without_soft_masked_bases_are_those_of_upper_case_letters(sequence):
    contig = pack_record(Record("c", np.frombuffer(sequence.encode(), np.uint8)), "g.fa")
    found = countable_runs(contig, exclude_soft_masked=True).tolist()
    assert found == [list(run.span()) for run in re.finditer("[ACGT]+", sequence)]
