"""Find pairs of sequences that share many k-mers, with sourmash sketches and a sparse matrix product."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gemsdata.genome.vocab import base_codes

SKETCH_K = 12
IN_PLACE_K = 8

_SKETCH_SIZE = 64
"""k-mers in the sketch of a sequence of median length"""
_MOST_WORK = 300_000_000
"""largest number of pairs of occurrences of one k-mer in a join"""
_BLOCK_WORK = 20_000_000
_OTHER = 4
_MIX = np.uint64(0x9E3779B97F4A7C15)

Pairs = np.ndarray
"""indices of two sequences, the smaller first, int64[2, pairs]"""


def pairs_of_shared_content(texts: Sequence[str], min_share: float) -> tuple[Pairs, int]:
    """Find pairs of sequences that share at least ``min_share`` of the 12-mers of the shorter, on either strand.

    The share is the number of distinct shared 12-mers over the number of 12-mer positions of the shorter sequence, so
    that low-complexity sequences (few distinct k-mers) form no pairs. Candidates are found with FracMinHash sketches,
    which contain all k-mers of sequences up to 128 bases; returned pairs are verified on all k-mers.

    Returns
    -------
    pairs
        int64[2, pairs].
    num_left_out
        number of k-mers that were skipped because too many sequences have them; 0 in most data.
    """
    scaled = _thinning(texts)
    values, owner = _sketches(texts, scaled)
    positions = _num_positions(texts, SKETCH_K)
    candidates, num_left_out = _join(values, owner, positions, min_share, scaled)
    if scaled > 1:
        candidates = candidates[:, _verified(texts, candidates, min_share, _content)]
    return candidates, num_left_out


def pairs_in_place(
    texts: Sequence[str], min_share: float, wanted: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Pairs:
    """Find pairs of sequences that share at least ``min_share`` of the 8-mers of the shorter at the same positions.

    K-mers that occur twice in a sequence do not count, so that tandem repeats form no pairs. ``wanted`` takes two
    arrays of sequence indices and returns which pairs to keep, bool[pairs].
    """
    thinning = _thinning(texts)
    values, owner = _in_place(texts, thinning)
    positions = _num_positions(texts, IN_PLACE_K)
    candidates, _ = _join(values, owner, positions, min_share, thinning)
    candidates = candidates[:, wanted(candidates[0], candidates[1])]
    if thinning > 1:
        candidates = candidates[:, _verified(texts, candidates, min_share, _content_in_place)]
    return candidates


def _thinning(texts: Sequence[str]) -> int:
    """Return n such that sketches with one k-mer in n have about _SKETCH_SIZE k-mers."""
    return max(1, int(np.median([len(text) for text in texts])) // _SKETCH_SIZE) if texts else 1


def _num_positions(texts: Sequence[str], k: int) -> np.ndarray:
    return np.array([max(0, len(text) - k + 1) for text in texts], np.int64)


def _sketches(texts: Sequence[str], scaled: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of all sketches and the sequence of each, uint64[H], int64[H]."""
    minhash = _minhash(scaled)
    hashes = [np.zeros(0, np.uint64)]
    for text in texts:
        minhash.clear()
        minhash.add_sequence(text, force=True)
        hashes.append(np.fromiter(minhash.hashes, np.uint64))
    return np.concatenate(hashes), np.repeat(np.arange(len(texts)), [each.size for each in hashes[1:]])


def _minhash(scaled: int) -> Any:
    """Return an empty sourmash.MinHash that keeps one canonical k-mer in ``scaled``."""
    import sourmash

    return sourmash.MinHash(n=0, ksize=SKETCH_K, scaled=scaled)


