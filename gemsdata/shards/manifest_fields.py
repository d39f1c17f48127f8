"""The parts of a manifest: the genome, its contigs, windows, validation regions, NPMI table and shards."""

from __future__ import annotations

from dataclasses import dataclass, field

SUFFIXES = {"arrow": ".arrow", "webdataset": ".tar", "packed": ".arrow"}


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One file of a shard."""

    path: str
    """relative to the set's folder"""
    num_bytes: int
    xxh3_64: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Consecutive rows of a split, in one file per format."""

    first_row: int
    num_rows: int
    num_tokens: int
    content_xxh3_64: str
    """digest of the content of the rows: equal for every format and compression"""
    files: dict[str, ShardFile]
    """{"arrow": ..., "webdataset": ...}"""


@dataclass(frozen=True, kw_only=True)
class GenomeInfo:
    """The genome that a set was made from."""

    name: str
    sha256: str
    """digest of names, bases and intervals: the same for the same genome in any file format or line length"""
    num_bases: int
    num_not_acgt: int
    num_soft_masked: int


@dataclass(frozen=True, kw_only=True)
class ContigInfo:
    """One contig of the genome."""

    name: str
    num_bases: int


@dataclass(frozen=True, kw_only=True)
class WindowInfo:
    """How rows were cut from the genome."""

    scheme: str
    """"fixed" or "dnabert"; "blocks" for a packed set, "view" for a set written from a view"""
    full_bases: int
    """bases of a full row"""
    shortest_bases: int | None = None
    """bases of the shortest random piece; "dnabert" only"""
    longest_bases: int | None = None


@dataclass(frozen=True, kw_only=True)
class TokenInfo:
    """The tokens of a set that was written from a view."""

    spec: str
    """"kmer:K:STRIDE", or "tokenizer": the Hugging Face tokenizer whose files the set has"""
    identity: str
    """equal if all rows give equal ids"""
    num_ids: int
    """size of the vocabulary"""
    unknown: str
    """"break", or "token" if rows may have unknown tokens"""
    view: str
    """fingerprint of the view that was written"""
    files: list[str]
    """files of the tokenizer, in the set's folder"""
    files_sha256: list[str] = field(default_factory=list)
    """sha256 of each of these files; empty in version 4 of the format"""


@dataclass(frozen=True, kw_only=True)
class ValidationInfo:
    """The regions held out for validation."""

    contigs: list[str]
    """requested contig names, sorted"""
    fraction: float | None
    """requested fraction of the ACGT bases; None if contigs were requested"""
    regions: list[tuple[int, int, int]]
    """(contig, start, end) of the held-out regions, sorted"""


@dataclass(frozen=True, kw_only=True)
class NpmiInfo:
    """The NPMI table of a set."""

    file: str
    sha256: str
    rank_sha256: str
    """sha256 of the ranks of the k-mers, as little-endian uint32"""
    estimator: str
    min_count: int
    canonical: bool
    exclude_soft_masked: bool
    from_this_genome: bool


def shard_path(split: str, index: int, file_format: str) -> str:
    """Return the path of a shard's file, relative to the set's folder, such as train/000003.arrow."""
    return f"{split}/{index:06d}{SUFFIXES[file_format]}"
