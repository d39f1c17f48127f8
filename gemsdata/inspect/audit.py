"""Audit a masking strategy on real rows: what it masks and hides, what gives the answer away, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemsdata.files.progress import Progress, no_progress
from gemsdata.genome.vocab import NUM_SPECIAL, num_kmers, token
from gemsdata.inspect.audit_tally import Tally
from gemsdata.masking.masker import Masker
from gemsdata.masking.strategies import TARGET_RATE, Strategy
from gemsdata.shards.schema import Rows
from gemsdata.shards.shard_set import ShardSet

BLOCK_ROWS = 512
LONGEST_RUN = 40
"""runs of masked tokens from this length on share the last bar of the histogram"""
NUM_TOP_KMERS = 20
RATE_TOLERANCE = 0.015
SAME_MASKS = 0.5
"""share of pairs of different rows with one mask from which the masks are said not to depend on the sequence"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that a user should know before training with these masks."""

    level: str
    """``alarm``: the strategy does not do what its name says; ``warning``: legitimate, but know it"""
    text: str


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What masks do to rows of DNA. Rates and shares are 0..1; positions count tokens of the row, without [CLS]."""

    masking: dict[str, Any]
    """the strategy as `Strategy.describe` gives it"""
    k: int
    num_rows: int
    num_tokens: int
    masked_token_rate: float
    hidden_nucleotide_rate: float
    """bases that no unmasked token shows, of all bases"""
    given_away_by_unmasked: float
    """share of masked tokens all of whose bases are shown by unmasked tokens"""
    given_away_by_kept: float
    """further share of masked tokens that are shown in full once the kept 10 % inside a span are read as well"""
    hidden_shown_by_kept: float
    """share of the hidden nucleotides that a kept token shows"""
    mean_rank_of_tokens: float | None
    mean_rank_of_chosen: float | None
    """mean true NPMI rank of the tokens around which wide spans were laid; None without ranks or wide spans"""
    same_mask_share: float | None
    """share of pairs of different rows that get the same mask under the same key"""
    rate_by_position: list[float | None]
    """None where no row reaches"""
    rate_by_rank_decile: list[float | None] | None
    """first the best-ranked tenth of the k-mers; None where no token of a decile occurs, or without ranks"""
    rate_in_soft_masked: float | None
    """masked share of the tokens whose middle base is soft-masked (repeats)"""
    rate_outside_soft_masked: float | None
    run_lengths: dict[str, int]
    """length of each run of masked tokens -> number of runs"""
    most_masked_kmers: list[dict[str, Any]]
    findings: list[Finding]

    def as_dict(self) -> dict[str, Any]:
        """Return the audit as a JSON-able dict."""
        return asdict(self)

    @property
    def alarms(self) -> list[Finding]:
        """The findings that mean the strategy is broken."""
        return [finding for finding in self.findings if finding.level == "alarm"]


def audit(
    shards: ShardSet | str | Path,
    masking: str | Strategy,
    *,
    num_rows: int = 2000,
    split: str = "train",
    seed: int = 0,
    stage: int = 0,
    progress: Progress = no_progress,
) -> Audit:
    """Mask rows spread evenly over a split of a shard set, and say what the masks do.

    Raises ValueError for an unknown strategy or an empty split, FileNotFoundError where there is no shard set.
    """
    if num_rows < 2:
        raise ValueError(f"{num_rows} rows are too few to audit: give 2 or more (2000 is usual)")
    shards = shards if isinstance(shards, ShardSet) else ShardSet.open(shards)
    masker = Masker(masking, ranks=shards.ranks, seed=seed)
    available = shards.num_rows(split)
    if available < 2:
        raise ValueError(f"split {split!r} has {available} rows, too few to audit")
    row_ids = np.unique(np.linspace(0, available - 1, num_rows).astype(np.int64))

    def blocks() -> Iterator[tuple[Rows, np.ndarray, np.ndarray | None]]:
        for first in range(0, len(row_ids), BLOCK_ROWS):
            here = row_ids[first : first + BLOCK_ROWS]
            rows = shards.read(split, here)
            yield rows, here, _soft_masked(shards, rows)
            progress("auditing", len(here), len(row_ids))

    return audit_rows(masker, blocks(), stage=stage)


def audit_rows(
    masker: Masker, blocks: Iterator[tuple[Rows, np.ndarray, np.ndarray | None]], *, stage: int = 0
) -> Audit:
    """Return the audit of blocks of (rows, row ids int64[B], soft-masked bases bool[B, L+k-1] or None)."""
    tally: Tally | None = None
    for rows, row_ids, soft in blocks:
        tally = tally or Tally(masker, rows.input_ids.shape[1])
        tally.add(rows, row_ids, soft, stage)
    if tally is None:
        raise ValueError("there are no rows to audit")
    result = _result(tally)
    result.findings.extend(_findings(tally, result))
    return result


def _result(tally: Tally) -> Audit:
    masker, num_masked, num_tokens = tally.masker, tally.masked_at.sum(), tally.reached.sum()
    has_ranks = bool(masker.ranks.any())
    deciles = _deciles(masker.ranks, masker.k)
    tenths = [deciles == d for d in range(10)]
    return Audit(
        masking=masker.strategy.describe(),
        k=masker.k,
        num_rows=tally.num_rows,
        num_tokens=int(num_tokens),
        masked_token_rate=_share(num_masked, num_tokens) or 0.0,
        hidden_nucleotide_rate=_share(tally.num_hidden, tally.num_bases) or 0.0,
        given_away_by_unmasked=_share(tally.given_by_unmasked, num_masked) or 0.0,
        given_away_by_kept=_share(tally.given_by_kept, num_masked) or 0.0,
        hidden_shown_by_kept=_share(tally.num_hidden - tally.num_hidden_left, tally.num_hidden) or 0.0,
        mean_rank_of_tokens=_share((tally.occurs * masker.ranks.astype(np.int64)).sum(), num_tokens)
        if has_ranks
        else None,
        mean_rank_of_chosen=_share(tally.chosen_rank_sum, tally.num_chosen) if has_ranks else None,
        same_mask_share=_share(tally.num_same, tally.num_pairs),
        rate_by_position=_shares(tally.masked_at, tally.reached),
        rate_by_rank_decile=_shares(
            [tally.masked_ids[tenth].sum() for tenth in tenths], [tally.occurs[tenth].sum() for tenth in tenths]
        )
        if has_ranks
        else None,
        rate_in_soft_masked=_share(tally.soft[1, 1], tally.soft[1].sum()),
        rate_outside_soft_masked=_share(tally.soft[0, 1], tally.soft[0].sum()),
        run_lengths=_histogram(tally.run_lengths),
        most_masked_kmers=_most_masked(tally),
        findings=[],
    )


def _histogram(runs: np.ndarray) -> dict[str, int]:
    """Return length -> number of runs, from 1 to the longest; what is LONGEST_RUN or longer stands together."""
    longest = int(np.flatnonzero(runs).max(initial=0))
    out = {str(length): int(runs[length]) for length in range(1, min(longest + 1, LONGEST_RUN))}
    if longest >= LONGEST_RUN:
        out[f"{LONGEST_RUN}+"] = int(runs[LONGEST_RUN:].sum())
    return out


def _most_masked(tally: Tally) -> list[dict[str, Any]]:
    """Return the k-mers of which the largest share is masked, by the lower end of Wilson's interval (3 deviations)."""
    k, occurs = tally.masker.k, tally.occurs
    n = np.maximum(occurs, 1)
    rate = tally.masked_ids / n
    lower = (rate + 4.5 / n - 3 * np.sqrt(rate * (1 - rate) / n + 2.25 / n**2)) / (1 + 9 / n)
    top = [int(i) for i in np.argsort(-lower, kind="stable")[:NUM_TOP_KMERS] if rate[i] > 0]
    return [
        {
            "kmer": token(i, k),
            "rank": int(tally.masker.ranks[i]),
            "occurrences": int(occurs[i]),
            "masked_rate": float(rate[i]),
        }
        for i in top
    ]