def _in_place(texts: Sequence[str], thinning: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (position, k-mer) codes of one k-mer in ``thinning`` and the sequence of each, uint64[H], int64[H]."""
    lengths = np.array([len(text) for text in texts], np.int64)
    codes = base_codes("".join(texts).encode("ascii", "replace")).astype(np.int64)
    owner = np.repeat(np.arange(len(texts)), lengths)
    position = np.arange(codes.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    size = max(0, codes.size - IN_PLACE_K + 1)
    values = np.zeros(size, np.int64)
    usable = owner[:size] == owner[codes.size - size :]
    for i in range(IN_PLACE_K):
        values = 4 * values + codes[i : i + size]
        usable &= codes[i : i + size] < _OTHER
    usable &= (values.astype(np.uint64) * _MIX >> np.uint64(40)) % np.uint64(thinning) == 0
    values, owner, position = values[usable], owner[:size][usable], position[:size][usable]
    _, first, times = np.unique(owner * 4**IN_PLACE_K + values, return_index=True, return_counts=True)
    once = first[times == 1]
    return (position[once] * 4**IN_PLACE_K + values[once]).astype(np.uint64), owner[once]


def _join(
    values: np.ndarray, owner: np.ndarray, positions: np.ndarray, min_share: float, thinning: int
) -> tuple[Pairs, int]:
    """Return pairs that share enough values, and the number of values skipped because too many sequences have them.

    For thinned values, half of ``min_share`` is enough for a candidate: with about 64 values kept that is a margin of
    four standard deviations.
    """
    from scipy.sparse import csr_matrix

    _, value, times = np.unique(values, return_inverse=True, return_counts=True)
    most = _most_often(times)
    num_left_out = int((times > most).sum())
    useful = (times[value] > 1) & (times[value] <= most)
    value, owner = value[useful], owner[useful]
    shape = (positions.size, int(times.size))
    has = csr_matrix((np.ones(value.size, np.int32), (owner, value)), shape=shape)
    had_by = has.T.tocsr()
    least = min_share if thinning == 1 else min_share / (2 * thinning)
    found = [np.zeros((2, 0), np.int64)]
    for first, end in _blocks(np.bincount(owner, weights=times[value], minlength=positions.size)):
        shared = (has[first:end] @ had_by).tocoo()
        a, b = shared.row.astype(np.int64) + first, shared.col.astype(np.int64)
        kept = (a < b) & (shared.data >= least * np.minimum(positions[a], positions[b]))
        found.append(np.stack([a[kept], b[kept]]))
    return np.concatenate(found, axis=1), num_left_out


def _most_often(times: np.ndarray) -> int:
    """Return the largest number of sequences with one k-mer such that the join takes less than a minute."""
    often = np.sort(times)
    num_fit = int(np.searchsorted(np.cumsum(often.astype(np.float64) ** 2), _MOST_WORK, side="right"))
    if num_fit == often.size:
        return int(often[-1]) if often.size else 0
    return int(often[num_fit]) - 1


def _blocks(work: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of blocks of rows of bounded work."""
    done = np.cumsum(work)
    first = 0
    while first < work.size:
        before = done[first - 1] if first else 0.0
        end = max(first + 1, int(np.searchsorted(done, before + _BLOCK_WORK, side="right")))
        yield first, end
        first = end


def _verified(
    texts: Sequence[str], pairs: Pairs, min_share: float, content_of: Callable[[str], tuple[frozenset[int], int]]
) -> np.ndarray:
    """Return which pairs share at least ``min_share`` of all their k-mers, bool[pairs]."""
    content = {i: content_of(texts[i]) for i in np.unique(pairs).tolist()}
    out = np.zeros(pairs.shape[1], bool)
    for at, (a, b) in enumerate(pairs.T.tolist()):
        (first, num_first), (second, num_second) = content[a], content[b]
        out[at] = len(first & second) >= min_share * min(num_first, num_second)
    return out


def _content(text: str) -> tuple[frozenset[int], int]:
    return frozenset(_minhash(1).seq_to_hashes(text, force=True)), max(0, len(text) - SKETCH_K + 1)


def _content_in_place(text: str) -> tuple[frozenset[int], int]:
    values, _ = _in_place([text], 1)
    return frozenset(values.tolist()), max(0, len(text) - IN_PLACE_K + 1)
