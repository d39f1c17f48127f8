"""``intervals.parquet``: the gaps and soft-masked intervals of a genome, which rows do not store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemsdata.files.publish import publish
from gemsdata.genome.packed import PackedGenome

_GROUP_ROWS = 1 << 20
"""of a row group: what `pyarrow.parquet.write_table` makes of a whole table"""


def write_intervals(genome: PackedGenome, path: Path, *, with_letters: bool) -> None:
    """Publish gaps and soft-masked intervals as Parquet: (contig, start, end, kind), kind "gap" or "soft".

    With letters there is an interval for each run of one letter, and a column ``letter`` (null where soft-masked).
    """
    gaps = genome.ambiguous if with_letters else genome.gaps
    encoding: dict[str, Any] = {}
    if with_letters:  # differences of sorted positions take 40 % of the space; sets of tokens keep their bytes
        encoding["use_dictionary"] = ["contig", "kind", "letter"]
        encoding["column_encoding"] = dict.fromkeys(("start", "end"), "DELTA_BINARY_PACKED")
    with (
        publish(path) as stream,
        pq.ParquetWriter(stream, _schema(with_letters), compression="zstd", **encoding) as writer,
    ):
        for first in range(0, max(len(gaps) + len(genome.soft), 1), _GROUP_ROWS):
            rows = slice(first, first + _GROUP_ROWS)
            writer.write_table(_table(gaps, genome.soft, rows, with_letters))


def _schema(with_letters: bool) -> pa.Schema:
    fields = [("contig", pa.uint32()), ("start", pa.int64()), ("end", pa.int64()), ("kind", pa.string())]
    return pa.schema([*fields, ("letter", pa.string())] if with_letters else fields)


def _table(gaps: np.ndarray, soft: np.ndarray, rows: slice, with_letters: bool) -> pa.Table:
    """Return some rows of the table: gaps first, then soft-masked intervals."""
    chosen = gaps[rows]
    first = max(rows.start - len(gaps), 0)
    others = soft[first : max(rows.stop - len(gaps), 0)]
    both = np.concatenate([chosen[:, :3], others])
    kinds = pa.DictionaryArray.from_arrays(
        np.repeat(np.array([0, 1], np.int8), [len(chosen), len(others)]), ["gap", "soft"]
    )
    columns = [both[:, 0].astype(np.uint32), both[:, 1], both[:, 2], kinds.cast(pa.string())]
    if with_letters:
        letters = [chr(code) for code in chosen[:, 3].tolist()] + [None] * len(others)
        columns.append(pa.array(letters, pa.string()))
    return pa.table(columns, schema=_schema(with_letters))
