"""The options of a view, checked once: the windows and tokens of its rows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemsdata.views.regions import Bed
from gemsdata.views.tokens import SPECS, Tokens

ANYWHERE = "anywhere"
"""in place of a BED file: no regions"""
UNKNOWN = ("break", "token")
DEFAULT_TOKENS = "kmer:6"
DEFAULT_ROW_TOKENS = 510
MOST_ROW_BASES = 1 << 24


def _shown(help_text: str, option: str | None = None, *, several: bool = False) -> dict[str, Any]:
    """Return the metadata of a field for the command line."""
    return {"help": help_text, "option": option, "several": several}


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """The options that define the rows of a view; `gemsdata.view` describes each of them.

    The metadata of every field has the ``help`` of its command-line option and, if it is not the field's name with
    dashes, the name of the ``option``, such as "--view-seed"; ``several`` says whether it may be given more than once.
    """

    tokens: str | Path | Tokens | None = field(
        default=None,
        metadata=_shown(f"tokens of a row: {SPECS}; default: {DEFAULT_TOKENS}, or those that the set stores"),
    )
    row_tokens: int | None = field(
        default=None, metadata=_shown(f"tokens of a full row; default: {DEFAULT_ROW_TOKENS}")
    )
    row_bases: int | None = field(default=None, metadata=_shown("bases of a full row, in place of its tokens"))
    regions: Bed | tuple[Bed, ...] | None = field(
        default=None,
        metadata=_shown(
            f"BED file; rows lie inside its intervals; of several ({ANYWHERE}: no file), rows are mixed", several=True
        ),
    )
    flank: int = field(default=0, metadata=_shown("bases to add at both ends of every region"))
    exclude: Bed | None = field(default=None, metadata=_shown("BED file; no row touches its intervals"))
    jitter: bool | None = field(
        default=None, metadata=_shown("whether windows are shifted in every epoch; default: in train, not in valid")
    )
    unknown: str = field(
        default="break", metadata=_shown("letters other than A, C, G, T: rows break at them, or have the unknown token")
    )
    loss_weight_soft_masked: float = field(
        default=1.0, metadata=_shown("weight of soft-masked bases in the loss, 0 to 1")
    )
    mask_soft_masked: bool = field(default=True, metadata=_shown("whether soft-masked bases may be masked"))
    track: str | Path | None = field(
        default=None, metadata=_shown("bigWig file with the weight of every base in the loss")
    )
    seed: int = field(default=0, metadata=_shown("random key of the shifts of the windows", "--view-seed"))

    def __post_init__(self) -> None:
        if isinstance(self.regions, tuple) and len(self.regions) < 2:
            object.__setattr__(self, "regions", self.regions[0] if self.regions else None)
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
        """Whether batches have loss weights."""
        return self.track is not None or self.loss_weight_soft_masked != 1

    def of_sets(self, num_sets: int) -> list[tuple[int, ViewOptions]]:
        """Return the views of several sets, as (number of the set, options).

        One BED file or none applies to every set; several are for several views of one set, or one for each set. Raises
        ValueError if they do not fit the sets.
        """
        if not isinstance(self.regions, tuple):
            return [(number, self) for number in range(num_sets)]
        if num_sets not in (1, len(self.regions)):
            raise ValueError(
                f"{len(self.regions)} BED files of regions for {num_sets} sets: give one file, one for each set, or"
                " several for one set"
            )
        numbers = range(num_sets) if num_sets > 1 else [0] * len(self.regions)
        return [(number, self._of_bed(bed)) for number, bed in zip(numbers, self.regions, strict=True)]

    def _of_bed(self, bed: Bed) -> ViewOptions:
        """Return the options with one of several BED files."""
        if bed == ANYWHERE:
            return dataclasses.replace(self, regions=None, flank=0)
        return dataclasses.replace(self, regions=bed)

    def single_regions(self) -> Bed | None:
        """Return the BED file of the regions; raise ValueError for several files, which need several views."""
        if isinstance(self.regions, tuple):
            raise ValueError(
                f"regions = {', '.join(map(str, self.regions))}: one view has one BED file; several are for serve and"
                " pretrain, which mix the rows, or for build_loader([view, view], weights=...)"
            )
        return self.regions

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their defaults."""
        return {
            option.name: getattr(self, option.name)
            for option in dataclasses.fields(self)
            if getattr(self, option.name) != option.default
        }

    def geometry(self, tokens: Tokens) -> tuple[int, int]:
        """Return (tokens, bases) of a full row; raise ValueError if the two options contradict each other."""
        if tokens.varying:
            if self.row_bases is None:
                raise ValueError(
                    f"tokens {tokens.spec!r} vary in length: give row_bases, the bases of a row; row_tokens then is the"
                    " largest number of tokens in a row"
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
