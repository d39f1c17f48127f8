"""Masking strategies: which spans of a row are masked.

A strategy is a small frozen dataclass with a name (``resolve("genemask")``). Given random centres, it decides which
bases of a row are hidden. Every token that touches a hidden base is masked. How many centres there are (a rate or an
exact budget), the corruption and the labels are the same for all strategies, and are carried out by
`gemsdata.masking.masker.Masker`.

Sources: GeneMask (arXiv 2307.15933), CM-GEMS (2408.07180), DNABERT (Ji et al. 2021), RandomMask (2310.07644). Where
the paper and the published script differ, the script's behaviour has a name of its own that ends in ``-released``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from gemsdata.kernels.spans import BEST_NEAR_CENTRE, BEST_OF_ROW, CENTRE_BASE, CENTRE_GRAM, LENGTH_RANGE, TOKEN
from gemsdata.masking.registry import find_strategy, register

MASKING_VERSION = 2
"""Increased whenever the same key would give another mask or another batch; part of every saved state"""

TARGET_RATE = 0.15
"""The fraction of tokens that every published recipe aims to mask"""
MIN_RATE = 1e-4
CORRUPTIONS = ("token", "span", "mask")
"""how masked tokens are replaced, see `Strategy.corruption`"""
MIN_N, MAX_N = 2, 10
"""lengths of the n-grams that can be ranked and hidden"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of T tokens over W bases, the input of a strategy written in Python."""

    bases: np.ndarray
    """A0 T1 C2 G3, 4 for any other letter, uint8[W]"""
    token_ids: np.ndarray
    """token ids, uint16 or uint32[T]; no special tokens"""
    ranks: np.ndarray
    """NPMI rank of each n-gram, integers[W - n + 1]; 1 is the best; undefined over letters other than A, C, G and T"""
    n: int
    """bases of an n-gram"""
    stage: int
    key: int
    """64-bit key of this row for your own random draws: fold in a number >= 16, then draw (`gemsdata.kernels.keys`)"""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """Base class of masking strategies. Subclass it and write `place` to add one; see docs/masking.md."""

    rate: float | None = None
    """probability that a base (or n-gram or token, depending on the strategy) is a centre; default: 15 % of the tokens
    would be masked if spans never overlapped, to four decimals"""
    budget: float | None = None
    """mask exactly round(budget * T) of the T tokens of every row, with as many spans as needed; replaces ``rate``"""
    budget_unit: Literal["token", "nucleotide"] = "token"
    """unit of the budget: masked tokens, or bases that no unmasked token shows"""
    corruption: Literal["token", "span", "mask"] = "token"
    """80/10/10 decided for each masked token (as published), or once for each run of masked tokens (no leak within);
    "mask": all masked tokens become [MASK]"""
    n: int | None = None
    """bases of the n-grams that are ranked and hidden, 2 to 10; default: k for k-mers of 2 to 10 bases, else 6"""

    name: ClassVar[str] = ""
    uses_ranks: ClassVar[bool] = False
    """whether it chooses by NPMI rank, so that masks must depend on the sequence (``gemsdata audit`` checks it)"""
    random_specials: ClassVar[bool] = False
    """whether random replacements include special tokens, as in the published scripts"""

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
        if self.corruption not in CORRUPTIONS:
            raise ValueError(f"corruption = {self.corruption!r} is unknown: use {', '.join(CORRUPTIONS)}")
        if self.n is not None and not MIN_N <= self.n <= MAX_N:
            raise ValueError(f"n = {self.n} is out of range: give the bases of an n-gram, {MIN_N} to {MAX_N}")

    def span_bases(self, n: int, stage: int) -> float:
        """Return the mean number of bases that a span hides, from which the default rate follows."""
        return 1

    def centre_rate(self, n: int, token_bases: int, stage: int) -> float:
        """Return the probability of a centre; a span of h bases touches h + token_bases - 1 tokens per token stride."""
        if self.rate is not None:
            return self.rate
        return round(TARGET_RATE / max(1, self.span_bases(n, stage) + token_bases - 1), 4)

    def place(self, row: Row, centres: np.ndarray) -> Sequence[tuple[int, int]]:
        """Return the spans of a row, (first, end) of the bases to hide, half-open, the most important first.

        ``centres`` are distinct random positions of bases (int64[m], m may be 0). Spans are clipped to the row; they
        may overlap. Every token that touches a hidden base is masked.
        """
        raise NotImplementedError(f"{type(self).__name__} has no place(row, centres)")

    def describe(self) -> dict[str, Any]:
        """Return the strategy as a JSON-able dict, for fingerprints and saved states."""
        return {"name": self.name, **dataclasses.asdict(self), "masking_version": MASKING_VERSION}


@dataclass(frozen=True, kw_only=True)
class Compiled(Strategy):
    """A strategy whose spans are placed by a compiled kernel."""

    by_position: ClassVar[bool] = False
    """look up ranks by the n-gram's position instead of its id: the defect of the published scripts"""
    special_rank: ClassVar[int | None] = None
    """rank of positions 1..4, which are looked up as special ids; None: the worst"""

    def method(self, n: int, stage: int) -> tuple[int, int, int]:
        """Return the kernel's method and its two numbers (see `gemsdata.kernels.spans.Chooser`)."""
        raise NotImplementedError


