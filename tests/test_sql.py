"""gd.catalog: views and macros over tiny sets of either format, checked against the reader and the vocabulary."""

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

import gemsdata as gd
from gemsdata.genome import vocab
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.write import shard
from tests.genomes import awkward_genome, write_fasta

pytestmark = pytest.mark.once

OPTIONS = {
    "arrow": ShardOptions(k=3, row_tokens=12, min_count=1, block_rows=8, rows_per_shard=16, valid_fraction=0.2),
    "webdataset": ShardOptions(k=4, row_tokens=10, min_count=2, block_rows=8, format="webdataset", estimator="levine"),
    "zstd": ShardOptions(k=8, row_tokens=30, min_count=1, compression="zstd", scheme="dnabert", rank_column=True),
}


GENOME = awkward_genome()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    write_fasta(folder / "g.fa", GENOME)
    for name, options in OPTIONS.items():
        shard([folder / "g.fa"], folder / name, options)
    return folder


@pytest.fixture(params=list(OPTIONS))
def shards(request, folder):
    return ShardSet.open(folder / request.param)


def fetch(shards, query):
    with gd.catalog(shards.folder) as connection:
        return connection.execute(query).fetchall()


def test_rows_are_those_of_the_set(shards):
    found = fetch(shards, "FROM rows")
    assert len(found) == sum(shards.num_rows(split) for split in ("train", "valid"))
    for split, shard_index, row, contig, start, num_tokens, tokens in found:
        stored = shards.read(split, np.array([row]))
        entry = shards.manifest.shards(split)[shard_index]
        assert entry.first_row <= row < entry.first_row + entry.num_rows
        assert (contig, start, num_tokens) == (
            shards.contig_names[stored.contig[0]],
            stored.start[0],
            stored.num_tokens[0],
        )
        assert tokens == stored.input_ids[0, :num_tokens].tolist()


def test_tokens_are_those_of_the_rows_with_their_ranks(shards):
    found = fetch(shards, "SELECT split, row, token_pos, contig, base_pos, token_id, rank FROM tokens")
    expected = [
        (split, row, token_pos, contig, start + token_pos, token_id, shards.ranks[token_id])
        for split, _, row, contig, start, _, tokens in fetch(shards, "FROM rows")
        for token_pos, token_id in enumerate(tokens)
    ]
    assert found == expected


def test_bases_of_a_row_are_the_genome(shards):
    for contig, start, bases in fetch(shards, "SELECT contig, start, bases(tokens) FROM rows"):
        assert GENOME[contig][start : start + len(bases)].upper() == bases


def test_kmer_and_token_id_follow_the_vocabulary(shards):
    k = shards.k
    ids = range(vocab.vocab_size(k))
    found = fetch(shards, f"SELECT kmer(i), token_id(kmer(i)) FROM range({len(ids)}) r(i) ORDER BY i")
    assert [text for text, _ in found] == [vocab.token(i, k) for i in ids]
    assert [again for _, again in found] == [None] * vocab.NUM_SPECIAL + list(ids[vocab.NUM_SPECIAL :])
    assert fetch(shards, f"SELECT kmer({len(ids)}), token_id('ACN'), token_id('ac'), kmer(6, k := 2)") == [
        (None, None, vocab.token_id("AC"), "AT")
    ]


def test_macros_on_text(shards):
    assert fetch(shards, "SELECT revcomp('AACGt'), gc('AACG'), gc('ggcc'), gc('AT')") == [("aCGTT", 0.5, 1.0, 0.0)]


def test_npmi_is_the_chosen_estimators(shards):
    scores = shards.npmi.scores(shards.k)
    found = fetch(
        shards, f"SELECT token_id, npmi, rank, npmi_of(kmer) FROM npmi WHERE k = {shards.k} ORDER BY token_id"
    )
    for token_id, npmi, rank, same in found:
        expected = scores.npmi[token_id - vocab.NUM_SPECIAL]
        assert npmi == same
        assert (npmi is None and np.isnan(expected)) or (
            npmi == expected and rank == scores.rank[token_id - vocab.NUM_SPECIAL]
        )


def test_shards_and_contigs_are_those_of_the_manifest(shards):
    manifest = shards.manifest
    assert fetch(shards, "SELECT split, shard, first_row, num_rows, num_tokens FROM shards") == [
        (split, i, entry.first_row, entry.num_rows, entry.num_tokens)
        for split, entries in manifest.splits.items()
        for i, entry in enumerate(entries)
    ]
    assert fetch(shards, "SELECT contig, num_bases, num_not_acgt FROM contigs ORDER BY contig_index") == [
        (name, len(text), sum(letter not in "ACGTacgt" for letter in text)) for name, text in GENOME.items()
    ]
    assert fetch(shards, "SELECT sum(num_soft_masked) FROM contigs") == [(manifest.genome.num_soft_masked,)]
    assert fetch(shards, "FROM intervals WHERE kind = 'gap' AND contig = 'NC_000001.11'") == [
        ("NC_000001.11", 3000, 3050, "gap")
    ]


