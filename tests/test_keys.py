"""Random numbers are pure functions of integers, and look random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemsdata.kernels import keys
from gemsdata.kernels.order import permute_range
from gemsdata.kernels.random_streams import RandomStream, RowStream
from gemsdata.shards.verify.windows import splitmix
from tests import naive_masking as naive

WORD = st.integers(0, 2**64 - 1)


def mix(x: int) -> int:
    """The finaliser of splitmix64 in Python integers."""
    wrap = 2**64 - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & wrap
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & wrap
    return x ^ (x >> 31)


def uniform(key: int, counter: int) -> float:
    return keys.unit(np.uint64(keys.draw(np.uint64(key), np.uint64(counter))))


@given(WORD, WORD)
def test_draw_is_splitmix64(key: int, counter: int) -> None:
    counter %= 2**32
    assert int(keys.draw(np.uint64(key), np.uint64(counter))) == splitmix(key, counter)


def test_the_first_outputs_of_splitmix64_are_the_published_ones() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [int(keys.draw(np.uint64(1234567), np.uint64(i))) for i in range(3)] == published


@given(st.lists(WORD, min_size=1, max_size=4))
def test_a_key_is_its_words_folded_one_by_one(words: list[int]) -> None:
    golden, wrap, key = 0x9E3779B97F4A7C15, 2**64 - 1, 0
    for word in words:
        key = mix(((key ^ mix((word + golden) & wrap)) + golden) & wrap)
    assert keys.key_of(*words) == key


def test_keys_of_rows_are_keys_of_their_words() -> None:
    words = np.array([[1, 2], [2, 1], [0, 2**40]])
    assert keys.keys_of((7,), words).tolist() == [keys.key_of(7, *row) for row in words.tolist()]


def test_row_keys_are_the_keys_of_seed_epoch_stage_row_in_a_domain_of_their_own() -> None:
    rows = np.array([0, 7, 10**9])
    words = [(3, RandomStream.MASK, 1, 2, int(row)) for row in rows]
    assert keys.row_keys(3, 1, 2, rows).tolist() == [keys.key_of(*word) for word in words]


def test_every_use_of_random_numbers_has_a_tag_of_its_own() -> None:
    assert {stream.name: stream.value for stream in RandomStream if stream <= 3} == {
        "VALID_REGION": 1,
        "PIECE_LENGTH": 2,
        "ROW_ORDER": 3,
    }, "these values decide the bytes of shards"
    for streams in (RandomStream, RowStream):
        assert len(streams) == len(streams.__members__) == len({stream.value for stream in streams})
    assert max(RowStream) < 16, "strategies outside gemsdata have the numbers from 16 on"


def test_neighbouring_keys_give_unrelated_uniform_draws() -> None:
    rows = keys.row_keys(0, 0, 0, np.arange(4000))
    first = np.array([uniform(key, 0) for key in rows])
    second = np.array([uniform(key, 1) for key in rows])
    assert abs(first.mean() - 0.5) < 0.02  # 4 standard errors
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.07
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.07


@given(WORD, st.integers(1, 2**31))
def test_below_stays_below(bits: int, n: int) -> None:
    assert int(keys.below(np.uint64(bits), np.uint64(n))) == (bits >> 32) * n >> 32 < n


@settings(max_examples=60)
@given(st.integers(1, 700), WORD)
def test_the_keyed_order_is_a_permutation(n: int, key: int) -> None:
    out = np.empty(n, np.int64)
    permute_range(0, n, np.uint64(key), out)
    assert sorted(out.tolist()) == list(range(n))


@pytest.mark.parametrize("n", [1_000_003, 10**12])
def test_the_keyed_order_is_spread_evenly(n: int) -> None:
    out = np.empty(2000, np.int64)
    permute_range(n // 3, n, np.uint64(11), out)
    assert out.min() >= 0
    assert out.max() < n
    distance = np.abs(np.diff(out)).mean() / n  # of a perfect shuffle: 1/3
    assert abs(distance - 1 / 3) < 0.03


def test_another_key_gives_another_order() -> None:
    orders = np.empty((2, 100), np.int64)
    for key in range(2):
        permute_range(0, 100, np.uint64(key), orders[key])
    assert (orders[0] == orders[1]).mean() < 0.1


def naive_image(i: int, n: int, key: int) -> int:
    """Walk a Feistel network of six rounds over the smallest power of two that holds n until it stays below n."""
    bits = (n - 1).bit_length()
    if bits == 0:
        return i
    low = bits // 2
    high = bits - low
    while True:
        left, right = divmod(i, 2**low)
        for pair in range(3):
            left ^= mix((naive.fold(key, 2 * pair) + right) % 2**64) % 2**high
            right ^= mix((naive.fold(key, 2 * pair + 1) + left) % 2**64) % 2**low
        i = left * 2**low + right
        if i < n:
            return i


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 31, 32, 33, 100])
def test_the_keyed_order_is_that_of_a_network_in_python_integers(n: int) -> None:
    out = np.empty(n, np.int64)
    permute_range(0, n, np.uint64(77), out)
    assert out.tolist() == [naive_image(i, n, 77) for i in range(n)]
    permute_range(n // 2, n, np.uint64(77), out[: n - n // 2])
    assert out[: n - n // 2].tolist() == [naive_image(i, n, 77) for i in range(n // 2, n)]


@pytest.mark.parametrize("n", [1, 3, 10, 2**32 - 1])
@pytest.mark.parametrize("bits", [0, 2**32 - 1, 2**32, 2**63, 3 * 2**62 + 5, 2**64 - 1])
def test_below_multiplies_the_top_half(bits: int, n: int) -> None:
    assert int(keys.below(np.uint64(bits), np.uint64(n))) == (bits >> 32) * n >> 32
