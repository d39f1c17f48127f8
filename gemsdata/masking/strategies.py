"""Masking strategies: where the spans of a row go.

A strategy is a small frozen dataclass; its name resolves to it (``resolve("genemask")``). It answers one question:
given some random centres, where do the spans of this row go? How many centres there are (a rate or an exact budget),
the corruption and the labels are the same for all, and are carried out by `gemsdata.masking.masker.Masker`.

Sources: GeneMask (arXiv 2307.15933), CM-GEMS (2408.07180), DNABERT (Ji et al. 2021), RandomMask (2310.07644). Where
the paper and the published script differ, the script's behaviour has a name of its own that ends in ``-released``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from gemsdata.kernels.spans import BEST_OF_ROW, BEST_OF_WINDOW, LENGTH_RANGE, WINDOW
from gemsdata.masking.registry import find_strategy, register

MASKING_VERSION = 2
"""Raised whenever the same key would give another mask or another batch; part of every saved state"""

TARGET_RATE = 0.15
"""The fraction of tokens that every published recipe sets out to mask"""
MIN_RATE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a strategy of your own sees of a row of T tokens."""

    token_ids: np.ndarray
    """token ids, uint16[T] (uint32 from k = 8); no special tokens"""
    ranks: np.ndarray
    """NPMI rank of each token, integers[T]; 1 is the best"""
    k: int
    stage: int
    key: int
    """64-bit key of this row for your own random draws: fold in a number >= 16, then draw (`gemsdata.kernels.keys`)"""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """What all strategies have in common. Subclass it and write `place` to add one; see docs/masking.md."""

    rate: float | None = None
    """probability that a token is a centre; default: 0.15 / tokens in a span, to four decimals"""
    budget: float | None = None
    """mask exactly round(budget * T) tokens in every row, by as many spans as that takes; replaces ``rate``"""
    budget_unit: Literal["token", "nucleotide"] = "token"
    """what the budget counts: masked tokens, or bases that no unmasked token shows (of T + k - 1)"""
    corruption: Literal["token", "span"] = "token"
    """80/10/10 decided for each masked token (as published), or once for each run of masked tokens (no leak within)"""

    name: ClassVar[str] = ""
    uses_ranks: ClassVar[bool] = False
    """it claims to choose by NPMI rank, so masks must depend on the sequence (``gemsdata audit`` checks it)"""
    random_specials: ClassVar[bool] = False
    """random replacements come from all ids, special tokens included, as in the published scripts"""

    def __post_init__(self) -> None:
        if self.rate is not None and not MIN_RATE <= self.rate <= 1:
            raise ValueError(f"rate = {self.rate} is out of range: give the probability of a centre, {MIN_RATE} to 1")
        if self.budget is not None and not 0 <= self.budget <= 1:
            raise ValueError(
                f"budget = {self.budget} is out of range: give the fraction to mask, 0 to 1 (0.15 is usual)"
            )
        if self.rate is not None and self.budget is not None:
            raise ValueError(
                f"both rate = {self.rate} and budget = {self.budget} are given: a budget replaces the rate, give one"
            )
        if self.budget_unit not in ("token", "nucleotide"):
            raise ValueError(f"budget_unit = {self.budget_unit!r} is unknown: use 'token' or 'nucleotide'")
        if self.corruption not in ("token", "span"):
            raise ValueError(f"corruption = {self.corruption!r} is unknown: use 'token' or 'span'")

    def span_tokens(self, k: int, stage: int) -> float:
        """Return the mean number of tokens in a span, from which the default rate follows."""
        return k

    def centre_rate(self, k: int, stage: int) -> float:
        """Return the probability that a token is a centre."""
        return self.rate if self.rate is not None else round(TARGET_RATE / self.span_tokens(k, stage), 4)

    def place(self, row: Row, centres: np.ndarray) -> Sequence[tuple[int, int]]:
        """Return the spans (lo, hi) of a row, half-open token positions, the most important first.

        ``centres`` are distinct random token positions (int64[n], n may be 0). Spans are clipped to the row; they may
        overlap.
        """
        raise NotImplementedError(f"{type(self).__name__} has no place(row, centres)")

    def describe(self) -> dict[str, Any]:
        """Return the strategy as a JSON-able dict, for fingerprints and saved states."""
        return {"name": self.name, **dataclasses.asdict(self), "masking_version": MASKING_VERSION}


@dataclass(frozen=True, kw_only=True)
class Compiled(Strategy):
    """A strategy whose spans are laid by a compiled kernel."""

    by_position: ClassVar[bool] = False
    """look ranks up under the token's position instead of its id: the fault of the published scripts"""
    special_rank: ClassVar[int | None] = None
    """rank that positions 1..4 get when looked up as special ids; None: the worst"""

    def plan(self, k: int, stage: int) -> tuple[int, int, int]:
        """Return the kernel's method and its two numbers (see kernels.mask.select)."""
        raise NotImplementedError


def resolve(masking: str | Strategy, **options: Any) -> Strategy:
    """Return the strategy of a name, with ``options`` for its fields; of a strategy, it with the options replaced.

    Raises ValueError for an unknown name or option.
    """
    if not isinstance(masking, str | Strategy):
        raise ValueError(f"masking {masking!r} is neither a strategy nor the name of one, such as 'genemask'")
    cls = find_strategy(masking) if isinstance(masking, str) else type(masking)
    unknown = set(options) - {field.name for field in dataclasses.fields(cls)}
    if unknown:
        raise ValueError(f"masking {cls.name!r} has no option {', '.join(sorted(unknown))}")
    return cls(**options) if isinstance(masking, str) else dataclasses.replace(masking, **options)


