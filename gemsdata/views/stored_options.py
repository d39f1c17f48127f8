"""What a view of stored rows may be asked for: their own tokens and windows, nothing else."""

from __future__ import annotations

from gemsdata.shards.shard_set import ShardSet
from gemsdata.views.options import ViewOptions
from gemsdata.views.tokens import KmerTokens, Tokens, resolve_tokens


def stored_tokens(shards: ShardSet) -> Tokens:
    """Return the kind of tokens that a set of rows stores."""
    return KmerTokens(shards.k)


def check_stored(shards: ShardSet, tokens: Tokens, options: ViewOptions) -> tuple[int, int]:
    """Return (tokens, bases) of a full row; raise ValueError for options that rows of tokens cannot follow."""
    row_tokens, row_bases = shards.row_tokens, tokens.row_bases(shards.row_tokens)
    stored = f"{shards.store} stores rows of {row_tokens} tokens {tokens.spec!r}"
    packed = "a set made with --format packed can be read with any"
    if options.tokens is not None and resolve_tokens(options.tokens).identity != tokens.identity:
        raise ValueError(f"tokens {str(options.tokens)!r} cannot be read: {stored}; {packed} tokens")
    for name, value in (("row_tokens", row_tokens), ("row_bases", row_bases)):
        given = getattr(options, name)
        if given not in (None, value):
            raise ValueError(f"{name} = {given} cannot be read: {stored}, {row_bases} bases; {packed} length of rows")
    if options.jitter:
        raise ValueError(f"jitter cannot be had: {stored}; {packed} windows")
    if options.unknown == "token":
        raise ValueError(f"unknown = 'token' cannot be had: {stored}, which break there; {packed} windows")
    return row_tokens, row_bases