def resolve(masking: str | Strategy, **options: Any) -> Strategy:
    """Return the strategy with this name, or the given strategy; ``options`` replace its fields.

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
    """BERT's masking: every token independently; a trivial baseline, because overlapping neighbours show the answer."""

    def centre_rate(self, n: int, token_bases: int, stage: int) -> float:  # noqa: D102
        return TARGET_RATE if self.rate is None else self.rate

    def method(self, n: int, stage: int) -> tuple[int, int, int]:  # noqa: D102
        return TOKEN, 0, 0


@register("dnabert")
@dataclass(frozen=True, kw_only=True)
class Dnabert(Compiled):
    """DNABERT's masking: a single base at each centre (with overlapping 6-mers, the tokens c-2..c+3)."""

    def method(self, n: int, stage: int) -> tuple[int, int, int]:  # noqa: D102
        return CENTRE_BASE, 0, 0


@register("random-span")
@dataclass(frozen=True, kw_only=True)
class RandomSpan(Compiled):
    """A random n-gram at each centre: the control for `GlobalMask` that neither paper ran."""

    def span_bases(self, n: int, stage: int) -> float:  # noqa: D102
        return n

    def method(self, n: int, stage: int) -> tuple[int, int, int]:  # noqa: D102
        return CENTRE_GRAM, 0, 0


@register("genemask")
@dataclass(frozen=True, kw_only=True)
class GeneMask(Compiled):
    """GeneMask's paper: each centre finds the best-ranked n-gram over its base; the better half hide it."""

    uses_ranks: ClassVar[bool] = True
    min_high: ClassVar[int] = 0

    def span_bases(self, n: int, stage: int) -> float:  # noqa: D102
        return (1 + n) / 2

    def method(self, n: int, stage: int) -> tuple[int, int, int]:  # noqa: D102
        return BEST_NEAR_CENTRE, 0, self.min_high


@register("genemask-released")
@dataclass(frozen=True, kw_only=True)
class GeneMaskReleased(GeneMask):
    """GeneMask as in its published script: ranks are looked up by position, so the masks ignore the sequence.

    As in the script, all centres hide an n-gram if the better half has fewer than five, and random replacements may be
    special tokens. For comparisons only.
    """

    min_high: ClassVar[int] = 5
    by_position: ClassVar[bool] = True
    special_rank: ClassVar[int | None] = 0
    random_specials: ClassVar[bool] = True


@register("global")
@dataclass(frozen=True, kw_only=True)
class GlobalMask(Compiled):
    """Global-PMI masking (CM-GEMS, Algorithm 1): the best-ranked n-grams of the whole row."""

    uses_ranks: ClassVar[bool] = True
    non_overlapping: ClassVar[bool] = False

    def span_bases(self, n: int, stage: int) -> float:  # noqa: D102
        return n

    def method(self, n: int, stage: int) -> tuple[int, int, int]:  # noqa: D102
        return BEST_OF_ROW, 2 * (n - 1) if self.non_overlapping else 0, 0


@register("global-nms")
@dataclass(frozen=True, kw_only=True)
class GlobalNms(GlobalMask):
    """`GlobalMask` that skips n-grams within 2(n-1) bases of one already chosen, so that spans never overlap."""

    non_overlapping: ClassVar[bool] = True


@register("global-released")
@dataclass(frozen=True, kw_only=True)
class GlobalReleased(GlobalMask):
    """Global-PMI masking as in its published script: ranks by position, so every row has the same centres."""

    by_position: ClassVar[bool] = True
    random_specials: ClassVar[bool] = True


@register("randommask")
@dataclass(frozen=True, kw_only=True)
class RandomMask(Compiled):
    """RandomMask: a span of random length around each centre, from a range that grows with the stage; no NPMI.

    Lengths are counted in overlapping n-grams, as published: l of them hide l - n + 1 bases (at least one, if tokens
    are not n-grams).
    """

    min_tokens: int | None = None
    """shortest span; default n"""
    max_tokens: tuple[int, ...] | None = None
    """longest span in stage 0, 1, ... (later stages use the last); default n, n+2, ..., 3n"""

    def __post_init__(self) -> None:
        super().__post_init__()
        low = 1 if self.min_tokens is None else self.min_tokens
        if low < 1 or (self.max_tokens is not None and (not self.max_tokens or min(self.max_tokens) < low)):
            raise ValueError(
                f"min_tokens = {self.min_tokens} and max_tokens = {self.max_tokens} do not fit:"
                " give 1 <= min_tokens <= every entry of max_tokens"
            )

    def lengths(self, n: int, stage: int) -> tuple[int, int]:
        """Return the shortest and the longest span of a stage, in overlapping n-grams."""
        low = n if self.min_tokens is None else self.min_tokens
        longest = self.max_tokens or tuple(range(low, 3 * n + 1, 2)) or (low,)
        return low, longest[min(stage, len(longest) - 1)]

    def span_bases(self, n: int, stage: int) -> float:  # noqa: D102
        return sum(self.lengths(n, stage)) / 2 - n + 1

    def method(self, n: int, stage: int) -> tuple[int, int, int]:  # noqa: D102
        return LENGTH_RANGE, *self.lengths(n, stage)
