"""Audit a masking strategy on the rows of a shard set or a view: rates, leaks, use of the ranks, and alerts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemsdata.files.progress import Progress, no_progress
from gemsdata.genome.vocab import NUM_SPECIAL, num_kmers
from gemsdata.inspect.mask_counts import MaskCounts
from gemsdata.masking.strategies import TARGET_RATE, Strategy
from gemsdata.shards.shard_set import ShardSet
from gemsdata.views.rows import ViewRows
from gemsdata.views.tokens import Tokens
from gemsdata.views.view import View, open_view

BLOCK_ROWS = 512
_BLOCK_TOKENS = 1 << 21
LONGEST_RUN = 40
"""runs of at least this many masked tokens share the last bin of the histogram"""
NUM_TOP_KMERS = 20
RATE_TOLERANCE = 0.015
SAME_MASKS = 0.5
"""from this share of pairs of different rows with identical masks, masks are reported as independent of the sequence"""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """A property of the masks that a user should know before training with them."""

    level: str
    """``alarm``: the strategy does not do what it claims; ``warning``: valid, but unusual"""
    text: str
    is_expected: bool = False
    """the strategy is expected to have this property, as random masks are independent of the sequence"""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Statistics of the masks of a strategy. Rates and shares are 0..1; positions count tokens, without [CLS]."""

    masking: dict[str, Any]
    """the strategy, as returned by `Strategy.describe`"""
    k: int
    """bases of the n-grams that are ranked; of overlapping k-mers, k"""
    tokens: str
    """kind of tokens: "kmer:6", "base", the folder of a tokenizer"""
    num_rows: int
    num_tokens: int
    masked_token_rate: float
    hidden_nucleotide_rate: float
    """share of all bases that are in no unmasked token"""
    given_away_by_unmasked: float
    """share of masked tokens whose bases are all visible in unmasked tokens"""
    given_away_by_kept: float
    """additional share of masked tokens whose bases are all visible if kept (unchanged) masked tokens are read too"""
    hidden_shown_by_kept: float
    """share of the hidden nucleotides that are visible in a kept token"""
    mean_rank_of_tokens: float | None
    mean_rank_of_chosen: float | None
    """mean NPMI rank of the n-grams that wide spans hide; None without ranks or wide spans"""
    same_mask_share: float | None
    """share of pairs of different rows that get the same mask from the same random key"""
    rate_by_position: list[float | None]
    """masked share of the tokens at each position; None where no row has a token"""
    rate_by_rank_decile: list[float | None] | None
    """share of n-grams that are masked (with tokens other than n-grams: all of whose bases are masked) by rank decile,
    best first; None for a decile without n-grams, or without ranks"""
    rate_in_soft_masked: float | None
    """masked share of the tokens whose middle base is soft-masked (repeats)"""
    rate_outside_soft_masked: float | None
    run_lengths: dict[str, int]
    """number of runs of masked tokens by length"""
    most_masked_kmers: list[dict[str, Any]]
    """the tokens with the highest masked share: kmer, rank (None unless it is an n-gram), occurrences, masked_rate"""
    alerts: list[Alert]

    def as_dict(self) -> dict[str, Any]:
        """Return the audit as a JSON-serialisable dict."""
        return asdict(self)

    @property
    def alarms(self) -> list[Alert]:
        """The alerts of level "alarm": the strategy does not do what it claims."""
        return [alert for alert in self.alerts if alert.level == "alarm"]


