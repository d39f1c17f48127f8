"""The row sources of a stream: shard sets, and views of them."""

from __future__ import annotations

from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.split_reader import SplitReader
from gemsdata.stream.row_reader import RowReader
from gemsdata.stream.stream import MIN_GRAM, Ranks
from gemsdata.views.options import ViewOptions
from gemsdata.views.view import View, open_view

Rows = ShardSet | View


def rows_of(shards: ShardSet, options: ViewOptions | None = None) -> Rows:
    """Return the rows of a shard set: the set if it stores overlapping k-mers and no option changes them, else a view.

    Raises ValueError for a packed set without ``options``: its rows must be chosen.
    """
    manifest = shards.manifest
    if options is None and manifest.packed:
        raise ValueError(
            f"{shards.store} holds packed bases: say which tokens and windows to read, with gemsdata.view(SET,"
            " tokens=..., row_tokens=...)"
        )
    seen = manifest.packed or manifest.tokens is not None or shards.k < MIN_GRAM
    if seen or (options is not None and options.changed()):
        return open_view(shards, options or ViewOptions())
    return shards


def reader_of(rows: Rows, split: str, *, check: str, faults: str) -> RowReader:
    """Return the reader of the rows of a split; ``check`` and ``faults`` as in `gemsdata.build_loader`."""
    if isinstance(rows, View):
        return rows.reader(split, check=check, faults=faults)
    return SplitReader(rows, split, check=check, faults=faults)


def ranks_of(rows: Rows) -> Ranks:
    """Return the NPMI ranks for masking rows: those of a set's tokens, or for a view a function of n."""
    return rows.ranks


def fingerprint_of(rows: Rows) -> str:
    """Return the fingerprint of the rows of every epoch."""
    return rows.fingerprint if isinstance(rows, View) else rows.manifest.fingerprint
