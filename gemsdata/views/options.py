"""What a user can ask of a view, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gemsdata.views.tokens import Tokens

UNKNOWN = ("break", "token")
DEFAULT_ROW_TOKENS = 510
MOST_ROW_BASES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """What rows are; see `gemsdata.view`."""

    row_tokens: int | None = None
    row_bases: int | None = None
    regions: str | Path | None = None
    flank: int = 0
    exclude: str | Path | None = None
    jitter: bool | None = None
    unknown: str = "break"
    loss_weight_soft_masked: float = 1.0
    mask_soft_masked: bool = True
    track: str | Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.unknown not in UNKNOWN:
            raise ValueError(f"unknown = {self.unknown!r}; give one of {', '.join(UNKNOWN)}")
        if self.flank < 0:
            raise ValueError(f"flank = {self.flank}; give the bases to add at either end of a region, 0 or more")
        if self.flank and self.regions is None:
            raise ValueError(f"flank = {self.flank} without regions; give regions, a BED file")
        if not 0 <= self.loss_weight_soft_masked <= 1:
            raise ValueError(f"loss_weight_soft_masked = {self.loss_weight_soft_masked}; give a weight, 0 to 1")
        if self.track is not None and self.loss_weight_soft_masked != 1:
            raise ValueError("track and loss_weight_soft_masked both give the weights of the loss; give one of the two")
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed = {self.seed}; give an integer from 0 to 2**63 - 1")
        for name in ("row_tokens", "row_bases"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST_ROW_BASES:
                raise ValueError(f"{name} = {value}; give a number from 1 to {MOST_ROW_BASES:,}")

    @property
    def weighted(self) -> bool:
        """Whether batches carry weights of the loss."""
        return self.track is not None or self.loss_weight_soft_masked != 1

    def geometry(self, tokens: Tokens) -> tuple[int, int]:
        """Return (tokens, bases) of a full row; raise ValueError where the two options contradict each other."""
        if tokens.varying:
            if self.row_bases is None:
                raise ValueError(
                    f"tokens {tokens.spec!r} vary in length: give row_bases, the bases of a row; row_tokens then is how"
                    " many tokens of them there is room for"
                )
            return self.row_tokens or tokens.row_tokens(self.row_bases), self.row_bases
        if self.row_bases is None:
            row_tokens = self.row_tokens or DEFAULT_ROW_TOKENS
            return row_tokens, tokens.row_bases(row_tokens)
        row_tokens = tokens.row_tokens(self.row_bases)
        if self.row_tokens not in (None, row_tokens):
            raise ValueError(
                f"row_tokens = {self.row_tokens} and row_bases = {self.row_bases} contradict each other:"
                f" {self.row_bases} bases are {row_tokens} tokens of {tokens.spec!r}; give one of the two"
            )
        return row_tokens, tokens.row_bases(row_tokens)
