"""Check the options of a view of stored rows, whose tokens and windows are fixed."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from gemsdata.shards.shard_set import ShardSet
from gemsdata.views.options import ViewOptions
from gemsdata.views.tokens import HuggingFaceTokens, KmerTokens, Tokens, resolve_tokens


def stored_tokens(shards: ShardSet) -> Tokens:
    """Return the kind of tokens that a set of rows stores."""
    stored = shards.manifest.tokens
    if stored is None:
        return KmerTokens(shards.k)
    if stored.spec != "tokenizer":
        return resolve_tokens(stored.spec)
    digests: list[str | None] = [*stored.files_sha256] or [None] * len(stored.files)
    with tempfile.TemporaryDirectory() as folder:
        for name, digest in zip(stored.files, digests, strict=True):
            with shards.store.file(name) as path:
                content = path.read_bytes()
            if digest not in (None, hashlib.sha256(content).hexdigest()):
                raise ValueError(f"{shards.store}: {name} is not the one that its rows were made with; restore it")
            (Path(folder) / name).write_bytes(content)
        tokens = HuggingFaceTokens(folder, spec=f"{shards.store}")
    if tokens.identity != stored.identity:
        raise ValueError(f"{shards.store}: tokenizer.json is not the one that its rows were made with; restore it")
    return tokens


def check_stored(shards: ShardSet, tokens: Tokens, options: ViewOptions) -> tuple[int, int]:
    """Return (tokens, bases) of a full row; raise ValueError for options that do not apply to stored rows."""
    row_tokens, row_bases = shards.row_tokens, tokens.row_bases(shards.row_tokens)
    if shards.manifest.tokens is not None:
        row_bases = shards.manifest.windows.full_bases
    stored = f"{shards.store} stores rows of {row_tokens} tokens {tokens.spec!r}"
    packed = "a set made with --format packed can be read with any"
    if options.tokens is not None and resolve_tokens(options.tokens).identity != tokens.identity:
        raise ValueError(f"tokens {str(options.tokens)!r} cannot be read: {stored}; {packed} tokens")
    for name, value in (("row_tokens", row_tokens), ("row_bases", row_bases)):
        given = getattr(options, name)
        if given not in (None, value):
            raise ValueError(f"{name} = {given} cannot be read: {stored}, {row_bases} bases; {packed} length of rows")
    if options.jitter:
        raise ValueError(f"jitter is not possible: {stored}; {packed} windows")
    if options.unknown == "token" and (shards.manifest.tokens is None or shards.manifest.tokens.unknown != "token"):
        raise ValueError(f"unknown = 'token' is not possible: {stored}, which break there; {packed} windows")
    return row_tokens, row_bases
