"""An NPMI table on disk: Parquet, one row per n-gram, one row group per order; written, and checked when it is read.

Scores and ranks follow from counts and settings. A table of version 1 has PMI, NPMI and rank under every estimator; one
of version 2, which is a tenth of its size, has the ranks of its estimator only.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from gemsdata.files.publish import publish
from gemsdata.genome.vocab import MAX_K, NUM_SPECIAL, all_kmers, num_kmers, vocab_size
from gemsdata.npmi.estimators import ESTIMATORS, Scores, rank_descending, score

WITH_SCORES, RANKS_ONLY = 1, 2
"""versions"""
_SETTINGS_KEY = b"gemsdata.npmi"
_CONTENT_KEY = b"gemsdata.npmi.content"
"""metadata key of the hash of settings and counts; tables written before November 2026 have none"""
_PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": False,
    "column_encoding": {"kmer": "DELTA_BYTE_ARRAY", "token_id": "DELTA_BINARY_PACKED", "k": "PLAIN"},
}
_MOST_ROWS = sum(num_kmers(k) for k in range(1, MAX_K + 1))
_MAKE_ONE = "make one with `gemsdata npmi GENOME.fa -o TABLE.parquet`"


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """How the counts were made and how they are scored; stored in the file's metadata."""

    estimator: str
    min_count: int
    canonical: bool
    exclude_soft_masked: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name."""
        return dataclasses.asdict(self)


def write_table(
    path: Path,
    counts: Mapping[int, np.ndarray],
    scores_of: Callable[[int], Mapping[str, Scores]],
    settings: TableSettings,
    version: int = WITH_SCORES,
) -> None:
    """Publish counts {n: int64[4**n]} and the scores of each order under every estimator."""
    metadata = {
        _SETTINGS_KEY: json.dumps({"version": version, **settings.as_dict()}, sort_keys=True).encode(),
        _CONTENT_KEY: content_hash(counts, settings).encode(),
    }
    schema = table_schema(version, settings.estimator).with_metadata(metadata)
    with publish(path) as stream, pq.ParquetWriter(stream, schema, **_PARQUET) as writer:
        for rows in row_groups(counts, scores_of, schema):
            writer.write_table(rows, row_group_size=len(rows))


def row_groups(
    counts: Mapping[int, np.ndarray], scores_of: Callable[[int], Mapping[str, Scores]], schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yield the rows of each order."""
    for k in counts:
        yield _arrow_table(k, counts[k], scores_of(k), schema)


def has_scores(path: str | Path) -> bool:
    """Return whether a table on disk, whose settings can be read, has PMI and NPMI."""
    return _version_of(pq.read_schema(path).metadata) == WITH_SCORES