@register("random-token")
@dataclass(frozen=True, kw_only=True)
class RandomToken(Compiled):
    """BERT's masking: every token independently. The trivial baseline, because the neighbours give the answer away."""

    def span_tokens(self, k: int, stage: int) -> float:  # noqa: D102
        return 1

    def plan(self, k: int, stage: int) -> tuple[int, int, int]:  # noqa: D102
        return WINDOW, 0, 0


@register("dnabert")
@dataclass(frozen=True, kw_only=True)
class Dnabert(Compiled):
    """DNABERT's masking: the k tokens that cover each centre's base (k = 6: c-2..c+3); hides one base a span."""

    def plan(self, k: int, stage: int) -> tuple[int, int, int]:  # noqa: D102
        return WINDOW, (k - 1) // 2, k // 2


@register("random-span")
@dataclass(frozen=True, kw_only=True)
class RandomSpan(Compiled):
    """The 2k-1 tokens around each centre: `GlobalMask` without its choice, the control that neither paper ran."""

    def span_tokens(self, k: int, stage: int) -> float:  # noqa: D102
        return 2 * k - 1

    def plan(self, k: int, stage: int) -> tuple[int, int, int]:  # noqa: D102
        return WINDOW, k - 1, k - 1


@register("genemask")
@dataclass(frozen=True, kw_only=True)
class GeneMask(Compiled):
    """GeneMask's paper: each centre finds the best-ranked token near it; the better half of them get 2k-1 tokens."""

    uses_ranks: ClassVar[bool] = True
    min_high: ClassVar[int] = 0

    def span_tokens(self, k: int, stage: int) -> float:  # noqa: D102
        return (k + 2 * k - 1) / 2

    def plan(self, k: int, stage: int) -> tuple[int, int, int]:  # noqa: D102
        return BEST_OF_WINDOW, 0, self.min_high


@register("genemask-released")
@dataclass(frozen=True, kw_only=True)
class GeneMaskReleased(GeneMask):
    """GeneMask as its published script runs: ranks looked up by position, so the masks ignore the sequence.

    Also as there: with fewer than five centres in the better half all get the long span, and random replacements may be
    special tokens. For comparisons only.
    """

    min_high: ClassVar[int] = 5
    by_position: ClassVar[bool] = True
    special_rank: ClassVar[int | None] = 0
    random_specials: ClassVar[bool] = True


@register("global")
@dataclass(frozen=True, kw_only=True)
class GlobalMask(Compiled):
    """Global-PMI masking (CM-GEMS, Algorithm 1): the 2k-1 tokens around the best-ranked tokens of the whole row."""

    uses_ranks: ClassVar[bool] = True
    non_overlapping: ClassVar[bool] = False

    def span_tokens(self, k: int, stage: int) -> float:  # noqa: D102
        return 2 * k - 1

    def plan(self, k: int, stage: int) -> tuple[int, int, int]:  # noqa: D102
        return BEST_OF_ROW, 2 * (k - 1) if self.non_overlapping else 0, 0


@register("global-nms")
@dataclass(frozen=True, kw_only=True)
class GlobalNms(GlobalMask):
    """`GlobalMask` that skips tokens within 2(k-1) positions of one already chosen, so that spans never overlap."""

    non_overlapping: ClassVar[bool] = True


@register("global-released")
@dataclass(frozen=True, kw_only=True)
class GlobalReleased(GlobalMask):
    """Global-PMI masking as its published script runs: ranks by position, so every row has the same centres."""

    by_position: ClassVar[bool] = True
    random_specials: ClassVar[bool] = True


@register("randommask")
@dataclass(frozen=True, kw_only=True)
class RandomMask(Compiled):
    """RandomMask: a span of random length around each centre, from a range that grows with the stage; no NPMI."""

    min_tokens: int | None = None
    """shortest span; default k"""
    max_tokens: tuple[int, ...] | None = None
    """longest span in stage 0, 1, ... (later stages use the last); default k, k+2, ..., 3k"""

    def __post_init__(self) -> None:
        super().__post_init__()
        low = 1 if self.min_tokens is None else self.min_tokens
        if low < 1 or (self.max_tokens is not None and (not self.max_tokens or min(self.max_tokens) < low)):
            raise ValueError(
                f"min_tokens = {self.min_tokens} and max_tokens = {self.max_tokens} do not fit:"
                " give 1 <= min_tokens <= every entry of max_tokens"
            )

    def lengths(self, k: int, stage: int) -> tuple[int, int]:
        """Return the shortest and the longest span of a stage, in tokens."""
        low = k if self.min_tokens is None else self.min_tokens
        longest = self.max_tokens or tuple(range(low, 3 * k + 1, 2)) or (low,)
        return low, longest[min(stage, len(longest) - 1)]

    def span_tokens(self, k: int, stage: int) -> float:  # noqa: D102
        return sum(self.lengths(k, stage)) / 2

    def plan(self, k: int, stage: int) -> tuple[int, int, int]:  # noqa: D102
        return LENGTH_RANGE, *self.lengths(k, stage)
