"""The options of a shard set, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gemsdata.genome.vocab import check_k, token_dtype
from gemsdata.npmi.estimators import DISCOUNT_COUNT, check_estimator
from gemsdata.shards import windows
from gemsdata.shards.manifest import COMPRESSIONS, PACKED_CODEC, PACKED_VERSION, PACKED_VOCABULARY, SCHEMES
from gemsdata.shards.manifest_fields import WindowInfo

FORMATS = {
    "arrow": ("arrow",),
    "webdataset": ("webdataset",),
    "both": ("arrow", "webdataset"),
    "packed": ("packed",),
}

_MOST_ROWS_PER_SHARD = 32768
_MOST_BASES_PER_SHARD = 1 << 26
"""blocks per shard of a packed set: 16 MB, the unit that is fetched from a URL"""
_SHARDS_WANTED = 8
_MOST_SHARDS = 100_000
"""of a split: the shards of larger ones are larger, so that a manifest opens in a second"""


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """Everything besides the genome that determines the bytes of a shard set."""

    format: str = "arrow"
    k: int = 6
    row_tokens: int = 510
    scheme: str = "fixed"
    valid_contigs: tuple[str, ...] = ()
    valid_fraction: float = 0.02
    """share of the ACGT bases held out; ignored if valid_contigs are given"""
    npmi: str | None = None
    """path of a table with the ranks; None: count this genome"""
    estimator: str | None = None
    """None: the one of the table given by npmi, or else "published" """
    min_count: int = DISCOUNT_COUNT
    canonical: bool = False
    exclude_soft_masked: bool = False
    compression: str = "none"
    """compression of Arrow shards, or of WebDataset shards if there are no Arrow shards"""
    rank_column: bool = False
    seed: int = 0
    block_rows: int = 1024
    rows_per_shard: int | None = None
    """None: 32,768, or fewer so that a small set still has about eight shards for its readers' workers"""

    def __post_init__(self) -> None:
        check_k(self.k)
        if self.estimator is not None:
            check_estimator(self.estimator)
        if self.npmi and (self.canonical or self.exclude_soft_masked or self.min_count != DISCOUNT_COUNT):
            raise ValueError(
                f"{self.npmi} already has counts; min-count, canonical and exclude-soft-masked apply to new counts "
                "only: give them to `gemsdata npmi` instead"
            )
        _check_choice("format", self.format, FORMATS)
        _check_choice("windows", self.scheme, SCHEMES)
        _check_choice("compression", self.compression, COMPRESSIONS)
        _check_range("row-tokens", self.row_tokens, 1, 65535)
        _check_range("block-rows", self.block_rows, 1, 1 << 20)
        _check_range("seed", self.seed, 0, (1 << 63) - 1)
        _check_range("min-count", self.min_count, 1, (1 << 62))
        if not 0 <= self.valid_fraction < 1:
            raise ValueError(f"valid-fraction = {self.valid_fraction}; a share from 0 to below 1 is needed")
        if self.rows_per_shard is not None and (self.rows_per_shard < 1 or self.rows_per_shard % self.block_rows):
            raise ValueError(
                f"rows-per-shard = {self.rows_per_shard}; a multiple of block-rows = {self.block_rows} is needed"
            )
        if self.packed:
            self._check_packed()

    @property
    def packed(self) -> bool:
        """Whether shards store packed bases, from which views cut rows, instead of rows of tokens."""
        return self.format == "packed"

    def num_rows_of_shard(self, num_rows: int, block_rows: int, row_tokens: int) -> int:
        """Return the number of rows of a full shard, in a split of ``num_rows`` rows.

        ``block_rows`` and ``row_tokens`` are those of the manifest: for a packed set, they depend on the genome.
        """
        if self.rows_per_shard is not None:
            return self.rows_per_shard
        most = _MOST_BASES_PER_SHARD // row_tokens if self.packed else _MOST_ROWS_PER_SHARD
        blocks = -(-num_rows // (_SHARDS_WANTED * block_rows))
        least = -(-num_rows // (_MOST_SHARDS * block_rows))
        return max(min(max(blocks, 1), max(most // block_rows, 1)), least) * block_rows

    def _check_packed(self) -> None:
        defaults = {"row_tokens": 510, "scheme": "fixed", "compression": "none", "rank_column": False}
        options = {"row_tokens": "--row-tokens", "scheme": "--windows", "compression": "--compression"}
        for name, default in defaults.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f"{options.get(name, '--rank-column')} does not apply to --format packed, which holds bases: rows"
                    " and tokens are chosen when the set is read, by gemsdata.view(SET, tokens=..., row_tokens=...)"
                )

    def manifest_fields(self) -> dict[str, Any]:
        """Return the manifest fields that follow from the options alone (for a packed set, some are missing)."""
        if self.packed:
            return {
                "version": PACKED_VERSION,
                "k": self.k,
                "vocabulary": PACKED_VOCABULARY,
                "token_dtype": "uint8",
                "seed": self.seed,
                "formats": ["packed"],
                "codec": PACKED_CODEC,
                "compression": "none",
                "rank_column": False,
            }
        full_bases = self.row_tokens + self.k - 1
        scheme = WindowInfo(scheme=self.scheme, full_bases=full_bases)
        if self.scheme == "dnabert":
            longest = min(windows.DNABERT_LONGEST_BASES, full_bases)
            scheme = replace(scheme, shortest_bases=windows.DNABERT_SHORTEST_BASES, longest_bases=longest)
        return {
            "k": self.k,
            "row_tokens": self.row_tokens,
            "token_dtype": token_dtype(self.k).name,
            "windows": scheme,
            "seed": self.seed,
            "formats": list(FORMATS[self.format]),
            "compression": self.compression,
            "block_rows": self.block_rows,
            "rank_column": self.rank_column,
        }


def _check_choice(name: str, value: str, choices: Mapping[str, Any] | tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} {value!r} is unknown; choose one of {', '.join(choices)}")


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} = {value}; a number from {low} to {high} is needed")
