"""Baselines of the validation loss: token and base frequencies, and a Markov chain of bases."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

import gemsdata as gd
from gemsdata.genome.vocab import NUM_SPECIAL
from train.evaluate import FROZEN_SEED, IGNORED, ValidationRows

MAX_ORDER = 5
_TRAIN_ROWS = 4000
"""training rows that the chain is counted on"""
_HELD_OUT = 0.1
"""fraction of them that the order is chosen on"""
_SCORED_ROWS = 256
"""validation rows that the chain is scored on"""
_ROWS_AT_ONCE = 32
_UNKNOWN = 4
"""digit of a base that no token of the row covers"""


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """What can be predicted without a network."""

    unigram_perplexity: float
    """of masked tokens, by the token frequencies of the genomes; NaN where an NPMI table lacks the order k"""
    unigram_bits_per_base: float
    """of hidden bases, by the base frequencies of training rows"""
    markov_order: int
    markov_bits_per_base: float
    """of hidden bases given all shown bases of the row, by a Markov chain counted on training rows"""


def baselines(shards: list[gd.ShardSet], rows: ValidationRows) -> Baselines:
    """Return the baselines of validation rows.

    The Markov chain is counted on a sample of training rows; its order, at most 5, is the one with the smallest loss on
    a tenth of them that was left out. It predicts a hidden base from both sides (forward-backward algorithm).
    """
    train = np.concatenate([_training_bases(entry) for entry in shards])
    order = choose_order(train)
    scored = rows.head(_SCORED_ROWS)
    bases, shown = row_bases(scored)
    probabilities = []
    transitions = transition_probabilities(train, order)
    for first in range(0, len(bases), _ROWS_AT_ONCE):
        chosen = slice(first, first + _ROWS_AT_ONCE)
        posterior = markov_posterior(bases[chosen], shown[chosen], transitions)
        hidden = ~shown[chosen] & (bases[chosen] != _UNKNOWN)
        probabilities.append(posterior[hidden, bases[chosen][hidden]])
    frequencies = np.bincount(train[train != _UNKNOWN], minlength=4) + 1.0
    frequencies /= frequencies.sum()
    hidden_bases = bases[~shown & (bases != _UNKNOWN)]
    return Baselines(
        unigram_perplexity=unigram_perplexity(shards, rows),
        unigram_bits_per_base=_mean_bits(frequencies[hidden_bases]),
        markov_order=order,
        markov_bits_per_base=_mean_bits(np.concatenate(probabilities)),
    )


def unigram_perplexity(shards: list[gd.ShardSet], rows: ValidationRows) -> float:
    """Return the perplexity of predicting the masked tokens by the token frequencies of the genomes."""
    k = rows.k
    counts = np.ones(4**k, np.float64)
    for entry in shards:
        if k not in entry.npmi.counts:
            return math.nan
        counts += entry.npmi.counts[k]
    surprise = np.log(counts.sum()) - np.log(counts)
    labels = rows.labels.long().numpy()
    return math.exp(surprise[labels[labels != IGNORED] - NUM_SPECIAL].mean())


def row_bases(rows: ValidationRows) -> tuple[np.ndarray, np.ndarray]:
    """Return the bases of rows, digits int64[N, L + k] (4 where there is none), and which of them a token shows."""
    original, shown_ids, labels = rows.original_ids.numpy(), rows.input_ids.numpy(), rows.labels.numpy()
    k, num_positions = rows.k, original.shape[1]
    bases = np.full((len(rows), num_positions + k), _UNKNOWN, np.int64)
    shown = np.zeros(bases.shape, bool)
    real = original >= NUM_SPECIAL
    shows = real & ((labels == IGNORED) | (shown_ids == original))
    for offset in range(k):
        here = slice(offset, offset + num_positions)
        digit = original - NUM_SPECIAL >> 2 * (k - 1 - offset) & 3
        bases[:, here] = np.where(real, digit, bases[:, here])
        shown[:, here] |= shows
    return bases, shown


def choose_order(rows: np.ndarray) -> int:
    """Return the order, 0 to 5, with the smallest loss on the last tenth of ``rows`` when counted on the others."""
    num_held_out = max(1, int(len(rows) * _HELD_OUT))
    losses = []
    for order in range(MAX_ORDER + 1):
        context, base = _contexts(rows[-num_held_out:], order)
        losses.append(_mean_bits(transition_probabilities(rows[:-num_held_out], order)[context, base]))
    return int(np.argmin(losses))


def transition_probabilities(rows: np.ndarray, order: int) -> np.ndarray:
    """Return p(base | preceding ``order`` bases), float64[4**order, 4], counted on digits[N, L], 1 added to each."""
    context, base = _contexts(rows, order)
    counts = np.bincount(context * 4 + base, minlength=4 ** (order + 1)).reshape(-1, 4) + 1.0
    return counts / counts.sum(1, keepdims=True)


def markov_posterior(bases: np.ndarray, shown: np.ndarray, transitions: np.ndarray) -> np.ndarray:
    """Return the probability of each base at each position given the shown bases, float32[N, L, 4].

    Parameters
    ----------
    bases
        digits int64[N, L]; read where ``shown``, bool[N, L].
    transitions
        p(base | preceding bases), float64[4**order, 4]. The chain starts from equal probabilities.
    """
    num_rows, length = bases.shape
    order = round(math.log(len(transitions), 4))
    evidence = np.where(shown[..., None], np.eye(5)[bases][..., :4], 1.0).astype(np.float32)
    if order == 0:
        posterior = transitions[0].astype(np.float32) * evidence
        return posterior / posterior.sum(-1, keepdims=True)
    states = 4 ** (order - 1)
    step = transitions.reshape(4, states, 4).astype(np.float32)  # [oldest base, bases between, new base]
    forward = np.empty((length, num_rows, states, 4), np.float32)
    alpha = np.full((num_rows, 4, states), 0.25 / states, np.float32)
    for i in range(length):
        after = np.einsum("ras,asb->rsb", alpha, step) * evidence[:, i, None, :]
        after /= after.sum((1, 2), keepdims=True)
        forward[i] = after
        alpha = after.reshape(num_rows, 4, states)
    posterior = np.empty((num_rows, length, 4), np.float32)
    beta = np.ones((num_rows, states, 4), np.float32)
    for i in reversed(range(length)):
        both = (forward[i] * beta).sum(1)
        posterior[:, i] = both / both.sum(1, keepdims=True)
        weighted = beta * evidence[:, i, None, :]
        beta = np.einsum("rsb,asb->ras", weighted, step).reshape(num_rows, states, 4)
        beta /= beta.max((1, 2), keepdims=True)
    return posterior


def _training_bases(shards: gd.ShardSet) -> np.ndarray:
    """Return the bases of a random sample of training rows, digits int64[N, L], 4 behind the end of a row."""
    num_rows = shards.num_rows("train")
    chosen = np.random.default_rng(FROZEN_SEED).permutation(num_rows)[:_TRAIN_ROWS]
    rows = shards.read("train", np.sort(chosen))
    k, ids = shards.k, rows.input_ids.astype(np.int64) - NUM_SPECIAL
    bases = np.full((len(chosen), ids.shape[1] + k - 1), _UNKNOWN, np.int64)
    real = np.arange(ids.shape[1]) < rows.num_tokens[:, None]
    for offset in range(k):
        here = slice(offset, offset + ids.shape[1])
        bases[:, here] = np.where(real, ids >> 2 * (k - 1 - offset) & 3, bases[:, here])
    return np.random.default_rng(FROZEN_SEED).permutation(bases)


def _contexts(rows: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each context of ``order`` bases as a base-4 number and the base behind it, int64[n] each."""
    windows = np.lib.stride_tricks.sliding_window_view(rows, order + 1, axis=1).reshape(-1, order + 1)
    windows = windows[(windows != _UNKNOWN).all(1)]
    return windows[:, :-1] @ 4 ** np.arange(order - 1, -1, -1, dtype=np.int64), windows[:, -1]


def _mean_bits(probabilities: np.ndarray) -> float:
    return float(-np.log2(np.maximum(probabilities, 1e-30)).mean()) if probabilities.size else math.nan
