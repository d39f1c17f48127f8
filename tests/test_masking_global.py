"""`global` and `global-nms` choose what their definitions say, for every kind of token and for rows of a million."""

from __future__ import annotations

import numpy as np
import pytest

from gemsdata.kernels.keys import row_keys
from gemsdata.masking.masker import Masker
from gemsdata.masking.strategies import resolve
from gemsdata.masking.token_rows import TokenRows, Vocabulary
from tests.naive_masking import TIES, bernoulli, fold

N = 6
ROW_ID = np.array([7])
SHORT, LONG = 1206, 1_048_590
"""bases of a row, to the last of which each kind has tokens; 1,048,576 and more where they stand at every base"""
KINDS = {"base": (1, 1), "kmer:3": (3, 1), "kmer:6": (6, 1), "kmer:6:4": (6, 4), "kmer:6:6": (6, 6), "varying": (5, 5)}
"""bases of a token, bases from one token to the next; "varying": 1 to 9"""


def ranks_with_ties() -> np.ndarray:
    return np.append(np.full(5, 4**N), np.random.default_rng(1).integers(1, 4**N + 1, 4**N)).astype(np.uint16)


def bases_of(width: int, repeat: int = 0) -> np.ndarray:
    """One row uint8[1, width]: random letters, or one motif of ``repeat`` letters over and over."""
    bases = np.random.default_rng(width).integers(0, 4, (1, width)).astype(np.uint8)
    return np.ascontiguousarray(bases[:, np.arange(width) % repeat]) if repeat else bases


def gram_values(bases: np.ndarray) -> np.ndarray:
    """The number of each 6-mer of a row, int64[W - 5]."""
    size = bases.shape[1] - N + 1
    return sum(bases[0, i : size + i].astype(int) * 4 ** (N - 1 - i) for i in range(N))


def rows_of(kind: str, bases: np.ndarray) -> TokenRows:
    """The row as tokens; ids say what stands there only where the tokens are the n-grams."""
    token_bases, stride = KINDS[kind]
    width, starts = bases.shape[1], None
    num_tokens = (width - token_bases) // stride + 1
    if kind == "varying":
        ends = np.cumsum(np.random.default_rng(0).integers(1, 10, width))
        starts = np.concatenate([[0], ends[ends < width], [width]])[None].astype(np.int32)
        num_tokens = starts.shape[1] - 1
    ids = gram_values(bases)[None] + 5 if kind == "kmer:6" else np.full((1, num_tokens), 7)
    return TokenRows(
        input_ids=ids.astype(np.uint16),
        num_tokens=np.array([num_tokens]),
        bases=bases,
        num_bases=np.array([width]),
        token_bases=token_bases,
        token_stride=stride,
        token_start=starts,
    )


def draws(key: int, places: np.ndarray) -> np.ndarray:
    """Draw number ``places`` of a key, uint64: the splitmix64 of docs/masking.md, over an array."""
    x = np.uint64(key) + (places.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def order_of(key: int, rank: np.ndarray) -> list[int]:
    """The n-grams of a row, the best first, by (rank, tie)."""
    return np.lexsort((draws(fold(key, TIES), np.arange(len(rank))), rank)).tolist()


def best_first(order: list[int], skip: int, wanted: int, keep_going: bool) -> list[int]:
    """The first ``wanted`` n-grams of an order: none within ``skip`` of one before, then if asked those skipped."""
    if not skip:
        return order[:wanted]
    near, chosen, skipped = bytearray(len(order)), [], []
    for g in order:
        if len(chosen) == wanted:
            return chosen
        if near[g]:
            skipped.append(g)
            continue
        chosen.append(g)
        low, high = max(0, g - skip), min(len(order), g + skip + 1)
        near[low:high] = b"\1" * (high - low)
    return (chosen + skipped)[:wanted] if keep_going else chosen


def assert_spans_cover(rows: TokenRows, spans, grams: list[int]) -> None:
    """Spans are the tokens that touch the n-grams, in their order."""
    assert spans.anchor.tolist() == grams
    assert spans.wide.all()
    first, end = np.array(grams), np.array(grams) + N
    count = int(rows.num_tokens[0])
    if rows.token_start is not None:
        starts = rows.token_start[0]
        low = np.searchsorted(starts, first, side="right") - 1
        high = np.searchsorted(starts[:count], end, side="left")
    else:
        low = -(-(first - rows.token_bases + 1) // rows.token_stride)
        high = (end - 1) // rows.token_stride + 1
    assert (spans.lo == np.clip(low, 0, count)).all()
    assert (spans.hi == np.minimum(high, count)).all()


@pytest.mark.parametrize("repeat", [0, 7])
@pytest.mark.parametrize("name", ["global", "global-nms"])
@pytest.mark.parametrize("kind", KINDS)
def test_many_ngrams_of_a_row_are_chosen_as_defined(kind, name, repeat):
    """Many: so many that ranks are counted and sorted, and for `global-nms` more than there is room for."""
    bases, ranks = bases_of(SHORT, repeat), ranks_with_ties()
    rows, rank = rows_of(kind, bases), ranks[gram_values(bases) + 5]
    key = int(row_keys(3, 0, 0, ROW_ID)[0])
    order = order_of(key, rank)
    skip = 2 * (N - 1) if name == "global-nms" else 0
    for rate in (0.02, 0.07, 0.3):
        spans = Masker(resolve(name, rate=rate), ranks=ranks, vocabulary=Vocabulary(size=4101), seed=3)
        wanted = len(bernoulli(key, len(rank), rate))
        assert_spans_cover(rows, spans.spans_of(rows, ROW_ID), best_first(order, skip, wanted, False))
    exact = Masker(resolve(name, budget=0.5), ranks=ranks, vocabulary=Vocabulary(size=4101), seed=3)
    anchors = exact.spans_of(rows, ROW_ID).anchor.tolist()
    assert anchors == best_first(order, skip, len(anchors), True)
    assert len(anchors) > 50
    assert exact.mask_of(rows, ROW_ID).sum() == round(0.5 * int(rows.num_tokens[0]))


@pytest.mark.compiled
@pytest.mark.parametrize(("repeat", "kinds"), [(0, KINDS), (7, ["base"])])
def test_a_row_of_a_million_tokens_is_masked_as_defined(repeat, kinds):
    ranks, bases = ranks_with_ties(), bases_of(LONG, repeat)
    rank, key = ranks[gram_values(bases) + 5], int(row_keys(0, 0, 0, ROW_ID)[0])
    maskers = {
        name: Masker(resolve(name, rate=0.0136), ranks=ranks, vocabulary=Vocabulary(size=4101))
        for name in ("global", "global-nms")
    }
    count = len(maskers["global"].spans_of(rows_of("base", bases), ROW_ID).lo)
    assert abs(count / (0.0136 * len(rank)) - 1) < 0.05
    order = order_of(key, rank)
    for name, masker in maskers.items():
        expected = best_first(order, 2 * (N - 1) if name == "global-nms" else 0, count, False)
        for kind in kinds:
            rows = rows_of(kind, bases)
            spans = masker.spans_of(rows, ROW_ID)
            assert_spans_cover(rows, spans, expected)
            mask = masker.mask_of(rows, ROW_ID)[0]
            edges = np.zeros(mask.size + 1, np.int64)
            np.add.at(edges, spans.lo, 1)
            np.add.at(edges, spans.hi, -1)
            assert (mask == (np.cumsum(edges[:-1]) > 0)).all()
