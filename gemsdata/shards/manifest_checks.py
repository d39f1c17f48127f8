"""Checks of the values in a manifest: genome, tokens and shards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gemsdata.genome.vocab import MAX_K, vocab_size
from gemsdata.shards.manifest_fields import ContigInfo, GenomeInfo, Shard, TokenInfo, ValidationInfo, shard_path
from gemsdata.shards.shard_table import ShardTable

_MAX_BASES = 1 << 62


def check_genome(genome: GenomeInfo, contigs: Sequence[ContigInfo], held_out: ValidationInfo) -> None:
    """Raise ValueError, with the field, for invalid values of the genome, its contigs or its validation regions."""
    require(is_hex(genome.sha256, 64), "genome.sha256", genome.sha256)
    sizes = [contig.num_bases for contig in contigs]
    require(bool(sizes) and min(sizes) >= 0, "contigs", f"{len(sizes)} of at least {min(sizes, default=0)} bases")
    require(len({contig.name for contig in contigs}) == len(contigs), "contigs", "names that occur twice")
    require(sum(sizes) == genome.num_bases <= _MAX_BASES, "genome.num_bases", genome.num_bases)
    require(0 <= genome.num_not_acgt <= genome.num_bases, "genome.num_not_acgt", genome.num_not_acgt)
    require(0 <= genome.num_soft_masked <= genome.num_bases, "genome.num_soft_masked", genome.num_soft_masked)
    require(held_out.fraction is None or 0 <= held_out.fraction < 1, "validation.fraction", held_out.fraction)
    require((held_out.fraction is None) == bool(held_out.contigs), "validation.contigs", held_out.contigs)
    for contig, start, end in held_out.regions:
        inside = 0 <= contig < len(sizes) and 0 <= start <= end <= sizes[contig]
        require(inside, "validation.regions", [contig, start, end])


def check_tokens(tokens: TokenInfo, file_names: tuple[str, ...], *, hashed: bool) -> None:
    """Raise ValueError for invalid values; ``hashed``: whether the format has hashes of files."""
    stride = re.fullmatch(r"kmer:(\d{1,2}):(\d{1,2})", tokens.spec)
    known = tokens.spec == "tokenizer" or (stride is not None and 1 <= int(stride[2]) <= int(stride[1]) <= MAX_K)
    require(known, "tokens.spec", tokens.spec)
    if stride is None:
        require(tokens.identity.startswith("tokenizer:"), "tokens.identity", tokens.identity)
        require(0 < tokens.num_ids <= 1 << 32, "tokens.num_ids", tokens.num_ids)
    else:
        require(tokens.identity == tokens.spec, "tokens.identity", tokens.identity)
        require(tokens.num_ids == vocab_size(int(stride[1])), "tokens.num_ids", tokens.num_ids)
    require(tokens.unknown in ("break", "token"), "tokens.unknown", tokens.unknown)
    require(is_hex(tokens.view, 64), "tokens.view", tokens.view)
    wanted = [name for name in file_names if name in tokens.files]
    has_tokenizer = file_names[0] in tokens.files
    fits = has_tokenizer == (tokens.spec == "tokenizer") == bool(wanted)
    require(tokens.files == wanted and fits, "tokens.files", tokens.files)
    num_hashes = len(tokens.files) if hashed else 0
    right = len(tokens.files_sha256) == num_hashes and all(is_hex(digest, 64) for digest in tokens.files_sha256)
    require(right, "tokens.files_sha256", tokens.files_sha256)


def check_shards(split: str, shards: Sequence[Shard], row_tokens: int, formats: Sequence[str]) -> None:
    """Raise ValueError, with the field, for an invalid shard of a split."""
    if isinstance(shards, ShardTable) and shards.is_plausible(row_tokens, _MAX_BASES):
        return
    first_row = 0
    for index, shard in enumerate(shards):
        where = f"splits.{split}[{index}]"
        require(shard.first_row == first_row, f"{where}.first_row", shard.first_row)
        require(1 <= shard.num_rows <= _MAX_BASES, f"{where}.num_rows", shard.num_rows)
        most = shard.num_rows * row_tokens
        require(shard.num_rows <= shard.num_tokens <= most, f"{where}.num_tokens", shard.num_tokens)
        require(is_hex(shard.content_xxh3_64, 16), f"{where}.content_xxh3_64", shard.content_xxh3_64)
        require(sorted(shard.files) == sorted(formats), f"{where}.files", list(shard.files))
        for name, file in shard.files.items():
            require(file.path == shard_path(split, index, name), f"{where}.files.{name}.path", file.path)
            require(1 <= file.num_bytes <= _MAX_BASES, f"{where}.files.{name}.num_bytes", file.num_bytes)
            hashes = is_hex(file.xxh3_64, 16) and is_hex(file.sha256, 64)
            require(hashes, f"{where}.files.{name}", "invalid hashes")
        first_row += shard.num_rows


def require(holds: bool, where: str, value: Any) -> None:
    """Raise ValueError, with the field and the value, unless ``holds``."""
    if not holds:
        raise ValueError(f"{where} = {value!r:.80} is not a valid value")


def is_hex(text: str, num_digits: int) -> bool:
    """Return whether ``text`` is this many hex digits in lower case."""
    return re.fullmatch(f"[0-9a-f]{{{num_digits}}}", text) is not None