def read_settings(path: str | Path) -> TableSettings:
    """Return the settings of a table on disk, without reading its rows.

    Raises FileNotFoundError when there is no such file, ValueError when it is not an NPMI table or a newer one.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} is not an NPMI table: {_first_line(error)}") from None
    if _SETTINGS_KEY not in metadata:
        raise ValueError(f"{path} is not an NPMI table; {_MAKE_ONE}")
    try:
        content = json.loads(metadata[_SETTINGS_KEY])
        version = content.pop("version")
        if version > RANKS_ONLY:
            raise ValueError(
                f"{path} was written by a newer gemsdata; this one reads NPMI tables up to version {RANKS_ONLY}"
            )
        settings = TableSettings(**content)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
        raise ValueError(f"{path}: the settings of the NPMI table are damaged; {_MAKE_ONE}") from None
    kinds = (type(settings.min_count), type(settings.canonical), type(settings.exclude_soft_masked))
    if settings.estimator not in ESTIMATORS or kinds != (int, bool, bool) or settings.min_count < 1:
        raise ValueError(f"{path}: the settings of the NPMI table are damaged: {settings.as_dict()}; {_MAKE_ONE}")
    return settings


def read_counts(path: str | Path, settings: TableSettings) -> dict[int, np.ndarray]:
    """Return the counts of a table on disk, {n: int64[4**n]} in token-id order.

    It is checked that the columns have the right types, that every n-gram of 1 .. max_k bases occurs in the table once,
    that counts are not negative, and that the content has the stored hash. In a table without that hash, k-mers are
    also compared with their token ids, and scores and ranks of the table's estimator with its counts. Raises ValueError
    with what is wrong.
    """
    try:
        with pq.ParquetFile(path) as file:
            _check_schema(path, file.schema_arrow, settings)
            if file.metadata.num_rows > _MOST_ROWS:
                raise ValueError(
                    f"{path} has a header for {file.metadata.num_rows:,} rows; a table has at most {_MOST_ROWS:,}"
                )
            expected = (file.metadata.metadata or {}).get(_CONTENT_KEY)
            columns = ["k", "token_id", "count"]
            if expected is None:
                columns += ["kmer", f"npmi_{settings.estimator}", f"rank_{settings.estimator}"]
            table = file.read(columns=columns)
            table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read: {_first_line(error)}; copy it again or {_MAKE_ONE}") from None
    order, token_id, count = (_without_nulls(path, table, name) for name in ("k", "token_id", "count"))
    counts = _counts_by_order(path, order, token_id, count)
    if expected is None:
        _check_kmers(path, table, order, token_id)
        _check_scores(path, table, order, counts, settings)
    elif content_hash(counts, settings).encode() != expected:
        raise ValueError(
            f"{path} is damaged: its counts or settings do not match the stored hash; copy it again or {_MAKE_ONE}"
        )
    return counts


def content_hash(counts: Mapping[int, np.ndarray], settings: TableSettings) -> str:
    """Return the xxh3 (128 bits, hex) of settings and counts."""
    digest = xxhash.xxh3_128(json.dumps(settings.as_dict(), sort_keys=True).encode())
    for n in sorted(counts):
        digest.update(np.ascontiguousarray(counts[n], "<i8").view(np.uint8).data)
    return digest.hexdigest()


def table_schema(version: int = WITH_SCORES, estimator: str = "published") -> pa.Schema:
    """Return the columns of a table of a version; ``estimator`` is the one whose ranks it has if it has no scores."""
    fields = [
        pa.field("k", pa.uint8(), nullable=False),
        pa.field("kmer", pa.string(), nullable=False),
        pa.field("token_id", pa.uint32(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
    if version == RANKS_ONLY:
        return pa.schema([*fields, pa.field(f"rank_{estimator}", pa.int32())])
    for name in ESTIMATORS:
        fields += [
            pa.field(f"pmi_{name}", pa.float64()),
            pa.field(f"npmi_{name}", pa.float64()),
            pa.field(f"rank_{name}", pa.int32()),
        ]
    return pa.schema(fields)


def _arrow_table(k: int, counts: np.ndarray, scores: Mapping[str, Scores], schema: pa.Schema) -> pa.Table:
    """Return the rows of one order, with the columns of a schema."""
    columns: dict[str, Any] = {
        "k": np.full(num_kmers(k), k, np.uint8),
        "kmer": pa.array(all_kmers(k)).cast(pa.string()),
        "token_id": np.arange(NUM_SPECIAL, vocab_size(k), dtype=np.uint32),
        "count": counts,
    }
    for name, scored in scores.items():
        missing = np.isnan(scored.npmi)
        for column, values in (("pmi", scored.pmi), ("npmi", scored.npmi), ("rank", scored.rank.astype(np.int32))):
            if f"{column}_{name}" in schema.names:
                columns[f"{column}_{name}"] = pa.array(values, mask=missing)
    return pa.table(columns, schema=schema)


def _version_of(metadata: Mapping[bytes, bytes]) -> int:
    return int(json.loads(metadata[_SETTINGS_KEY])["version"])


def _check_schema(path: str | Path, schema: pa.Schema, settings: TableSettings) -> None:
    for field in table_schema(_version_of(schema.metadata), settings.estimator):
        index = schema.get_field_index(field.name)
        if index < 0:
            raise ValueError(f"{path} has no column {field.name!r}; {_MAKE_ONE}")
        if schema.field(index).type != field.type:
            raise ValueError(
                f"{path}: column {field.name!r} is {schema.field(index).type}, not {field.type}; {_MAKE_ONE}"
            )


def _without_nulls(path: str | Path, table: pa.Table, name: str) -> np.ndarray:
    if table[name].null_count:
        raise ValueError(
            f"{path}: column {name!r} has {table[name].null_count:,} nulls, but must have none; {_MAKE_ONE}"
        )
    return np.asarray(table[name].to_numpy())


def _counts_by_order(
    path: str | Path, order: np.ndarray, token_id: np.ndarray, count: np.ndarray
) -> dict[int, np.ndarray]:
    """Return {n: int64[4**n]}; raise ValueError unless every n-gram of 1 .. max_k bases occurs once."""
    rows_of = np.bincount(order, minlength=2)
    max_k = len(rows_of) - 1
    if not 1 <= max_k <= MAX_K or rows_of.tolist() != [0, *(num_kmers(n) for n in range(1, max_k + 1))]:
        found = ", ".join(f"{rows:,} of k = {n}" for n, rows in enumerate(rows_of.tolist()) if rows)
        raise ValueError(f"{path} has rows {found or 'of no k'}; a table has all 4**k of each k from 1 on; {_MAKE_ONE}")
    if int(count.min()) < 0:
        raise ValueError(f"{path}: column 'count' has the negative number {int(count.min())}; {_MAKE_ONE}")
    counts: dict[int, np.ndarray] = {}
    for k in range(1, max_k + 1):
        here = order == k
        value = token_id[here].astype(np.int64) - NUM_SPECIAL
        if int(value.min()) < 0 or int(value.max()) >= num_kmers(k) or (np.bincount(value) != 1).any():
            raise ValueError(
                f"{path}: the token ids of the {k}-mers are not {NUM_SPECIAL} .. {vocab_size(k) - 1}, each once"
            )
        counts[k] = np.empty(num_kmers(k), np.int64)
        counts[k][value] = count[here]
    return counts


def _check_kmers(path: str | Path, table: pa.Table, order: np.ndarray, token_id: np.ndarray) -> None:
    """Raise ValueError unless every k-mer matches its token id."""
    kmer = table["kmer"].combine_chunks()
    for k in range(1, int(order.max()) + 1):
        here = np.flatnonzero(order == k)
        expected = pa.array(all_kmers(k)[token_id[here].astype(np.int64) - NUM_SPECIAL]).cast(pa.string())
        given = kmer.take(pa.array(here))
        if not given.equals(expected):
            row = pc.index(pc.equal(given, expected).fill_null(False), False).as_py()
            raise ValueError(
                f"{path}: token id {token_id[here[row]]} of k = {k} is {expected[row]}, not {given[row]}; {_MAKE_ONE}"
            )


def _check_scores(
    path: str | Path, table: pa.Table, order: np.ndarray, counts: dict[int, np.ndarray], settings: TableSettings
) -> None:
    """Raise ValueError unless scores and ranks of every order follow from its counts."""
    name = settings.estimator
    npmi = table[f"npmi_{name}"].to_numpy().astype(float)
    rank = table[f"rank_{name}"].fill_null(-1).to_numpy()
    value = table["token_id"].to_numpy().astype(np.int64) - NUM_SPECIAL
    for k in counts:
        here = order == k
        expected = score(counts, k, name, settings.min_count).npmi[value[here]]
        if not np.allclose(npmi[here], expected, rtol=0, atol=1e-9, equal_nan=True):
            raise ValueError(f"{path}: npmi_{name} of the {k}-mers does not follow from the counts; {_MAKE_ONE}")
        ranks = np.where(np.isnan(expected), -1, rank_descending(npmi[here]).astype(np.int64))
        if (rank[here] != ranks).any():
            raise ValueError(f"{path}: rank_{name} of the {k}-mers is not the order of npmi_{name}; {_MAKE_ONE}")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
