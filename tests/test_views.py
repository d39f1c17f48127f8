"""Views of packed sets: their rows against the FASTA, their options, and what they refuse."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.genome.vocab import reverse_complement
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.packed import PackedShard
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.write import shard
from tests.genomes import awkward_genome, random_dna, write_fasta
from tests.test_views_tokens import bpe_folder
from tests.view_support import kmer_ids, letters_of, packed_set, text_of


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return packed_set(tmp_path_factory.mktemp("views"), valid_fraction=0.2)


@pytest.fixture(scope="module")
def contigs():
    return awkward_genome()


def all_rows(view, split="train", epoch=0):
    return view.rows(np.arange(view.num_rows(split)), split=split, epoch=epoch)


def check_against_fasta(rows, contigs, k, stride):
    for i in range(len(rows.start)):
        text = text_of(contigs, rows.contig[i], rows.start[i], rows.end[i])
        count = rows.tokens.num_tokens[i]
        assert rows.tokens.input_ids[i, :count].tolist() == kmer_ids(text, k, stride)
        assert not rows.tokens.input_ids[i, count:].any()
        assert letters_of(rows.tokens.bases[i, : rows.tokens.num_bases[i]]) == text


@pytest.mark.parametrize(("tokens", "k", "stride"), [("base", 1, 1), ("kmer:6", 6, 1), ("kmer:3:3", 3, 3)])
@pytest.mark.parametrize("unknown", ["break", "token"])
def test_rows_are_what_the_fasta_says(packed, contigs, tokens, k, stride, unknown):
    view = gd.view(packed, tokens=tokens, row_bases=120, unknown=unknown)
    for split in ("train", "valid"):
        for epoch in (0, 5):
            rows = all_rows(view, split, epoch)
            check_against_fasta(rows, contigs, k, stride)
            assert not rows.lost.any()
            known = rows.tokens.bases < 4
            assert all(known[i, :n].any() for i, n in enumerate(rows.tokens.num_bases))
    assert len(view) == view.num_rows("train") > 0


def test_each_base_is_in_one_row_of_an_epoch_and_one_split(packed, contigs):
    view = gd.view(packed, tokens="base", row_bases=100)
    for epoch in (0, 1):
        seen = [np.zeros(len(sequence), int) for sequence in contigs.values()]
        for split in ("train", "valid"):
            rows = all_rows(view, split, epoch)
            for contig, start, end in zip(rows.contig, rows.start, rows.end, strict=True):
                seen[contig][start:end] += 1
        for flags, sequence in zip(seen, contigs.values(), strict=True):
            assert flags.tolist() == [int(letter in "ACGTacgt") for letter in sequence]


def test_overlapping_kmers_without_jitter_are_the_rows_of_an_arrow_set(tmp_path, packed):
    shard([packed.parent / "genome.fa"], tmp_path / "arrow", ShardOptions(valid_fraction=0.2, min_count=1))
    arrow = ShardSet.open(tmp_path / "arrow")
    view = gd.view(packed, tokens="kmer:6", row_tokens=510, jitter=False)
    for split in ("train", "valid"):
        there = arrow.read(split, np.arange(arrow.num_rows(split)))
        order = np.lexsort((there.start, there.contig))
        rows = all_rows(view, split)
        assert np.array_equal(there.input_ids[order], rows.tokens.input_ids)
        assert np.array_equal(there.num_tokens[order], rows.tokens.num_tokens)
        assert np.array_equal(there.start[order], rows.start)
    assert np.array_equal(view.ranks(), arrow.ranks)
    assert view.shards.manifest.validation == arrow.manifest.validation


def test_epochs_differ_in_train_and_not_in_valid(packed):
    view = gd.view(packed, tokens="base", row_bases=100)
    assert not np.array_equal(all_rows(view, "train", 0).start, all_rows(view, "train", 1).start)
    assert np.array_equal(all_rows(view, "valid", 0).start, all_rows(view, "valid", 1).start)
    fixed = gd.view(packed, tokens="base", row_bases=100, jitter=False)
    assert np.array_equal(all_rows(fixed, "train", 0).start, all_rows(fixed, "train", 1).start)
    other = gd.view(packed, tokens="base", row_bases=100, seed=1)
    assert not np.array_equal(all_rows(view, "train", 0).start, all_rows(other, "train", 0).start)


def test_the_other_strand_of_rows(packed, contigs, tmp_path):
    for tokens in ("base", "kmer:3:3", str(bpe_folder(tmp_path / "bpe"))):
        view = gd.view(packed, tokens=tokens, row_bases=90)
        ids = np.arange(view.num_rows())
        forward = view.reader("train").rows(0, ids)
        turned = view.reader("train").rows(0, ids, np.ones(len(ids), np.uint8))
        for i in range(len(ids)):
            text = text_of(contigs, turned.contig[i], turned.start[i], turned.end[i])
            bases = turned.tokens.bases[i, : turned.tokens.num_bases[i]]
            assert letters_of(bases) == reverse_complement(text)
        if tokens in ("base", "kmer:3:3"):
            assert np.array_equal(forward.start, turned.start)
            assert np.array_equal(forward.end, turned.end)


def test_rows_of_a_hugging_face_tokenizer(packed, contigs, tmp_path):
    from transformers import AutoTokenizer

    folder = bpe_folder(tmp_path / "bpe")
    view = gd.view(packed, tokens=folder, row_bases=150, unknown="token")
    plain = AutoTokenizer.from_pretrained(folder)
    rows = all_rows(view)
    assert rows.tokens.input_ids.shape[1] == view.row_tokens == 50
    for i in range(len(rows.start)):
        text = text_of(contigs, rows.contig[i], rows.start[i], rows.end[i])
        count = rows.tokens.num_tokens[i]
        ids = plain(text, add_special_tokens=False)["input_ids"]
        if rows.tokens.num_bases[i] == 150 or count < view.row_tokens:
            assert rows.tokens.input_ids[i, :count].tolist() == ids
        assert rows.tokens.token_start[i, count] == rows.end[i] - rows.start[i]


def test_rows_lie_in_the_regions_and_outside_what_is_excluded(packed, contigs, tmp_path):
    (tmp_path / "r.bed").write_text("NC_000001.11\t100\t300\nNC_000001.11\t700\t760\nlast\t5\t900\n")
    (tmp_path / "x.bed").write_text("NC_000001.11\t150\t200\nlast\t0\t100\n")
    view = gd.view(
        packed, tokens="base", row_bases=64, regions=tmp_path / "r.bed", flank=20, exclude=tmp_path / "x.bed"
    )
    seen = {name: np.zeros(len(sequence), int) for name, sequence in contigs.items()}
    for split in ("train", "valid"):
        rows = all_rows(view, split, 3)
        for contig, start, end in zip(rows.contig, rows.start, rows.end, strict=True):
            seen[view.shards.contig_names[contig]][start:end] += 1
    wanted = {name: np.zeros(len(sequence), int) for name, sequence in contigs.items()}
    wanted["NC_000001.11"][80:320] = 1
    wanted["NC_000001.11"][680:780] = 1
    wanted["last"][0:920] = 1
    wanted["NC_000001.11"][150:200] = 0
    wanted["last"][0:100] = 0
    assert all(np.array_equal(seen[name], wanted[name]) for name in contigs)


def test_weights_and_eligibility_of_soft_masked_bases(packed, contigs):
    view = gd.view(
        packed, tokens="kmer:3:3", row_bases=90, loss_weight_soft_masked=0.25, mask_soft_masked=False, unknown="token"
    )
    rows = all_rows(view)
    assert not rows.lost.any()
    for i in range(len(rows.start)):
        sequence = list(contigs.values())[rows.contig[i]][rows.start[i] : rows.end[i]]
        soft = np.array([letter.islower() for letter in sequence])
        assert rows.tokens.maskable[i, : len(soft)].tolist() == (~soft).tolist()
        weights = np.where(soft, 0.25, 1).reshape(-1, 3).mean(axis=1)
        count = rows.tokens.num_tokens[i]
        assert rows.loss_weights[i, :count] == pytest.approx(weights)
        assert not rows.loss_weights[i, count:].any()
        known = [letter.upper() in "ACGT" for letter in sequence]
        assert (~soft & known).any()  # a row without a base that may be hidden gives its place to another
    turned = view.reader("train").rows(0, np.arange(len(view)), np.ones(len(view), np.uint8))
    count = rows.tokens.num_tokens
    for i in range(len(view)):
        assert turned.loss_weights[i, : count[i]].tolist() == rows.loss_weights[i, : count[i]][::-1].tolist()


def test_weights_of_a_bigwig(packed, contigs, tmp_path):
    bigwig = pytest.importorskip("pyBigWig")
    path = tmp_path / "track.bw"
    random = np.random.default_rng(0)
    lengths = {name: len(sequence) for name, sequence in contigs.items() if sequence}
    values = {name: random.random(length).astype(np.float32) for name, length in lengths.items()}
    with_values = bigwig.open(str(path), "w")
    with_values.addHeader(list(lengths.items()))
    for name in lengths:
        with_values.addEntries(name, 0, values=values[name][: lengths[name] - 2].tolist(), span=1, step=1)
    with_values.close()
    view = gd.view(packed, tokens="base", row_bases=100, track=path)
    rows = all_rows(view)
    for i in range(len(rows.start)):
        wanted = values[view.shards.contig_names[rows.contig[i]]].copy()
        wanted[-2:] = 0
        count = rows.tokens.num_tokens[i]
        assert rows.loss_weights[i, :count] == pytest.approx(wanted[rows.start[i] : rows.end[i]])
    other = bigwig.open(str(tmp_path / "other.bw"), "w")
    other.addHeader([("chr1", 1000)])
    other.addEntries("chr1", 0, values=[1.0], span=1, step=1)
    other.close()
    with pytest.raises(
        ValueError, match=r"other\.bw is of another genome: contig NC_000001\.11 of the set it does not"
    ):
        gd.view(packed, tokens="base", row_bases=100, track=tmp_path / "other.bw")
    (tmp_path / "none.bw").write_text("x" * 100)
    with pytest.raises(ValueError, match="is not a bigWig file"):
        gd.view(packed, tokens="base", row_bases=100, track=tmp_path / "none.bw")


def test_a_view_says_what_it_is(packed):
    view = gd.view(packed, tokens="kmer:6:6", row_bases=60, unknown="token")
    text = repr(view)
    assert text.count("\n") == 1
    assert "as kmer:6:6" in text
    assert "unknown = token" in text
    assert (view.row_tokens, view.row_bases) == (10, 60)
    again = pickle.loads(pickle.dumps(view))
    assert again.fingerprint == view.fingerprint
    assert np.array_equal(all_rows(again).tokens.input_ids, all_rows(view).tokens.input_ids)
    others = [
        gd.view(packed, tokens="kmer:6:3", row_bases=60, unknown="token"),
        gd.view(packed, tokens="kmer:6:6", row_bases=66, unknown="token"),
        gd.view(packed, tokens="kmer:6:6", row_bases=60),
        gd.view(packed, tokens="kmer:6:6", row_bases=60, unknown="token", jitter=False),
        gd.view(packed, tokens="kmer:6:6", row_bases=60, unknown="token", seed=1),
    ]
    assert len({view.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_ambiguity_letters_are_kept(packed, contigs):
    import duckdb

    found = duckdb.connect().execute(
        f"SELECT contig, start, \"end\", letter FROM '{packed}/intervals.parquet' WHERE kind = 'gap'"
    )
    letters = [dict.fromkeys(range(0), "") for _ in contigs]
    for contig, start, end, letter in found.fetchall():
        letters[contig] |= dict.fromkeys(range(start, end), letter)
    for index, sequence in enumerate(contigs.values()):
        wanted = {i: letter.upper() for i, letter in enumerate(sequence) if letter not in "ACGTacgt"}
        assert letters[index] == wanted


def test_bytes_are_the_same_for_any_workers_and_a_resumed_run(tmp_path, packed):
    options = ShardOptions(format="packed", min_count=1, valid_fraction=0.2, block_rows=1024)
    shard([packed.parent / "genome.fa"], tmp_path / "other", options, workers=3)
    for path in sorted(packed.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "other" / path.relative_to(packed)).read_bytes(), path
    manifest, _ = shard([packed.parent / "genome.fa"], tmp_path / "other", options, resume=True)
    assert manifest.fingerprint == ShardSet.open(packed).manifest.fingerprint


@pytest.mark.compiled
def test_a_packed_genome_takes_a_quarter_of_a_byte_a_base(tmp_path):
    folder = packed_set(tmp_path, {"chr1": random_dna(750_000, 1), "chr2": random_dna(250_000, 2)}, valid_fraction=0)
    size = sum(path.stat().st_size for path in folder.rglob("*.arrow"))
    assert size + (folder / "intervals.parquet").stat().st_size < 0.275 * 1_000_000


def test_a_damaged_shard(packed, tmp_path):
    import shutil

    folder = tmp_path / "set"
    shutil.copytree(packed, folder)
    whole = gd.view(packed, tokens="base", row_bases=100)
    path = folder / "train" / "000000.arrow"
    path.write_bytes(path.read_bytes()[:-20])
    view = gd.view(folder, tokens="base", row_bases=100)
    with pytest.raises(ValueError, match="it is truncated or"):
        all_rows(view)
    counting = view.reader("train", faults="skip-and-count").rows(0, np.arange(len(view)))
    assert counting.lost.any()
    assert "it is truncated" in counting.why_lost
    same = ~counting.lost
    assert np.array_equal(counting.tokens.input_ids[same], all_rows(whole).tokens.input_ids[same])
    assert not counting.tokens.num_tokens[counting.lost].any()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is missing; restore it"):
        all_rows(gd.view(folder, tokens="base", row_bases=100))
    assert PackedShard(packed / "train" / "000000.arrow").block_bases == whole.shards.row_tokens


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "base", "row_bases": 100_000}, "row_bases = 100,000 is longer than any stretch"),
        ({"tokens": "kmer:6", "row_bases": 5}, "row_bases = 5 is shorter than one token of 'kmer:6'; give 6 or more"),
        ({"tokens": "kmer:6", "row_bases": 60, "row_tokens": 60}, "contradict each other: 60 bases are 55 tokens"),
        ({"tokens": "base", "row_tokens": 0}, "row_tokens = 0; give a number from 1"),
        ({"flank": 5}, "flank = 5 without regions; give regions, a BED file"),
        ({"unknown": "skip"}, "unknown = 'skip'; give one of break, token"),
        ({"loss_weight_soft_masked": 2}, "give a weight, 0 to 1"),
        ({"loss_weight_soft_masked": 0.5, "track": "x.bw"}, "both give the weights of the loss; give one of the two"),
    ],
)
def test_options_that_cannot_be(packed, options, message):
    with pytest.raises(ValueError, match=message):
        gd.view(packed, **options)


def test_sets_and_regions_that_leave_nothing(packed, tmp_path):
    (tmp_path / "r.bed").write_text("NC_000001.11\t0\t3000\n")
    with pytest.raises(ValueError, match=r"r\.bed leaves no training row"):
        gd.view(packed, tokens="base", row_tokens=50, regions=tmp_path / "r.bed", exclude=tmp_path / "r.bed")
    (tmp_path / "gap.bed").write_text("NC_000001.11\t0\t300\nNC_000001.11\t3010\t3020\n")
    with pytest.raises(ValueError, match=r"gap\.bed:2: region NC_000001\.11:3010-3020 leaves no row"):
        gd.view(packed, tokens="base", row_tokens=50, regions=tmp_path / "gap.bed")
    fasta = write_fasta(tmp_path / "g.fa", {"a": random_dna(5000, 1)})
    shard([fasta], tmp_path / "arrow", ShardOptions())
    with pytest.raises(ValueError, match="stores rows of 510 tokens 'kmer:6'; a set made with --format packed"):
        gd.view(tmp_path / "arrow", tokens="base")
    with pytest.raises(ValueError, match=r"holds packed bases: say which tokens .* with gemsdata\.view"):
        next(iter(gd.build_loader(packed, batch_size=4)))
    with pytest.raises(IndexError, match=r"rows 0\.\.999999 of split 'train'"):
        gd.view(packed).rows(np.array([0, 999_999]))
    with pytest.raises(ValueError, match="split 'test' is unknown"):
        gd.view(packed).num_rows("test")
    for option in ({"row_tokens": 100}, {"scheme": "dnabert"}, {"compression": "zstd"}, {"rank_column": True}):
        with pytest.raises(ValueError, match="does not apply to --format packed, which holds bases"):
            ShardOptions(format="packed", **option)