def audit(
    shards: ShardSet | View | str | Path,
    masking: str | Strategy,
    *,
    num_rows: int = 2000,
    split: str = "train",
    seed: int = 0,
    stage: int = 0,
    progress: Progress = no_progress,
) -> Audit:
    """Mask rows of a shard set or of a view of one and return statistics of the masks.

    Parameters
    ----------
    shards
        an open shard set, a view (`gemsdata.view`), or the folder of a set; a packed set is read with the default view.
    masking
        a strategy, or the name of one.
    num_rows
        rows to mask, evenly spaced over the split; all rows if the split has fewer.
    split
        "train" or "valid".
    seed, stage
        as in `gemsdata.build_loader`: the random key, and the curriculum stage of strategies that have stages.
    progress
        called with (stage name, rows done since the last call, total).

    Raises
    ------
    ValueError
        for an unknown strategy, or fewer than two rows.
    FileNotFoundError
        if ``shards`` is not the folder of a shard set.
    """
    if num_rows < 2:
        raise ValueError(f"{num_rows} rows are too few to audit: give 2 or more (2000 is usual)")
    view = open_view(shards)
    available = view.num_rows(split)
    if available < 2:
        raise ValueError(f"split {split!r} has {available} rows, too few to audit")
    row_ids = np.unique(np.linspace(0, available - 1, num_rows).astype(np.int64))
    counts = MaskCounts(view.masker(masking, seed=seed), view.row_tokens)
    block_rows = min(max(_BLOCK_TOKENS // view.row_tokens, 2), BLOCK_ROWS)
    for first in range(0, len(row_ids), block_rows):
        here = row_ids[first : first + block_rows]
        rows = view.rows(here, split=split)
        counts.add(rows.tokens, here, _soft_masked(view.shards, rows), stage)
        progress("auditing", len(here), len(row_ids))
    result = _result(counts, view.tokens)
    result.alerts.extend(_alerts(counts, result))
    return result


def _result(counts: MaskCounts, tokens: Tokens) -> Audit:
    masker, num_masked, num_tokens = counts.masker, counts.masked_at.sum(), counts.reached.sum()
    has_ranks = bool(masker.ranks.any())
    deciles = _deciles(masker.ranks, masker.n)
    tenths = [deciles == d for d in range(10)]
    return Audit(
        masking=masker.strategy.describe(),
        k=masker.n,
        tokens=tokens.spec,
        num_rows=counts.num_rows,
        num_tokens=int(num_tokens),
        masked_token_rate=_share(num_masked, num_tokens) or 0.0,
        hidden_nucleotide_rate=_share(counts.num_hidden, counts.num_bases) or 0.0,
        given_away_by_unmasked=_share(counts.given_by_unmasked, num_masked) or 0.0,
        given_away_by_kept=_share(counts.given_by_kept, num_masked) or 0.0,
        hidden_shown_by_kept=_share(counts.num_hidden - counts.num_hidden_left, counts.num_hidden) or 0.0,
        mean_rank_of_tokens=_share((counts.grams * masker.ranks.astype(np.int64)).sum(), counts.grams.sum())
        if has_ranks
        else None,
        mean_rank_of_chosen=_share(counts.chosen_rank_sum, counts.num_chosen) if has_ranks else None,
        same_mask_share=_share(counts.num_same, counts.num_pairs),
        rate_by_position=_shares(counts.masked_at, counts.reached),
        rate_by_rank_decile=_shares(
            [counts.masked_grams[tenth].sum() for tenth in tenths], [counts.grams[tenth].sum() for tenth in tenths]
        )
        if has_ranks
        else None,
        rate_in_soft_masked=_share(counts.soft[1, 1], counts.soft[1].sum()),
        rate_outside_soft_masked=_share(counts.soft[0, 1], counts.soft[0].sum()),
        run_lengths=_histogram(counts.run_lengths),
        most_masked_kmers=_most_masked(counts, tokens),
        alerts=[],
    )


def _histogram(runs: np.ndarray) -> dict[str, int]:
    """Return the number of runs by length; lengths from LONGEST_RUN on share one bin."""
    longest = int(np.flatnonzero(runs).max(initial=0))
    out = {str(length): int(runs[length]) for length in range(1, min(longest + 1, LONGEST_RUN))}
    if longest >= LONGEST_RUN:
        out[f"{LONGEST_RUN}+"] = int(runs[LONGEST_RUN:].sum())
    return out


def _most_masked(counts: MaskCounts, tokens: Tokens) -> list[dict[str, Any]]:
    """Return the tokens with the highest masked share, by the lower end of Wilson's interval (3 sigma)."""
    occurs = counts.occurs
    ranked = tokens.overlapping and tokens.token_bases == counts.masker.n
    n = np.maximum(occurs, 1)
    rate = counts.masked_ids / n
    lower = (rate + 4.5 / n - 3 * np.sqrt(rate * (1 - rate) / n + 2.25 / n**2)) / (1 + 9 / n)
    top = [int(i) for i in np.argsort(-lower, kind="stable")[:NUM_TOP_KMERS] if rate[i] > 0]
    return [
        {
            "kmer": tokens.text(i),
            "rank": int(counts.masker.ranks[i]) if ranked else None,
            "occurrences": int(occurs[i]),
            "masked_rate": float(rate[i]),
        }
        for i in top
    ]


def _alerts(counts: MaskCounts, result: Audit) -> Iterator[Alert]:
    yield from _content_alerts(counts, result)
    yield from _position_alerts(counts, result.masked_token_rate)
    if counts.masker.strategy.budget is not None:
        if counts.num_off_budget:
            yield Alert(
                level="alarm", text=f"{counts.num_off_budget} of {counts.num_rows} rows do not have their exact budget"
            )
    elif abs(result.masked_token_rate - TARGET_RATE) > RATE_TOLERANCE:
        yield Alert(
            level="warning",
            text=f"{result.masked_token_rate:.1%} of tokens are masked, {TARGET_RATE:.0%} is usual;"
            " compare strategies at an exact --budget",
        )


def _content_alerts(counts: MaskCounts, result: Audit) -> Iterator[Alert]:
    strategy = counts.masker.strategy
    if result.same_mask_share is not None and result.same_mask_share >= SAME_MASKS:
        share = f"{result.same_mask_share:.0%} of pairs of different rows get the same mask from the same key"
        if strategy.uses_ranks:
            text = f"masks do not depend on the sequence, but {strategy.name!r} should choose by rank: {share}"
            yield Alert(level="alarm", text=text)
        else:
            text = f"masks do not depend on the sequence, as expected for {strategy.name!r}: {share}"
            yield Alert(level="warning", text=text, is_expected=True)
    chosen, tokens = result.mean_rank_of_chosen, result.mean_rank_of_tokens
    if strategy.uses_ranks and chosen is not None and tokens is not None and chosen > 0.7 * tokens:
        yield Alert(
            level="alarm",
            text=f"ranks are ignored: chosen tokens have mean rank {chosen:,.0f}, all tokens {tokens:,.0f}",
        )


def _position_alerts(counts: MaskCounts, rate: float) -> Iterator[Alert]:
    never = np.flatnonzero((counts.masked_at == 0) & (counts.reached * rate >= 20))
    if len(never):
        examples = ", ".join(map(str, never[:5].tolist())) + (", ..." if len(never) > 5 else "")
        yield Alert(level="alarm", text=f"{len(never)} of {len(counts.reached)} positions are never masked: {examples}")
    inner = slice(2 * counts.masker.n, -2 * counts.masker.n)
    reached = counts.reached[inner]
    full = reached > 0.9 * reached.max(initial=1)
    if full.sum() >= 20 and 0 < rate < 1:
        rates = (counts.masked_at[inner] / np.maximum(reached, 1))[full]
        noise = np.sqrt(rate * (1 - rate) / reached[full].mean())
        if rates.std() > 2 * noise:
            yield Alert(
                level="warning",
                text=f"the masked rate depends on the position: {rates.min():.1%} to {rates.max():.1%} inside the row,"
                f" {rates.std() / noise:.0f} times the standard deviation expected by chance",
            )


def _soft_masked(shards: ShardSet, rows: ViewRows) -> np.ndarray:
    """Return which bases of each row are soft-masked, bool[B, W]."""
    out = np.zeros(rows.tokens.bases.shape, bool)
    places = zip(rows.contig.tolist(), rows.start.tolist(), rows.end.tolist(), strict=True)
    for i, (contig, start, end) in enumerate(places):
        out[i, : end - start] = shards.soft_masked(contig, start, end)
    return out


def _deciles(ranks: np.ndarray, n: int) -> np.ndarray:
    """Return the rank decile (0 the best) of every n-gram id; special ids get -1."""
    out = np.minimum((ranks.astype(np.int64) - 1) * 10 // num_kmers(n), 9)
    out[:NUM_SPECIAL] = -1
    return out


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _shares(parts: Any, wholes: Any) -> list[float | None]:
    return [_share(part, whole) for part, whole in zip(parts, wholes, strict=True)]
