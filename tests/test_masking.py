"""What the strategies promise: rates, exact budgets, content-awareness, no bias, labels, corruption, clear errors."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.genome import vocab
from gemsdata.masking import masker as masking
from gemsdata.masking.registry import names
from gemsdata.masking.strategies import resolve
from tests.conftest import tokens_of
from tests.masking_support import full, hidden, random_rows
from tests.naive_masking import hidden_bases

# Masked tokens and hidden nucleotides in per cent: the table of docs/masking.md
RATES = {
    "random-token": (15.0, 0.1),
    "dnabert": (14.0, 3.4),
    "random-span": (14.0, 8.2),
    "genemask": (14.0, 6.6),
    "genemask-released": (15.6, 8.0),
    "global": (11.7, 7.0),
    "global-nms": (14.9, 8.5),
}


@pytest.mark.compiled
@pytest.mark.parametrize("name", RATES)
def test_rates_on_human_dna_are_the_published_ones(name, human_rows, published_ranks):
    mask = gd.mask_rows(human_rows, full(human_rows), published_ranks, masking=name)
    assert 100 * mask.mean() == pytest.approx(RATES[name][0], abs=0.5)
    assert 100 * hidden(mask).mean() == pytest.approx(RATES[name][1], abs=0.5)


@pytest.mark.compiled
@pytest.mark.parametrize("name", names())
def test_a_budget_in_tokens_is_met_in_every_row(name, dna_rows, dna_ranks):
    num_tokens = np.random.default_rng(0).integers(0, 511, len(dna_rows))
    num_tokens[::2] = 510
    mask = gd.mask_rows(dna_rows, num_tokens, dna_ranks, masking=resolve(name, budget=0.15), sample_ids=num_tokens)
    assert mask.sum(1).tolist() == [round(0.15 * tokens) for tokens in num_tokens.tolist()]


@pytest.mark.compiled
@pytest.mark.parametrize("name", names())
def test_a_budget_in_nucleotides_is_met_in_every_row(name, dna_rows, dna_ranks):
    rows = dna_rows[::4]
    strategy = resolve(name, budget=0.08, budget_unit="nucleotide")
    mask = gd.mask_rows(rows, full(rows), dna_ranks, masking=strategy)
    assert (hidden(mask).sum(1) == round(0.08 * 515)).all()


@pytest.mark.parametrize("k", range(3, 9))
def test_narrow_spans_hide_one_base_and_wide_ones_a_kmer(k):
    rows = random_rows(40, 60, k)
    spans = masking.Masker("dnabert", k=k).spans(rows, full(rows), np.arange(40))
    inner = (spans.lo > 0) & (spans.hi < 60)
    assert inner.any()
    for lo, hi, anchor in zip(spans.lo[inner], spans.hi[inner], spans.anchor[inner], strict=True):
        assert hidden_bases(set(range(lo, hi)), 60, k) == {anchor + k // 2}
    ranks = np.arange(4**k + 5, dtype=np.uint32)
    spans = masking.Masker("global", ranks=ranks).spans(rows, full(rows), np.arange(40))
    inner = (spans.lo > 0) & (spans.hi < 60)
    assert spans.wide.all()
    for lo, hi, anchor in zip(spans.lo[inner], spans.hi[inner], spans.anchor[inner], strict=True):
        assert hidden_bases(set(range(lo, hi)), 60, k) == set(range(anchor, anchor + k))


@pytest.mark.parametrize("name", names())
def test_masks_depend_on_the_sequence_exactly_for_the_strategies_that_rank_it(name, dna_rows, dna_ranks):
    rows, others = dna_rows[:20], dna_rows[20:40]
    masker = masking.Masker(name, ranks=dna_ranks, seed=3)
    keys = np.arange(20)
    same = (masker.mask(rows, full(rows), keys) == masker.mask(others, full(others), keys)).all(1)
    if masker.strategy.uses_ranks and not name.endswith("-released"):
        assert not same.any()
    else:
        assert same.all()


@pytest.fixture(scope="module")
def enhancers(data_dir):
    """Cohn-enh sequences of 500 bases as rows of 495 tokens."""
    with open(data_dir / "fewshot" / "Cohn-enh" / "test_standin" / "test.tsv") as lines:
        rows = [tokens_of(row["seq"].encode()) for row in csv.DictReader(lines, delimiter="\t")]
    return np.array([row for row in rows if len(row) == 495 and row.min() > 0], np.uint16)


def mean_rank_of_chosen(name, rows, ranks):
    spans = masking.Masker(name, ranks=ranks).spans(rows, full(rows), np.arange(len(rows)))
    row = np.repeat(np.arange(len(rows)), np.diff(spans.ends))
    return ranks[rows[row, spans.anchor]][spans.wide].mean()


@pytest.mark.compiled
def test_chosen_centres_rank_high_in_genemask_and_at_random_in_the_released_script(enhancers, published_ranks):
    assert len(enhancers) > 5000
    assert mean_rank_of_chosen("genemask", enhancers, published_ranks) == pytest.approx(174, abs=8)
    assert published_ranks[enhancers].mean() == pytest.approx(1354, abs=15)
    assert mean_rank_of_chosen("genemask-released", enhancers, published_ranks) == pytest.approx(1354, abs=60)


def test_global_released_picks_the_published_positions_in_every_row(human_rows, published_ranks):
    spans = masking.Masker("global-released", ranks=published_ranks).spans(
        human_rows[:200], full(human_rows[:200]), np.arange(200)
    )
    published = [5, 9, 278, 6, 346, 197, 345, 69, 34, 482]  # counted from [CLS], best first
    for i in range(200):
        chosen = [anchor + 1 for _, _, anchor, _ in spans.row(i)]
        assert chosen[:10] == published[: len(chosen)]


def test_genemask_released_gives_small_sets_of_centres_only_wide_spans(dna_rows, dna_ranks):
    rows = dna_rows[:100]
    released = masking.Masker("genemask-released", ranks=dna_ranks).spans(rows, full(rows), np.arange(100))
    paper = masking.Masker("genemask", ranks=dna_ranks).spans(rows, full(rows), np.arange(100))
    for i in range(100):
        wide = [span[3] for span in released.row(i)]
        assert sum(wide) == (len(wide) if len(wide) <= 8 else -(-len(wide) // 2))
        wide = [span[3] for span in paper.row(i)]
        assert sum(wide) == -(-len(wide) // 2)


def test_global_nms_never_overlaps_and_takes_the_best_first(dna_rows, dna_ranks):
    rows = dna_rows[:100]
    spans = masking.Masker("global-nms", ranks=dna_ranks).spans(rows, full(rows), np.arange(100))
    for i in range(100):
        anchors = [anchor for _, _, anchor, _ in spans.row(i)]
        assert (np.diff(sorted(anchors)) > 10).all()
        ranks = dna_ranks[rows[i, anchors]]
        assert (np.diff(ranks.astype(int)) >= 0).all()


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["genemask", "global", "global-nms"])
@pytest.mark.parametrize("kind", ["repeat", "no scores"])
def test_equal_ranks_show_no_bias_to_one_side(name, kind):
    """Over 8192 rows of 100 tokens the mean masked position has a standard error of about 0.1."""
    rows = np.full((8192, 100), 5, np.uint16) if kind == "repeat" else random_rows(8192, 100)
    ranks = np.full(4101, 4096, np.uint16)
    mask = gd.mask_rows(rows, full(rows), ranks, masking=name)
    mean_pos = (mask * np.arange(100)).sum() / mask.sum()
    assert mean_pos == pytest.approx(49.5, abs=0.5)
    spans = masking.Masker(name, ranks=ranks).spans(rows, full(rows), np.arange(len(rows)))
    assert spans.anchor[spans.wide].mean() == pytest.approx(49.5, abs=0.6)


@pytest.mark.parametrize("goal", [{}, {"budget": 0.15}, {"budget": 0.15, "budget_unit": "nucleotide"}])
@pytest.mark.parametrize("name", names())
def test_specials_are_never_masked_and_labels_are_the_originals(name, goal, dna_ranks):
    rows = random_rows(60, 50)
    num_tokens = np.arange(60) % 51
    rows[np.arange(50) >= num_tokens[:, None]] = 0
    masker = masking.Masker(resolve(name, **goal), ranks=dna_ranks)
    batch = masker.batch(rows, num_tokens, np.arange(60))
    mask = masker.mask(rows, num_tokens, np.arange(60))
    assert not mask[np.arange(50) >= num_tokens[:, None]].any()
    original = np.zeros((60, 52), np.uint16)
    original[:, 1:-1] = rows
    original[:, 0] = 2
    original[np.arange(60), num_tokens + 1] = 3
    masked = np.pad(mask, ((0, 0), (1, 1)))
    assert (batch["labels"] == np.where(masked, original.astype(int), -100)).all()
    assert (batch["input_ids"][~masked] == original[~masked]).all()
    assert (batch["attention_mask"] == (np.arange(52) < num_tokens[:, None] + 2)).all()
    assert [batch[name].dtype for name in ("input_ids", "labels", "attention_mask")] == [np.uint16, np.int16, np.uint8]


def test_the_special_ids_are_the_places_of_their_names():
    ids = [vocab.PAD_ID, vocab.UNK_ID, vocab.CLS_ID, vocab.SEP_ID, vocab.MASK_ID]
    assert dict(zip(vocab.SPECIAL_TOKENS, ids, strict=True)) == {
        name: i for i, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    }
    assert len(vocab.SPECIAL_TOKENS) == vocab.NUM_SPECIAL


def test_k_of_eight_uses_wider_types():
    rows = random_rows(4, 30, 8)
    batch = masking.Masker("dnabert", k=8).batch(rows, full(rows), np.arange(4))
    assert [batch[name].dtype for name in ("input_ids", "labels", "attention_mask")] == [np.uint32, np.int32, np.uint8]
    masked = batch["labels"] != -100
    assert (batch["labels"][masked] == np.pad(rows, ((0, 0), (1, 1)))[masked]).all()


@pytest.mark.compiled
@pytest.mark.parametrize("corruption", ["token", "span"])
@pytest.mark.parametrize("name", ["genemask", "genemask-released"])
def test_of_the_masked_tokens_80_per_cent_are_hidden_10_random_10_kept(name, corruption, dna_rows, dna_ranks):
    masker = masking.Masker(resolve(name, corruption=corruption), ranks=dna_ranks)
    rows = np.tile(dna_rows, (4, 1))
    batch = masker.batch(rows, full(rows), np.arange(len(rows)))
    masked = batch["labels"] != -100
    seen, original = batch["input_ids"][masked].astype(int), batch["labels"][masked]
    random = (seen != 4) & (seen != original)
    assert (seen == 4).mean() == pytest.approx(0.8, abs=0.01)
    assert (seen == original).mean() == pytest.approx(0.1, abs=0.01)
    assert random.mean() == pytest.approx(0.1, abs=0.01)
    assert (seen[random] < 5).any() == (name == "genemask-released")
    counts = np.bincount((seen[random] - 5).clip(0) // 64, minlength=64)
    assert counts.max() < 1.35 * counts.mean()
    assert counts.min() > 0.65 * counts.mean()


def test_spanwise_corruption_treats_each_run_alike_and_moves_no_mask(dna_rows, dna_ranks):
    rows = dna_rows[:64]
    by_token, by_span = (
        masking.Masker(resolve("genemask", corruption=corruption), ranks=dna_ranks) for corruption in ("token", "span")
    )
    one, other = (masker.batch(rows, full(rows), np.arange(64)) for masker in (by_token, by_span))
    assert (one["labels"] == other["labels"]).all()
    outcomes = []
    for seen, labels in zip(other["input_ids"].astype(int), other["labels"], strict=True):
        runs = np.split(np.flatnonzero(labels != -100), np.flatnonzero(np.diff(np.flatnonzero(labels != -100)) > 1) + 1)
        for run in runs:
            same = seen[run] == labels[run]
            kinds = set(np.where(seen[run] == 4, "mask", np.where(same, "kept", "random")).tolist())
            assert len(kinds) <= 1 or kinds == {"kept", "random"}  # a random k-mer may be the original one
            outcomes += ["random"] if "random" in kinds else kinds
    assert {"mask", "kept", "random"} == set(outcomes)


def test_mask_only_corruption_hides_the_tokens_that_others_keep_or_replace(dna_rows, dna_ranks):
    rows = dna_rows[:64]
    by_token, mask_only = (
        masking.Masker(resolve("genemask", corruption=corruption), ranks=dna_ranks) for corruption in ("token", "mask")
    )
    one, other = (masker.batch(rows, full(rows), np.arange(64)) for masker in (by_token, mask_only))
    assert (one["labels"] == other["labels"]).all()
    masked = other["labels"] != -100
    assert set(other["input_ids"][masked].tolist()) == {4}
    assert (other["input_ids"][~masked] == one["input_ids"][~masked]).all()


@pytest.mark.parametrize("name", names())
def test_a_rows_mask_follows_from_its_key_not_from_its_batch(name, dna_rows, dna_ranks):
    rows = dna_rows[:12]
    masker = masking.Masker(name, ranks=dna_ranks, seed=5)
    ids = np.arange(12) * 77
    together = masker.batch(rows, full(rows), ids, epoch=2)
    for i in (11, 0, 5):
        alone = masker.batch(rows[i : i + 1], full(rows[i : i + 1]), ids[i : i + 1], epoch=2)
        for column, values in alone.items():
            assert (values[0] == together[column][i]).all()
    if name == "global-released":
        return
    for other in (
        masker.mask(rows, full(rows), ids, epoch=3),
        masker.mask(rows, full(rows), ids, epoch=2, stage=1),
        masker.mask(rows, full(rows), ids + 1, epoch=2),
        masking.Masker(name, ranks=dna_ranks, seed=6).mask(rows, full(rows), ids, epoch=2),
    ):
        assert (other != masker.mask(rows, full(rows), ids, epoch=2)).any(1).sum() >= 8


def test_a_batch_can_be_written_into_buffers(dna_rows, dna_ranks):
    rows = dna_rows[:4]
    masker = masking.Masker("genemask", ranks=dna_ranks)
    out = masker.empty_batch(4, 510)
    batch = masker.batch(rows, full(rows), np.arange(4), out=out)
    fresh = masker.batch(rows, full(rows), np.arange(4))
    for name, column in batch.items():
        assert column is out[name]
        assert (column == fresh[name]).all()


@pytest.mark.compiled
@pytest.mark.parametrize("rate", [1e-4, 0.0136, 0.15, 0.9, 1.0])
def test_centres_are_chosen_independently_with_the_rate(rate):
    rows = random_rows(4000, 200)
    mask = gd.mask_rows(rows, full(rows), masking=gd.RandomToken(rate=rate), k=6)
    error = 4 * np.sqrt(rate * (1 - rate) / mask.size)
    assert mask.mean() == pytest.approx(rate, abs=error + 1e-12)
    pairs = (mask[:, 1:] & mask[:, :-1]).mean()
    assert pairs == pytest.approx(rate**2, abs=6 * error * max(rate, 0.01) + 1e-12)
    assert mask.mean(0).std() == pytest.approx(np.sqrt(rate * (1 - rate) / 4000), rel=0.3, abs=1e-12)


def test_randommask_grows_with_the_stage():
    rows = random_rows(200, 200)
    masker = masking.Masker(gd.RandomMask(), k=6)
    longest = []
    for stage in (0, 1, 6, 9):
        spans = masker.spans(rows, full(rows), np.arange(200), stage=stage)
        inner = (spans.lo > 0) & (spans.hi < 200)
        longest.append((spans.hi - spans.lo)[inner].max())
    assert longest == [6, 8, 18, 18]