def _findings(tally: Tally, result: Audit) -> Iterator[Finding]:
    yield from _content_findings(tally, result)
    yield from _position_findings(tally, result.masked_token_rate)
    if tally.masker.strategy.budget is not None:
        if tally.num_off_budget:
            yield Finding(
                level="alarm", text=f"{tally.num_off_budget} of {tally.num_rows} rows miss their exact budget"
            )
    elif abs(result.masked_token_rate - TARGET_RATE) > RATE_TOLERANCE:
        yield Finding(
            level="warning",
            text=f"{result.masked_token_rate:.1%} of tokens are masked, {TARGET_RATE:.0%} are usual;"
            " compare strategies at an exact --budget",
        )


def _content_findings(tally: Tally, result: Audit) -> Iterator[Finding]:
    strategy = tally.masker.strategy
    if result.same_mask_share is not None and result.same_mask_share >= SAME_MASKS:
        share = f"{result.same_mask_share:.0%} of pairs of different rows get one mask under one key"
        if strategy.uses_ranks:
            text = f"masks ignore the sequence, though {strategy.name!r} is to choose by rank: {share}"
            yield Finding(level="alarm", text=text)
        else:
            text = f"masks do not depend on the sequence, and {strategy.name!r} does not claim it: {share}"
            yield Finding(level="warning", text=text)
    chosen, tokens = result.mean_rank_of_chosen, result.mean_rank_of_tokens
    if strategy.uses_ranks and chosen is not None and tokens is not None and chosen > 0.7 * tokens:
        yield Finding(
            level="alarm",
            text=f"ranks are not used: chosen tokens have mean rank {chosen:,.0f}, all tokens {tokens:,.0f}",
        )


