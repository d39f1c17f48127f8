"""Rows of tokens and vocabularies at the limits of what they may hold."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import gemsdata as gd
from gemsdata.masking import masker as masking
from gemsdata.masking.selection import bases_of_kmers, corruption_rule
from gemsdata.masking.strategies import resolve
from gemsdata.masking.token_rows import (
    Vocabulary,
    check_tokens,
    covered_bases,
    hidden_bases,
    layout_of,
    simple_layout,
)
from tests.masking_support import rows_of

SIZE = 69
ROW_IDS = np.array([7, 8, 9])
pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("changes", "whole"),
    [
        ({}, True),
        ({"num_bases": np.array([12, 5, 0])}, False),  # the last token of row 1 is shorter
        ({"token_bases": 2}, False),
        ({"token_stride": 2, "num_tokens": np.array([5, 2, 0])}, False),
        ({"token_start": np.tile(np.arange(11, dtype=np.int32), (3, 1))}, False),
    ],
)
def test_tokens_are_the_ngrams_where_each_covers_n_bases_one_on_from_the_last(
    changes: dict[str, Any], whole: bool
) -> None:
    rows = dataclasses.replace(rows_of([10, 4, 0], [12, 6, 0]), **changes)
    masker = masking.Masker(gd.Dnabert(n=3), vocabulary=Vocabulary(size=SIZE))
    assert masker._tokens(rows, ROW_IDS, 0, 0).grams_are_tokens == whole


def test_the_last_token_of_a_row_ends_where_the_model_sees_no_more() -> None:
    assert covered_bases(rows_of([10, 4, 0], [15, 6, 4])).tolist() == [12, 6, 0]
    assert covered_bases(rows_of([10, 4, 0], [11, 5, 0])).tolist() == [11, 5, 0]
    assert covered_bases(rows_of([3, 1, 0], [15, 9, 4], token_stride=4)).tolist() == [11, 3, 0]
    starts = np.array([[0, 2, 7, 9], [1, 4, 5, 6], [3, 4, 5, 6]], np.int32)
    assert covered_bases(rows_of([3, 1, 0], [12, 9, 4], token_start=starts)).tolist() == [9, 4, 0]


STARTS = np.array([[0, 1, 2, 3], [2, 4, 5, 6]], np.int32)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_bases": np.array([3, 2])},
        {"num_tokens": np.array([0, 0]), "num_bases": np.array([0, 0])},
        {"token_stride": 2, "num_bases": np.array([5, 3])},
        {"maskable": np.zeros((2, 6), bool)},
        {"token_start": STARTS, "num_bases": np.array([3, 6])},
        {"token_start": np.array([[0, 1, 2, 3], [2, 4, 0, 0]]), "num_tokens": np.array([3, 1])},
        {"token_start": np.array([[0, 1, 2, 3], [2, -4, 0, 0]]), "num_tokens": np.array([3, 0])},
    ],
)
def test_tokens_that_lie_over_their_bases_are_taken(changes: dict[str, Any]) -> None:
    check_tokens(dataclasses.replace(rows_of([3, 2], [6, 6]), **changes))


def test_no_rows_of_no_tokens_are_taken() -> None:
    none, ids = np.empty(0, np.int64), np.empty((0, 0), np.uint16)
    starts = np.empty((0, 1), np.int32)
    rows = rows_of([3], [6])
    changes: dict[str, Any] = {"input_ids": ids, "bases": rows.bases[:0], "num_tokens": none, "num_bases": none}
    check_tokens(dataclasses.replace(rows, **changes))
    check_tokens(dataclasses.replace(rows, **changes, token_start=starts))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_bases": np.array([2, 6])}, "row 0 has 3 tokens over 2 bases"),
        ({"num_tokens": np.array([3, 1]), "num_bases": np.array([6, 0])}, "row 1 has 1 tokens over 0 bases"),
        ({"num_bases": np.array([6, 1])}, "row 1 has 2 tokens over 1 bases"),
        ({"num_bases": np.array([4, 6]), "token_stride": 2}, "row 0 has 3 tokens over 4 bases"),
        ({"token_bases": 0}, "token_bases = 0, token_stride = 1: give 1 or more"),
        ({"token_stride": 0}, "token_bases = 3, token_stride = 0: give 1 or more"),
        ({"maskable": np.zeros((2, 5), bool)}, r"maskable of shape \(2, 5\)"),
        ({"token_start": STARTS[:, :3]}, r"token_start of shape \(2, 3\): give \(2, 4\)"),
        ({"token_start": np.array([[-1, 1, 2, 3], [2, 4, 5, 6]])}, "token_start must rise from 0"),
        ({"token_start": np.array([[0, 1, 1, 3], [2, 4, 5, 6]])}, "token_start must rise from 0"),
        ({"token_start": STARTS, "num_bases": np.array([2, 6])}, "token_start must rise from 0"),
        ({"token_start": STARTS, "num_bases": np.array([3, 4])}, "token_start must rise from 0"),
    ],
)
def test_tokens_that_do_not_lie_over_their_bases_are_refused(changes: dict[str, Any], message: str) -> None:
    rows = rows_of([3, 2], [6, 6])
    with pytest.raises(ValueError, match=message):
        check_tokens(dataclasses.replace(rows, **changes))


@pytest.mark.parametrize("starts", [None, np.array([[0, 2, 3, 6], [0, 1, 4, 5]], np.int32)])
def test_a_layout_is_restricted_exactly_where_a_row_has_a_base_that_may_not_be_hidden(starts: Any) -> None:
    def restricted(**changes: Any) -> bool:
        layout = layout_of(rows_of([3, 3], [6, 5], token_start=starts, **changes))
        assert layout.varies == (starts is not None)
        if starts is not None:
            assert (layout.marks[:, 0, :4] == starts).all()
        return layout.restricted

    bases = rows_of([3, 3], [6, 5]).bases
    may = np.ones((2, 6), bool)
    assert not restricted()
    assert not restricted(maskable=may)
    assert restricted(maskable=may & (np.arange(6) != 4))
    assert restricted(bases=np.where(np.arange(6) == 4, 4, bases))
    beyond = (np.arange(6) == 5) & np.array([[False], [True]])  # of row 1, which has five bases
    assert not restricted(bases=np.where(beyond, 4, bases))
    assert not restricted(maskable=~beyond)
    assert simple_layout(3, 2)[:4] == (3, 2, False, False)


def test_a_budget_is_a_fraction_of_the_tokens_that_hold_no_unknown_letter() -> None:
    rows = rows_of([10, 4, 0], [12, 6, 0])
    rows = dataclasses.replace(rows, bases=np.where(np.arange(12) == 5, 4, rows.bases))
    for budget, expected in ((1.0, [7, 3, 0]), (0.5, [4, 2, 0]), (0.0, [0, 0, 0])):
        masker = masking.Masker(gd.Dnabert(budget=budget), k=3)
        assert masker.targets_of(rows).tolist() == expected
        assert masker.mask_of(rows, ROW_IDS).sum(axis=1).tolist() == expected
    assert masking.Masker("dnabert", k=3).targets_of(rows).size == 0


@pytest.mark.parametrize("k", [1, 12])
def test_the_shortest_and_the_longest_kmers_are_taken(k: int) -> None:
    masker = masking.Masker("dnabert", k=k)
    assert (masker.k, masker.vocabulary.size) == (k, 4**k + 5)
    for wrong in (0, 13):
        with pytest.raises(ValueError, match=f"k = {wrong} is out of range"):
            masking.Masker("dnabert", k=wrong)


def test_the_bases_of_kmers_are_those_that_the_kmers_were_made_from() -> None:
    rows = rows_of([10, 10, 10], [12, 12, 12])
    assert bases_of_kmers(rows.input_ids, rows.num_tokens, 3).tolist() == rows.bases.tolist()


def test_bases_are_hidden_where_no_unmasked_token_shows_them() -> None:
    rows = rows_of([4, 4], [6, 6])
    masked = np.array([[True, True, False, False], [False, False, False, True]])
    expected = [[0, 1], [5]]
    assert [np.flatnonzero(row).tolist() for row in hidden_bases(rows, masked)] == expected


@pytest.mark.parametrize(
    "options",
    [
        {"size": 9, "num_random_ids": 4},
        {"size": 9, "num_random_ids": 1},
        {"size": 9, "first_random_id": 0},
        {"size": 9, "first_random_id": 8},
        {"size": 9, "random_ids": np.array([0])},
        {"size": 9, "random_ids": np.array([8, 3])},
        {"size": 6, "pad_id": 5, "unk_id": 0},
        {"size": 5, "random_ids": np.array([1])},
    ],
)
def test_a_vocabulary_of_the_least_size_is_taken(options: dict[str, Any]) -> None:
    vocabulary = Vocabulary(**options)
    rule = corruption_rule(resolve("dnabert"), vocabulary)
    listed = options.get("random_ids")
    first = options.get("first_random_id", 5)
    number = len(listed) if listed is not None else options.get("num_random_ids", options["size"] - first)
    assert rule[:4] == (False, False, first, number)
    assert rule[4].tolist() == ([] if listed is None else listed.tolist())
    assert rule[5:] == (vocabulary.pad_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id)
    rule = corruption_rule(resolve("global-released", corruption="span"), vocabulary)
    assert (*rule[:4], len(rule[4])) == (True, False, 0, options["size"], 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 9, "num_random_ids": 5}, r"real tokens 5\.\.9 are not ids of a vocabulary of 9 tokens"),
        ({"size": 9, "num_random_ids": -1}, r"real tokens 5\.\.3 are not ids"),
        ({"size": 9, "first_random_id": 9}, r"real tokens 9\.\.8 are not ids"),
        ({"size": 9, "first_random_id": -1, "num_random_ids": 3}, r"real tokens -1\.\.1 are not ids"),
        ({"size": 9, "random_ids": np.array([-1, 3])}, "random_ids must be a list of ids below 9"),
        ({"size": 9, "random_ids": np.array([3, 9])}, "random_ids must be a list of ids below 9"),
        ({"size": 9, "random_ids": np.array([[3]])}, "random_ids must be a list of ids below 9"),
        ({"size": 9, "unk_id": 9}, "unk_id = 9 is not an id of a vocabulary of 9 tokens"),
        ({"size": 9, "cls_id": -1}, "cls_id = -1 is not an id"),
    ],
)
def test_a_vocabulary_that_does_not_hold_its_ids_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary(**options)


@pytest.mark.parametrize(
    ("size", "ids", "labels"),
    [(32767, "uint16", "int16"), (32768, "uint16", "int32"), (65536, "uint16", "int32"), (65537, "uint32", "int32")],
)
def test_ids_and_labels_have_the_narrowest_dtype(size: int, ids: str, labels: str) -> None:
    assert (Vocabulary(size=size).id_dtype, Vocabulary(size=size).label_dtype) == (ids, labels)
