"""Kinds of tokens: their ids against naive twins and against the tokenizers that users load."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemsdata.genome.vocab import token_id
from gemsdata.kernels.bases import mark, reverse_complement_rows, reverse_rows
from gemsdata.views.tokens import HuggingFaceTokens, KmerTokens, resolve_tokens

LETTERS = "ATCGN"
BASES = st.lists(st.integers(0, 4), max_size=40)


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    out = np.zeros((len(rows), max((len(row) for row in rows), default=0) + 12), np.uint8)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out, np.array([len(row) for row in rows], np.int64)


def naive_ids(row: list[int], k: int, stride: int) -> list[int]:
    words = ["".join(LETTERS[b] for b in row[i : i + k]) for i in range(0, len(row) - k + 1, stride)]
    return [1 if "N" in word else token_id(word) for word in words]


@given(st.lists(BASES, min_size=1, max_size=4), st.integers(1, 9), st.data())
def test_kmers_are_those_of_a_loop(rows, k, data):
    stride = data.draw(st.integers(1, k))
    bases, num_bases = padded(rows)
    encoded = KmerTokens(k, stride).encode(bases, num_bases, 40)
    for i, row in enumerate(rows):
        ids = naive_ids(row, k, stride)
        assert encoded.input_ids[i].tolist() == ids + [0] * (40 - len(ids))
        assert encoded.num_tokens[i] == len(ids)
        assert encoded.num_bases[i] == ((len(ids) - 1) * stride + k if ids else 0)


@pytest.mark.once
@pytest.mark.parametrize(("k", "stride"), [(1, 1), (3, 3), (6, 6), (6, 2), (4, 3), (6, 1)])
def test_the_saved_tokenizer_gives_the_ids_of_the_rows(tmp_path, k, stride):
    from transformers import AutoTokenizer

    tokens = KmerTokens(k, stride)
    tokens.tokenizer(512).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    random = np.random.default_rng(k)
    for length in (0, 1, 3, 6, 13, 40):
        row = random.integers(0, 5, length).tolist()
        text = "".join(LETTERS[b] for b in row)
        assert tokenizer(text)["input_ids"] == [2, *naive_ids(row, k, stride), 3]


@given(st.integers(1, 6), st.data())
def test_row_geometry_goes_both_ways(k, data):
    tokens = KmerTokens(k, data.draw(st.integers(1, k)))
    row_tokens = data.draw(st.integers(1, 1000))
    assert tokens.row_tokens(tokens.row_bases(row_tokens)) == row_tokens


@given(st.lists(BASES, min_size=1, max_size=4), st.data())
def test_the_other_strand_of_bases(rows, data):
    bases, num_bases = padded(rows)
    flip = np.array(data.draw(st.lists(st.integers(0, 1), min_size=len(rows), max_size=len(rows))), np.uint8)
    reversed_only = bases.copy()
    reverse_complement_rows(flip, num_bases, bases)
    reverse_rows(flip, num_bases, reversed_only)
    for i, row in enumerate(rows):
        other = [{0: 1, 1: 0, 2: 3, 3: 2, 4: 4}[b] for b in reversed(row)]
        assert bases[i, : len(row)].tolist() == (other if flip[i] else row)
        assert reversed_only[i, : len(row)].tolist() == (row[::-1] if flip[i] else row)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.data())
def test_marked_bases_are_those_of_the_intervals(flags, data):
    edges = np.flatnonzero(np.diff(np.array([False, *flags, False]).astype(int)))
    starts, ends = edges[::2].astype(np.int64), edges[1::2].astype(np.int64)
    start = data.draw(st.integers(0, len(flags)))
    length = data.draw(st.integers(0, len(flags) - start))
    out = np.zeros((1, len(flags) + 1), np.uint8)
    mark(starts, ends, np.array([start]), np.array([length]), 7, out)
    assert out[0, :length].tolist() == [7 * flag for flag in flags[start : start + length]]
    assert not out[0, length:].any()


def bpe_folder(folder, *, letters="ACGT", specials=("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"), unk="[UNK]"):
    """Train a byte-pair tokenizer on random bases and save it as a Hugging Face folder."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=unk))
    random = np.random.default_rng(0)
    corpus = ["".join(letters[b] for b in random.integers(0, len(letters), 400)) for _ in range(20)]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=list(specials), show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    roles = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    roles |= {"mask_token": "[MASK]"}
    known = {role: text for role, text in roles.items() if text in specials}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **known).save_pretrained(folder)
    return folder


@pytest.mark.once
def test_tokens_of_a_hugging_face_tokenizer(tmp_path):
    from transformers import AutoTokenizer

    folder = bpe_folder(tmp_path / "bpe")
    tokens = resolve_tokens(folder)
    assert isinstance(tokens, HuggingFaceTokens)
    assert (tokens.vocabulary.pad_id, tokens.vocabulary.mask_id, tokens.vocabulary.unk_id) == (3, 4, 0)
    assert {tokens.text(i) for i in range(5)} & {tokens.text(i) for i in tokens.vocabulary.random_ids} == set()
    random = np.random.default_rng(1)
    rows = [random.integers(0, 4, length).tolist() for length in (0, 1, 77, 300)] + [[0, 1, 4, 4, 2, 3, 3, 4]]
    bases, num_bases = padded(rows)
    encoded = tokens.encode(bases, num_bases, 100)
    plain = AutoTokenizer.from_pretrained(folder)
    for i, row in enumerate(rows):
        text = "".join(LETTERS[b] for b in row)
        count = encoded.num_tokens[i]
        ids = encoded.input_ids[i]
        wanted = plain(text, add_special_tokens=False)["input_ids"]
        assert ids[:count].tolist() == wanted[:100]
        assert set(ids[count:].tolist()) <= {tokens.vocabulary.pad_id}
        start = encoded.token_start[i]
        for t in range(count):
            covered = text[start[t] : start[t + 1]]
            assert tokens.text(ids[t]) == (covered if "N" not in covered else "[UNK]")
        assert encoded.num_bases[i] == start[count]
        if len(wanted) <= 100:
            assert start[count] == len(text)
    assert np.array_equal(tokens.encode(bases, num_bases, 10).num_tokens, np.minimum(encoded.num_tokens, 10))


@pytest.mark.once
def test_tokenizers_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match=r"tokens 'letters' are unknown: give \"kmer:K\""):
        resolve_tokens("letters")
    with pytest.raises(ValueError, match="tokens 'kmer:six' are unknown"):
        resolve_tokens("kmer:six")
    with pytest.raises(ValueError, match="k = 13 is out of range"):
        resolve_tokens("kmer:13")
    with pytest.raises(ValueError, match="'kmer:3:4' would skip bases: give a stride from 1 to k = 3"):
        resolve_tokens("kmer:3:4")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        resolve_tokens(f"{tmp_path}/nowhere")
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "vocab.txt").write_text("[PAD]\nA\n")
    with pytest.raises(ValueError, match=r"holds no tokenizer\.json, so it is not a fast tokenizer"):
        resolve_tokens(tmp_path / "slow")
    (tmp_path / "slow" / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="is not a tokenizer that Hugging Face tokenizers can read"):
        resolve_tokens(tmp_path / "slow")
    with pytest.raises(ValueError, match="has no token for the letter T"):
        resolve_tokens(bpe_folder(tmp_path / "no_t", letters="ACG"))
    with pytest.raises(ValueError, match="has no mask_token"):
        resolve_tokens(bpe_folder(tmp_path / "no_mask", specials=("[UNK]", "[CLS]", "[SEP]", "[PAD]")))
