"""``intervals.parquet``: the gaps and soft-masked intervals of a genome, which rows do not store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemsdata.files.publish import publish
from gemsdata.genome.packed import PackedGenome


def write_intervals(genome: PackedGenome, path: Path, *, with_letters: bool) -> None:
    """Publish gaps and soft-masked intervals as Parquet: (contig, start, end, kind), kind "gap" or "soft".

    With letters there is an interval for each run of one letter, and a column ``letter`` (null where soft-masked).
    """
    gaps = genome.ambiguous if with_letters else genome.gaps
    both = np.concatenate([gaps[:, :3], genome.soft])
    kinds = pa.DictionaryArray.from_arrays(
        np.repeat(np.array([0, 1], np.int8), [len(gaps), len(genome.soft)]), ["gap", "soft"]
    )
    columns = {
        "contig": both[:, 0].astype(np.uint32),
        "start": both[:, 1],
        "end": both[:, 2],
        "kind": kinds.cast(pa.string()),
    }
    if with_letters:
        letters = [chr(code) for code in gaps[:, 3].tolist()] + [None] * len(genome.soft)
        columns["letter"] = pa.array(letters, pa.string())
    encoding: dict[str, Any] = {}
    if with_letters:  # differences of sorted positions take 40 % of the space; sets of tokens keep their bytes
        encoding["use_dictionary"] = ["contig", "kind", "letter"]
        encoding["column_encoding"] = dict.fromkeys(("start", "end"), "DELTA_BINARY_PACKED")
    table = pa.table(columns)
    with publish(path) as stream:
        pq.write_table(table, stream, compression="zstd", **encoding)
