"""Strategies and their options: own ones, errors, saved states, and batches that no version changes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xxhash

import gemsdata as gd
from gemsdata.genome import vocab
from gemsdata.masking import masker as masking
from gemsdata.masking import registry
from gemsdata.masking.strategies import MASKING_VERSION, resolve
from tests.masking_support import full, random_rows


def test_a_user_adds_a_strategy_in_a_few_lines(dna_rows, monkeypatch):
    """The example of docs/masking.md is run as it stands there."""
    monkeypatch.setattr(registry, "_STRATEGIES", dict(registry._STRATEGIES))  # other tests see the names without it
    text = (Path(__file__).parents[1] / "docs" / "masking.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "register" in block)
    example: dict = {"__name__": "example"}
    exec(code, example)
    rows = dna_rows[:200]
    ids = np.arange(200)
    masker = example["masker"]
    spans = masker.spans(rows, full(rows), ids)
    assert len(spans.lo) > 1000
    row = np.repeat(ids, np.diff(spans.ends))
    inner = (spans.lo > 0) & (spans.hi < 510)
    assert (spans.hi - spans.lo)[inner].min() == (spans.hi - spans.lo)[inner].max() == 7  # tokens over two bases
    starts = rows[row[inner], spans.hi[inner] - 2]
    assert all(vocab.token(int(start), 6).startswith("CG") for start in starts)
    mask = masker.mask(rows, full(rows), ids)
    assert ((masker.batch(rows, full(rows), ids)["labels"] != -100)[:, 1:-1] == mask).all()
    exact = example["exact"].mask(rows, full(rows), ids)
    many = np.array([sum(vocab.token(int(i), 6).startswith("CG") for i in row) >= 5 for row in rows])
    assert many.sum() > 50
    assert (exact[many].sum(1) == round(0.02 * 510)).all()
    assert resolve("cpg", corruption="span") == example["Cpg"](corruption="span")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"masking": "genmask"},
            r"masking 'genmask' is unknown \(did you mean 'genemask'\?\): use a strategy \(random-token, dnabert",
        ),
        ({"ranks": None}, r"masking 'genemask' chooses n-grams by NPMI rank: give ranks="),
        (
            {"ranks": np.zeros(4096)},
            r"ranks of shape \(4096,\) cannot be masked by: give one rank for each of",
        ),
        ({"k": 5}, r"ranks are of n = 6, but k = 5 is given"),
        ({"ranks": np.ones(9)}, r"ranks of 1-mers cannot be masked by: .* such as NpmiTable.ranks\(6\)"),
        ({"masking": gd.GeneMask(n=5)}, r"ranks are of n = 6, but masking 'genemask' has n = 5"),
        (
            {"masking": "dnabert", "ranks": None, "k": 13},
            r"k = 13 is out of range: tokens of 1 to 12 bases",
        ),
        ({"seed": -1}, r"seed = -1 is out of range"),
    ],
)
def test_a_masker_names_what_is_wrong_with_its_options(options, message):
    with pytest.raises(ValueError, match=message):
        masking.Masker(**{"masking": "genemask", "ranks": np.ones(4101, np.uint16), **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, r"rate = 0 is out of range: give the probability of a centre"),
        ({"budget": 15}, r"budget = 15 is out of range: give the fraction to mask, 0 to 1"),
        ({"budget": 0.15, "rate": 0.1}, r"a budget replaces the rate, give one"),
        ({"budget_unit": "base"}, r"budget_unit = 'base' is unknown: use 'token' or 'nucleotide'"),
        ({"corruption": "row"}, r"corruption = 'row' is unknown: use token, span, mask"),
        ({"radius": 3}, r"masking 'genemask' has no option radius"),
    ],
)
def test_a_strategy_names_what_is_wrong_with_its_options(options, message):
    with pytest.raises(ValueError, match=message):
        resolve("genemask", **options)


def test_rows_that_do_not_fit_are_refused():
    rows = random_rows(4, 30)
    with pytest.raises(ValueError, match=r"row 0 has the special id 2 at token 1: give rows without special tokens"):
        gd.mask_rows(np.where(np.arange(30) == 1, 2, rows), full(rows), masking="dnabert")
    with pytest.raises(
        ValueError, match=r"rows of shape \(4, 30\), counts of shape \(3,\).*give \[B, L\], \[B\] and \[B\]"
    ):
        masking.Masker("dnabert").mask(rows, full(rows)[:3], np.arange(4))
    with pytest.raises(ValueError, match=r"are not of k = 3, whose ids end at 68"):
        masking.Masker("dnabert", k=3).mask(rows, full(rows), np.arange(4))
    with pytest.raises(ValueError, match=r"num_tokens has 30\.\.31, outside 0\.\.30 of these rows"):
        masking.Masker("dnabert").mask(rows, np.array([30, 30, 31, 30]), np.arange(4))


def test_a_strategy_describes_itself_for_saved_states():
    assert gd.GeneMask(budget=0.15).describe() == {
        "name": "genemask",
        "rate": None,
        "budget": 0.15,
        "budget_unit": "token",
        "corruption": "token",
        "n": None,
        "masking_version": MASKING_VERSION,
    }
    assert resolve(gd.GeneMask(), corruption="span") == gd.GeneMask(corruption="span")


GOLDEN = {
    "random-token": "cab19b04e690a5ae",
    "dnabert": "5c2a4b20107dcebd",
    "random-span": "965440f2af58b812",
    "genemask": "fc78dc05b67c1c4b",
    "genemask-released": "e645a715b643239f",
    "global": "85cf5b3f6d60c488",
    "global-nms": "5f5efc6a6730aaf6",
    "global-released": "681e01006f476615",
    "randommask": "60c0ae668a331718",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_same_key_gives_the_same_batch_in_every_version(name):
    """When this fails on purpose, raise MASKING_VERSION: saved states no longer continue as they began."""
    rows = random_rows(50, 120, seed=1)
    ranks = np.append(np.full(5, 4096), 1 + np.arange(4096) * 1103 % 4096).astype(np.uint16)
    digest = xxhash.xxh3_64()
    for options in ({}, {"budget": 0.15}, {"budget": 0.1, "budget_unit": "nucleotide"}, {"corruption": "span"}):
        masker = masking.Masker(resolve(name, **options), ranks=ranks, seed=2)
        for column in masker.batch(rows, np.arange(50) * 2 + 21, np.arange(50), epoch=1, stage=1).values():
            digest.update(column.astype("<i4").tobytes())
    assert digest.hexdigest() == GOLDEN[name]