def test_a_scan_can_be_repeated_and_reads_no_further_than_it_must(folder, monkeypatch):
    touched = []
    block = ShardSet.block
    monkeypatch.setattr(ShardSet, "block", lambda self, *where: touched.append(where) or block(self, *where))
    with gd.catalog(folder / "arrow") as connection:
        assert touched == []
        counts = [connection.execute("SELECT count(*) FROM tokens").fetchone() for _ in range(2)]
        assert counts[0] == counts[1]
        assert len(touched) == 2 * len(set(touched))
        assert connection.cursor().execute("SELECT count(*) FROM arrow.tokens").fetchone() == counts[0]
        num_blocks = len(set(touched))
        touched.clear()
        assert len(connection.execute("SELECT * FROM rows LIMIT 3").fetchall()) == 3
        assert len(touched) < num_blocks / 2


def test_two_scans_of_a_set_run_side_by_side(folder):
    with gd.catalog(folder / "arrow") as connection:
        pairs = "SELECT count(*) FROM rows a JOIN rows b ON a.split = b.split AND a.row = b.row AND a.tokens = b.tokens"
        assert connection.execute(pairs).fetchone() == connection.execute("SELECT count(*) FROM rows").fetchone()


def test_several_sets_are_schemas_and_the_first_needs_none(folder):
    with gd.catalog(folder / "arrow", folder / "arrow", b=folder / "webdataset") as connection:
        assert connection.execute("SELECT kmer(5), arrow.kmer(5), arrow_2.kmer(5), b.kmer(5)").fetchall() == [
            ("AAA", "AAA", "AAA", "AAAA")
        ]
        (equal,) = connection.execute(
            "SELECT bool_and(x.count = y.count) FROM npmi x JOIN b.npmi y USING (k, kmer)"
        ).fetchone()
        assert equal
        assert connection.execute("SELECT b.bases(tokens) FROM b.rows LIMIT 1").fetchone()[0].isalpha()


@pytest.mark.parametrize("name", ["2.human-set", "select", "a [b] *c", "it's"])
def test_any_folder_name_will_do(folder, tmp_path, name):
    (tmp_path / name).symlink_to(folder / "arrow")
    with gd.catalog(tmp_path / name) as connection:
        assert connection.execute("SELECT count(*) FROM npmi WHERE k = 3").fetchone() == (64,)
        assert connection.execute("SELECT kmer(token_id), npmi_of('AAA'), bases(tokens) FROM rows, npmi").fetchone()


def test_a_table_alone_has_npmi_and_says_what_rows_need(folder):
    with gd.catalog(folder / "arrow" / "npmi.parquet") as connection:
        assert connection.execute("SELECT kmer(5), npmi_of('AAC') IS NOT NULL").fetchone() == ("AAAAAA", True)
        for view in ("rows", "tokens", "shards", "contigs", "intervals"):
            with pytest.raises(duckdb.Error, match=f"is an NPMI table; {view} needs the folder of a shard set"):
                connection.execute(f"SELECT count(*) FROM {view}").fetchall()


def test_a_set_without_a_table_says_so_and_still_has_its_rows(folder, tmp_path):
    for path in (folder / "arrow").rglob("*"):
        if path.is_file() and path.name != "npmi.parquet":
            (tmp_path / path.relative_to(folder / "arrow")).parent.mkdir(exist_ok=True)
            (tmp_path / path.relative_to(folder / "arrow")).hardlink_to(path)
    with gd.catalog(tmp_path) as connection:
        for query in ("SELECT kmer, rank_levine FROM npmi", "SELECT count(*) FROM npmi", "SELECT npmi_of('AAA')"):
            with pytest.raises(duckdb.Error, match="has no NPMI table"):
                connection.execute(query).fetchall()
        assert connection.execute("SELECT count(*) > 0, count(rank) FROM tokens").fetchone() == (True, 0)


def test_the_files_cannot_be_changed_through_a_view(folder):
    before = (folder / "arrow" / "npmi.parquet").read_bytes()
    with gd.catalog(folder / "arrow") as connection:
        for statement in ("DELETE FROM npmi", "INSERT INTO rows SELECT * FROM rows", "UPDATE npmi SET rank = 1"):
            with pytest.raises(duckdb.Error, match=r"(?i)can only|not an? table"):
                connection.execute(statement)
    assert (folder / "arrow" / "npmi.parquet").read_bytes() == before


def test_what_is_no_set_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="nothing to query"):
        gd.catalog()
    with pytest.raises(FileNotFoundError, match="is not a shard set"):
        gd.catalog(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such"):
        gd.catalog(tmp_path / "absent")
    with pytest.raises(ValueError, match="is not an NPMI table"):
        gd.catalog(folder / "g.fa")
    pq.write_table(pq.read_table(folder / "arrow" / "intervals.parquet"), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="is not an NPMI table"):
        gd.catalog(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="is not a valid schema name"):
        gd.catalog(**{"a-b": folder / "arrow"})
