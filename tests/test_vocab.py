"""Token ids are DNABERT's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemsdata.genome import vocab
from tests.genomes import COMPLEMENT

KMERS = st.integers(1, 8).flatmap(lambda k: st.text("ACGT", min_size=k, max_size=k))


def test_ids_follow_the_order_of_the_published_vocabulary() -> None:
    published = {"AAAAAA": 5, "AAAAAT": 6, "AAAAAC": 7, "AAAAAG": 8, "AAAATA": 9, "GGGGGG": 4100}
    assert {kmer: vocab.token_id(kmer) for kmer in published} == published
    assert [vocab.token(i, 6) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.mark.parametrize("k", [1, 3, 6])
def test_all_kmers_are_the_product_over_atcg(k: int) -> None:
    product = ["".join(letters) for letters in itertools.product("ATCG", repeat=k)]
    assert vocab.all_kmers(k).astype(str).tolist() == product
    assert [vocab.token_id(kmer) - 5 for kmer in product] == list(range(4**k))


@given(KMERS)
def test_a_kmer_survives_the_round_trip(kmer: str) -> None:
    assert vocab.token(vocab.token_id(kmer), len(kmer)) == kmer
    assert vocab.token_id(kmer.lower()) == vocab.token_id(kmer)


@given(KMERS)
def test_reverse_complement_is_that_of_the_text(kmer: str) -> None:
    k = len(kmer)
    other = vocab.reverse_complement_values(k)[vocab.kmer_value(kmer)]
    assert vocab.kmer_of_value(int(other), k) == kmer.translate(COMPLEMENT)[::-1]


def test_reverse_complement_ids_keep_special_tokens_and_undo_themselves() -> None:
    ids = vocab.reverse_complement_ids(6)
    assert ids.dtype == np.uint16
    assert ids[:5].tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(ids[ids], np.arange(4101))


@pytest.mark.parametrize(("k", "dtype"), [(6, np.uint16), (7, np.uint16), (8, np.uint32)])
def test_ids_widen_where_they_must(k: int, dtype: type) -> None:
    assert vocab.token_dtype(k) == dtype


def test_errors_say_what_was_given() -> None:
    with pytest.raises(ValueError, match="k = 13 is out of range"):
        vocab.check_k(13)
    with pytest.raises(ValueError, match="'ACGN' is not a k-mer"):
        vocab.token_id("ACGN")