def _position_findings(tally: Tally, rate: float) -> Iterator[Finding]:
    never = np.flatnonzero((tally.masked_at == 0) & (tally.reached * rate >= 20))
    if len(never):
        examples = ", ".join(map(str, never[:5].tolist())) + (", ..." if len(never) > 5 else "")
        yield Finding(
            level="alarm", text=f"{len(never)} of {len(tally.reached)} positions are never masked: {examples}"
        )
    inner = slice(2 * tally.masker.k, -2 * tally.masker.k)
    reached = tally.reached[inner]
    full = reached > 0.9 * reached.max(initial=1)
    if full.sum() >= 20 and 0 < rate < 1:
        rates = (tally.masked_at[inner] / np.maximum(reached, 1))[full]
        noise = np.sqrt(rate * (1 - rate) / reached[full].mean())
        if rates.std() > 2 * noise:
            yield Finding(
                level="warning",
                text=f"the rate depends on the position: {rates.min():.1%} to {rates.max():.1%} at inner positions,"
                f" {rates.std() / noise:.0f} times the spread that chance gives",
            )


def _soft_masked(shards: ShardSet, rows: Rows) -> np.ndarray:
    """Return which bases of each row are soft-masked, bool[B, L+k-1]."""
    out = np.zeros((len(rows), rows.input_ids.shape[1] + shards.k - 1), bool)
    for i in range(len(rows)):
        start, num_bases = int(rows.start[i]), int(rows.num_tokens[i]) + shards.k - 1
        out[i, :num_bases] = shards.soft_masked(int(rows.contig[i]), start, start + num_bases)
    return out


def _deciles(ranks: np.ndarray, k: int) -> np.ndarray:
    """Return the rank decile (0 the best) of every token id; special ids get -1."""
    out = np.minimum((ranks.astype(np.int64) - 1) * 10 // num_kmers(k), 9)
    out[:NUM_SPECIAL] = -1
    return out


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _shares(parts: Any, wholes: Any) -> list[float | None]:
    return [_share(part, whole) for part, whole in zip(parts, wholes, strict=True)]
