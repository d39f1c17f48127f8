"""Kernels over packed bases and rows of bases against naive twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemsdata.kernels import bases as kernels
from gemsdata.kernels import kmer
from tests.naive_masking import below, draw


def packed_of(digits: list[int]) -> np.ndarray:
    padded = [*digits, *[0] * (-len(digits) % 4)]
    return np.array([64 * a + 16 * b + 4 * c + d for a, b, c, d in zip(*[iter(padded)] * 4, strict=True)], np.uint8)


def digits_of(packed: np.ndarray) -> list[int]:
    return [int(byte) >> shift & 3 for byte in packed for shift in (6, 4, 2, 0)]


@given(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=40), st.data())
def test_cleared_bases_are_0_and_the_others_stay(digits, data):
    first = data.draw(st.integers(0, len(digits)))
    end = data.draw(st.integers(first, len(digits)))
    packed = packed_of(digits)
    kmer.clear(packed, np.array([[first, end]]))
    assert digits_of(packed)[: len(digits)] == [0 if first <= i < end else digit for i, digit in enumerate(digits)]


@pytest.mark.parametrize("room", [3, 100])
@pytest.mark.parametrize("key", range(3))
def test_pieces_are_those_of_the_definition(key, room):
    wanted, at = [], 7
    while at < 400:
        length, counter = 50, 2 * len(wanted)
        if draw(key, counter) >= 1 << 63:
            length = 5 + below(draw(key, counter + 1), 46)
        wanted.append([at, min(at + length, 400)])
        at += length
    out = np.full((room, 2), -1)
    assert kmer.cut_pieces(7, 400, 50, 5, 50, np.uint64(key), out) == len(wanted)
    assert out.tolist() == (wanted + [[-1, -1]] * room)[:room]


@given(st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=30), st.integers(1, 4), st.data())
def test_ngrams_of_runs_are_counted_once(digits, n, data):
    first = data.draw(st.integers(0, len(digits)))
    end = data.draw(st.integers(first, len(digits)))
    grams = [digits[i : i + n] for i in range(first, end - n + 1)]
    values = [sum(digit << 2 * (n - 1 - j) for j, digit in enumerate(gram)) for gram in grams]
    low, high, last = np.zeros(4**n, np.uint8), np.zeros(4**n, np.int64), np.zeros(4**n, np.int64)
    packed, runs = packed_of(digits), np.array([[first, end]])
    kmer.count_runs(packed, runs, n, low, high)
    kmer.count_last(packed, runs, n, last)
    assert (low + high).tolist() == np.bincount(values, minlength=4**n).tolist()
    assert last.tolist() == np.bincount(values[-1:], minlength=4**n).tolist()


@given(st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=40), st.data())
def test_a_stretch_of_packed_bases_is_copied_to_the_beginning(digits, data):
    first = data.draw(st.integers(0, len(digits) - 1))
    count = data.draw(st.integers(0, len(digits) - first))
    out = np.full((1, 12), 255, np.uint8)
    kernels.copy_packed(packed_of(digits), np.array([first]), np.array([count]), out)
    assert digits_of(out[0]) == digits[first : first + count] + [0] * (48 - count)


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, 4]), st.booleans()), min_size=1, max_size=14),
    st.integers(1, 4),
    st.booleans(),
)
def test_a_row_can_be_predicted_from_a_token_with_a_maskable_base(row, token_bases, everything):
    maskable = np.array([[may for _, may in row]]) if not everything else np.empty((0, 0), bool)
    out = np.full(1, 9, np.uint8)
    bases = np.array([[base for base, _ in row]], np.uint8)
    kernels.can_be_predicted(bases, np.array([len(row)]), maskable, token_bases, out)
    tokens = [row[i : i + token_bases] for i in range(len(row) - token_bases + 1)]
    known = [token for token in tokens if all(base < 4 for base, _ in token)]
    assert out[0] == any(may or everything for token in known for _, may in token)


@given(st.lists(st.lists(st.sampled_from([0, 1, 2, 3, 4]), max_size=9), min_size=1, max_size=3), st.booleans())
def test_the_other_strand_is_the_complement_from_the_end(rows, strand):
    width = 10
    out = np.array([[*row, *[2] * (width - len(row))] for row in rows], np.uint8)
    flip, lengths = np.arange(len(rows)) % 2, np.array([len(row) for row in rows])
    turn = kernels.reverse_complement_rows if strand else kernels.reverse_rows
    turn((1 - flip).astype(np.uint8), lengths, out)
    other = [1, 0, 3, 2, 4] if strand else range(5)
    for i, row in enumerate(rows):
        wanted = row if flip[i] else [other[base] for base in row[::-1]]
        assert out[i].tolist() == [*wanted, *[2] * (width - len(row))]


@pytest.mark.parametrize(("k", "stride"), [(1, 1), (3, 1), (3, 2), (3, 3), (2, 4)])
def test_token_means_are_means_of_the_bases_of_each_token(k, stride):
    values = np.random.default_rng(0).integers(0, 9, (2, 30)).astype(np.float32)
    out = np.full((2, 7), -1, np.float32)
    kernels.token_means(values, np.array([7, 3]), np.empty((0, 0), np.int32), k, stride, out)
    for i, tokens in enumerate((7, 3)):
        wanted = [values[i, t * stride : t * stride + k].mean() for t in range(tokens)]
        np.testing.assert_allclose(out[i], wanted + [0] * (7 - tokens), rtol=1e-6)


def test_means_of_tokens_of_any_length():
    start = np.array([[0, 3, 4, 9, 9], [2, 3, 8, 10, 15]], np.int32)
    values = np.random.default_rng(0).integers(0, 9, (2, 15)).astype(np.float32)
    out = np.full((2, 4), -1, np.float32)
    kernels.token_means(values, np.array([3, 4]), start, 3, 1, out)
    for i, tokens in enumerate((3, 4)):
        wanted = [values[i, start[i, t] : start[i, t + 1]].mean() for t in range(tokens)]
        np.testing.assert_allclose(out[i], wanted + [0] * (4 - tokens), rtol=1e-6)


@pytest.mark.parametrize(("k", "stride"), [(1, 1), (3, 1), (3, 2), (3, 3), (2, 4)])
@pytest.mark.parametrize("unknown", [0, 0.2])
def test_kmers_are_numbers_of_their_bases(k, stride, unknown):
    rng = np.random.default_rng(1)
    counts = np.array([8, 1, 0, 5])
    bases = np.where(rng.random((4, 7 * stride + k)) < unknown, 4, rng.integers(0, 4, (4, 7 * stride + k)))
    out = np.full((4, 8), 9, np.uint16)
    kernels.encode_kmers(bases.astype(np.uint8), counts, k, stride, out)
    for i, tokens in enumerate(counts):
        kmers = [bases[i, t * stride : t * stride + k].tolist() for t in range(tokens)]
        ids = [1 if 4 in row else 5 + sum(b << 2 * (k - 1 - j) for j, b in enumerate(row)) for row in kmers]
        assert out[i].tolist() == ids + [0] * (8 - tokens)


LENGTHS = [(64, 64), (64, 128, 64), (128, 1), (0, 64, 64), (1, 63, 64), (0, 200, 72), (70, 58, 9)]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("what", [kmer.NOT_ACGT, kmer.SOFT_MASKED])
def test_intervals_may_begin_and_end_with_a_block(lengths, what):
    """Runs of flagged letters and of others in turn; a block of 64 letters is passed by where nothing changes."""
    flagged = [i % 2 == 0 for i, length in enumerate(lengths) for _ in range(length)]
    letters = np.array([ord("a" if what else "N") if flag else ord("G") for flag in flagged], np.uint8)
    flags = np.empty(letters.size // kmer.BLOCK, np.uint8)
    kmer.count_flags(letters, what, flags)
    assert flags.tolist() == [sum(flagged[64 * b : 64 * b + 64]) for b in range(flags.size)]
    state, out = np.array([0, -1]), np.full((100, 2), -9)
    found = kmer.find_intervals(letters, what, flags, state, out)
    ends = np.cumsum(lengths).tolist()
    wanted = [[end - n, end] for n, end in list(zip(lengths, ends, strict=True))[::2] if n]
    assert out[:found].tolist() == wanted
    assert state[0] == letters.size
    assert state[1] < 0


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("unknown", [0, 0.4])
def test_bases_are_shown_by_the_known_kmers_over_them(stride, unknown):
    k, counts, rng = 3, np.array([7, 1, 0, 4]), np.random.default_rng(stride)
    width = 6 * stride + k + 1
    true = rng.integers(0, 4, (4, width)).astype(np.uint8)
    ids = np.zeros((4, 7), np.uint16)
    kernels.encode_kmers(true, counts, k, stride, ids)
    known = rng.random((4, 7)) >= unknown
    ids[~known] = 1
    out = np.full((4, width), 9, np.uint8)
    kernels.decode_kmers(ids, counts, k, stride, out)
    for i, tokens in enumerate(counts.tolist()):
        shown = {t * stride + j for t in range(tokens) if known[i, t] for j in range(k)}
        covered = {t * stride + j for t in range(tokens) for j in range(k)}
        for b in range(width):
            if b in covered:
                assert out[i, b] == (true[i, b] if b in shown else 4)
            elif b > max(covered, default=-1):
                assert out[i, b] == 9
        if stride == 1:
            end = tokens + k - 1 if tokens else 0
            other = np.full((4, width), 9, np.uint8)
            kmer.bases_of_kmers(ids, counts, k, other)
            assert other[i].tolist() == out[i, :end].tolist() + [0] * (width - end)


def test_tokens_of_any_length_are_decoded_one_after_the_other():
    words = [[], [4], [0], [1, 2, 3], [3, 3], [2, 0, 1, 1], [0, 1, 2, 3, 3, 2, 1, 0], [3, 2, 1, 0, 0, 1, 2, 3, 1, 2, 1]]
    firsts = np.array([sum(digit << 8 * j for j, digit in enumerate(word[:8])) for word in words], np.uint64)
    digits = np.array([digit for word in words for digit in word], np.uint8)
    first = np.cumsum([0, *map(len, words)])
    ids = np.random.default_rng(0).integers(0, 8, (30, 6)).astype(np.uint16)
    ids[4] = 5  # reaches beyond the end of the row
    counts = np.array([6, 2, 0, 5, 6] * 6)
    out, start = np.full((30, 20), 9, np.uint8), np.full((30, 7), -1, np.int32)
    kernels.decode_varying(ids, counts, firsts, digits, first, out, start)
    for i, tokens in enumerate(counts.tolist()):
        row = [words[v] for v in ids[i, :tokens]]
        text = [digit for word in row for digit in word][:20]
        assert out[i].tolist() == text + [0] * (20 - len(text))
        ends = np.cumsum([0, *map(len, row)]).tolist()
        assert start[i].tolist() == [min(end, 20) for end in ends + [ends[-1]] * (6 - tokens)]


def test_ids_of_tokens_of_any_length_are_laid_out_as_rows():
    random = np.random.default_rng(1)
    length = random.integers(0, 9, 40)
    rows = [random.integers(0, 40, n).astype(np.uint32) for n in (3, 0, 7, 12, 5)]
    ends = np.cumsum([0, *map(len, rows)])
    ids, start = np.full((5, 7), 999, np.uint16), np.full((5, 8), -1, np.int32)
    kernels.lay_out_varying(np.concatenate(rows), ends, length, 39, ids, start)
    for i, row in enumerate(rows):
        kept = row[:7].tolist()
        assert ids[i].tolist() == kept + [39] * (7 - len(kept))
        starts = np.cumsum([0, *length[kept]]).tolist()
        assert start[i].tolist() == starts + [starts[-1]] * (7 - len(kept))
