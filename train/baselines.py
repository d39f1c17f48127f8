"""Baselines of the validation loss: token and base frequencies, and a Markov chain of bases."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

import gemsdata as gd
from train.evaluate import FROZEN_SEED, IGNORED, ValidationRows
from train.rows import Source, TrainingRows, bases_of, token_ids_of
from train.token_bases import NO_BASE

MAX_ORDER = 5
_TRAIN_ROWS, _TRAIN_BASES = 4000, 2_500_000
"""training rows of each source that the chain is trained on, and their approximate maximum number of bases"""
_HELD_OUT = 0.1
"""fraction of these rows used to choose the order"""
_SCORED_ROWS = 256
"""validation rows on which the chain is evaluated"""
_SCORED_COLUMNS = 16_384
"""bases of a row on which the chain is evaluated; longer rows are truncated"""
_BASES_AT_ONCE = 16_384


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Baseline losses of predictors that are not neural networks."""

    unigram_perplexity: float
    """perplexity of masked tokens, by the token frequencies of the genomes; NaN if an NPMI table lacks the order k"""
    unigram_bits_per_base: float
    """bits per hidden base, by the base frequencies of training rows"""
    markov_order: int
    markov_bits_per_base: float
    """bits per hidden base given all shown bases of the row, by a Markov chain trained on training rows"""


def baselines(training: TrainingRows, rows: ValidationRows) -> Baselines:
    """Return the baselines of validation rows.

    The Markov chain is trained on a sample of training rows; its order, at most 5, is the one with the smallest loss on
    a held-out tenth of them. It predicts a hidden base from both sides (forward-backward algorithm).
    """
    train = _training_bases(training.sources)
    order = choose_order(train)
    bases, shown = row_bases(rows.head(_SCORED_ROWS))
    bases, shown = bases[:, :_SCORED_COLUMNS], shown[:, :_SCORED_COLUMNS]
    probabilities = []
    transitions = transition_probabilities(train, order)
    rows_at_once = max(1, _BASES_AT_ONCE // bases.shape[1])
    for first in range(0, len(bases), rows_at_once):
        chosen = slice(first, first + rows_at_once)
        posterior = markov_posterior(bases[chosen], shown[chosen], transitions)
        hidden = ~shown[chosen] & (bases[chosen] != NO_BASE)
        probabilities.append(posterior[hidden, bases[chosen][hidden]])
    frequencies = np.bincount(train[train != NO_BASE], minlength=4) + 1.0
    frequencies /= frequencies.sum()
    hidden_bases = bases[~shown & (bases != NO_BASE)]
    return Baselines(
        unigram_perplexity=unigram_perplexity(training, rows),
        unigram_bits_per_base=_mean_bits(frequencies[hidden_bases]),
        markov_order=order,
        markov_bits_per_base=_mean_bits(np.concatenate(probabilities)),
    )


def unigram_perplexity(training: TrainingRows, rows: ValidationRows) -> float:
    """Return the perplexity of predicting the masked tokens by the frequencies of tokens.

    Frequencies of k-mers are those of the whole genomes; for other tokens, they are those of a sample of training rows.
    """
    size = training.vocabulary.size
    counts = np.zeros(size)
    kmers = training.kmer_counts()
    if kmers is not None:
        counts[size - len(kmers) :] = kmers + 1
    else:
        for source in training.sources:
            counts += np.bincount(token_ids_of(source, _sample(source)), minlength=size)
        counts[rows.tokens.length.numpy() > 0] += 1
    labels = rows.labels.long().numpy()
    with np.errstate(divide="ignore"):  # special tokens, which are never masked
        surprise = np.log(counts.sum()) - np.log(counts)
    return math.exp(surprise[labels[labels != IGNORED]].mean())


def row_bases(rows: ValidationRows) -> tuple[np.ndarray, np.ndarray]:
    """Return the bases of rows, digits int64[N, W] (`NO_BASE` beyond the row), and which of them a token shows."""
    tokens, original = rows.tokens, rows.original_ids
    places = tokens.places(original).numpy()
    shows = tokens.shows(rows.input_ids.long(), rows.labels.long(), IGNORED).numpy()
    bases = np.full((len(rows), places.max() + 1), NO_BASE, np.int64)
    shown = np.zeros(bases.shape, bool)
    covered = places >= 0
    row = np.broadcast_to(np.arange(len(rows))[:, None, None], places.shape)
    bases[row[covered], places[covered]] = tokens.digits[original].numpy()[covered]
    covered &= shows[..., None]
    shown[row[covered], places[covered]] = True
    return bases, shown


def choose_order(rows: np.ndarray) -> int:
    """Return the order, 0 to 5, with the smallest loss on the last tenth of ``rows``, trained on the others."""
    num_held_out = max(1, int(len(rows) * _HELD_OUT))
    losses = []
    for order in range(MAX_ORDER + 1):
        context, base = _contexts(rows[-num_held_out:], order)
        losses.append(_mean_bits(transition_probabilities(rows[:-num_held_out], order)[context, base]))
    return int(np.argmin(losses))


def transition_probabilities(rows: np.ndarray, order: int) -> np.ndarray:
    """Return p(base | preceding ``order`` bases), float64[4**order, 4], counted on digits[N, L] with pseudo-count 1."""
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


def _training_bases(sources: list[Source]) -> np.ndarray:
    """Return the bases of a random sample of training rows, digits int64[N, W], `NO_BASE` beyond the end of a row."""
    found = [bases_of(source, _sample(source)) for source in sources]
    width = max(rows.shape[1] for rows in found)
    padded = [np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=NO_BASE) for rows in found]
    return np.random.default_rng(FROZEN_SEED).permutation(np.concatenate(padded)).astype(np.int64)


def _sample(source: Source) -> np.ndarray:
    """Return the numbers of some training rows, drawn without replacement, int64[n]."""
    row_bases = source.row_bases if isinstance(source, gd.View) else source.row_tokens + source.k - 1
    num_rows = min(_TRAIN_ROWS, max(10, _TRAIN_BASES // row_bases))
    return np.random.default_rng(FROZEN_SEED).permutation(source.num_rows("train"))[:num_rows]


def _contexts(rows: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each context of ``order`` bases as a base-4 number and the base after it, int64[n] each."""
    windows = np.lib.stride_tricks.sliding_window_view(rows, order + 1, axis=1).reshape(-1, order + 1)
    windows = windows[(windows != NO_BASE).all(1)]
    return windows[:, :-1] @ 4 ** np.arange(order - 1, -1, -1, dtype=np.int64), windows[:, -1]


def _mean_bits(probabilities: np.ndarray) -> float:
    return float(-np.log2(np.maximum(probabilities, 1e-30)).mean()) if probabilities.size else math.nan
