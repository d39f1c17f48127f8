"""DuckDB connection with a schema of views and macros for each shard set or NPMI table.

``npmi``       one row per n-gram: k, kmer, token_id, count; pmi, npmi, rank of the set's estimator, then of all
``rows``       one row per row of the set: split, shard, row, contig, start, num_tokens, tokens (its token ids);
               of a packed set, per block: split, shard, row, contig, start, num_bases, packed
``tokens``     one row per token: split, shard, row, contig, token_pos (in the row), base_pos (in the contig), token_id,
               rank
``shards``     one row per shard: split, shard, first_row, num_rows, num_tokens, num_bytes, files
``contigs``    one row per contig: contig, contig_index, num_bases, num_not_acgt, num_soft_masked
``intervals``  soft-masked and non-ACGT stretches: contig, start, stop (half-open), kind (soft or gap)

Macros: ``kmer(token_id [, k := n])``, ``token_id(kmer)``, ``revcomp(kmer)``, ``gc(kmer)``, ``npmi_of(kmer)``,
``bases(tokens)``. Rows and tokens are streamed from the shards at every query; nothing is copied into the
database, which is in memory.
"""

from __future__ import annotations

import functools
import glob
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemsdata.files.remote_folder import is_url
from gemsdata.genome.vocab import BASES, NUM_SPECIAL, SPECIAL_TOKENS
from gemsdata.inspect.scan import BlockScan, RowScan, TokenScan
from gemsdata.npmi.estimators import ESTIMATORS
from gemsdata.npmi.parquet import has_scores, table_schema
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.manifest import INTERVALS_FILE, NPMI_FILE, SPLITS
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.storage import place_name

VIEWS = ("npmi", "rows", "tokens", "shards", "contigs", "intervals")
MACROS = ("kmer(token_id)", "token_id(kmer)", "revcomp(kmer)", "gc(kmer)", "npmi_of(kmer)", "bases(tokens)")
_DEFAULT_K = 6
_SCORES = ("pmi", "npmi", "rank")


def catalog(*sets: ShardSet | str | Path, **named: ShardSet | str | Path) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection with the views and macros of shard sets and NPMI tables.

    A shard set is given open, or as its folder or URL; a table is the path of a Parquet file.

    Each set or table is a schema, named by the keyword or by its folder or file, in which ``_`` replaces characters
    other than letters and digits. Unqualified names refer to the first schema. Raises FileNotFoundError or ValueError
    for a path that is neither a shard set nor an NPMI table.
    """
    schemas = dict(zip(_schema_names(sets, named), [*sets, *named.values()], strict=True))
    if not schemas:
        raise ValueError("nothing to query; give a shard set (a folder) or an NPMI table (a Parquet file)")
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    try:
        for name, place in schemas.items():
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{name}"; SET schema = \'"{name}"\'')
            if isinstance(place, ShardSet) or is_url(place):
                _add_shard_set(connection, name, place if isinstance(place, ShardSet) else ShardSet.open(place))
            elif not Path(place).exists():
                raise FileNotFoundError(f"{place}: no such file or folder; give a shard set or an NPMI table")
            elif Path(place).is_dir():
                _add_shard_set(connection, name, ShardSet.open(Path(place).resolve()))
            else:
                _add_table(connection, name, Path(place))
        connection.execute(f"SET search_path = '\"{next(iter(schemas))}\",main'")
    except BaseException:
        connection.close()
        raise
    return connection


def schema_name(place: ShardSet | str | Path) -> str:
    """Return the schema name of a shard set or a table: its file name without suffix, as an SQL identifier."""
    last = place.name if isinstance(place, ShardSet) else place_name(place)
    name = re.sub(r"\W+", "_", last.removesuffix(".parquet"), flags=re.ASCII).strip("_")
    return name if name[:1].isalpha() else f"_{name}"


def _schema_names(sets: tuple[ShardSet | str | Path, ...], named: dict[str, ShardSet | str | Path]) -> list[str]:
    names: list[str] = []
    for wanted in [*(schema_name(path) for path in sets), *named]:
        if not re.fullmatch(r"[A-Za-z_]\w*", wanted, flags=re.ASCII):
            raise ValueError(f"{wanted!r} is not a valid schema name; use letters, digits and _")
        taken = {name.lower() for name in names} | {"system", "temp", "information_schema", "pg_catalog"}
        name, count = wanted, 1
        while name.lower() in taken:
            count += 1
            name = f"{wanted}_{count}"
        names.append(name)
    return names


def _add_shard_set(connection: duckdb.DuckDBPyConnection, schema: str, shards: ShardSet) -> None:
    """Create the views of a shard set in the current schema of the connection."""
    place = shards.store
    intervals = _relation(connection, shards, INTERVALS_FILE, schema)
    if shards.has_npmi:
        with place.file(NPMI_FILE) as path:
            _add_npmi(connection, path, _relation(connection, shards, NPMI_FILE, schema), schema)
    else:
        _add_absent(connection, "npmi", _npmi_columns(), f"{place} has no NPMI table ({NPMI_FILE}): " + _MAKE_ONE)
    if shards.manifest.packed:
        connection.from_arrow(BlockScan(shards)).create_view("rows")
        message = f"{place} holds packed bases, which are tokens in a view only (gemsdata.view)"
        _add_absent(connection, "tokens", _SET_COLUMNS["tokens"], message)
    elif shards.manifest.tokens is not None:
        connection.from_arrow(RowScan(shards)).create_view("rows")
        spec = shards.manifest.tokens.spec
        message = f"{shards.store} holds rows of tokens {spec}; the table tokens is of overlapping k-mers"
        _add_absent(connection, "tokens", _SET_COLUMNS["tokens"], message)
    else:
        connection.from_arrow(RowScan(shards)).create_view("rows")
        connection.from_arrow(TokenScan(shards, shards.ranks if shards.has_npmi else None)).create_view("tokens")
    connection.from_arrow(_shard_rows(shards)).create_view("shards")
    connection.from_arrow(_contig_names(shards)).create_view("_contigs")
    connection.execute(_INTERVALS.format(relation=intervals))
    connection.execute(_CONTIGS)
    _add_macros(connection, schema, shards.k)


def _add_table(connection: duckdb.DuckDBPyConnection, schema: str, path: Path) -> None:
    """Create the views of an NPMI table without a shard set in the current schema of the connection."""
    max_k = _add_npmi(connection, path, f"read_parquet({_quoted(path)})", schema)
    for view, columns in _SET_COLUMNS.items():
        _add_absent(connection, view, columns, f"{path} is an NPMI table; {view} needs the folder of a shard set")
    _add_macros(connection, schema, min(_DEFAULT_K, max_k))


def _relation(connection: duckdb.DuckDBPyConnection, shards: ShardSet, name: str, schema: str) -> str:
    """Return the SQL relation of a Parquet file of a set: the file, or an in-memory copy if it is at a URL."""
    if not is_url(shards.store):
        path = shards.folder / name
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; restore it, or run `gemsdata shard` again")
        return f"read_parquet({_quoted(path)})"
    with shards.store.file(name) as path:
        table = pq.read_table(path)
    registered = f"{schema}_{name.partition('.')[0]}_file"
    connection.register(registered, table)
    return f'"{registered}"'


class _Scores:
    """The rows of an NPMI table whose file has no scores, computed at the first query."""

    def __init__(self, path: Path) -> None:
        self._table = NpmiTable.from_parquet(path)

    @functools.cached_property
    def _rows(self) -> pa.Table:
        return self._table.to_arrow()

    @property
    def schema(self) -> pa.Schema:
        return table_schema()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return the rows as a stream (Arrow PyCapsule interface)."""
        return self._rows.__arrow_c_stream__(requested_schema)


def _add_npmi(connection: duckdb.DuckDBPyConnection, path: Path, relation: str, schema: str) -> int:
    """Create the view ``npmi`` over a Parquet file, which is ``relation`` in SQL; return the longest k in it."""
    estimator = NpmiTable.settings_of(path)["estimator"]
    if not has_scores(path):
        relation = f'"{schema}__scores"'
        connection.from_arrow(_Scores(path)).create_view(relation.strip('"'))
    chosen = ", ".join(f"{score}_{estimator} AS {score}" for score in _SCORES)
    connection.execute(f"""
        CREATE VIEW npmi AS
        SELECT k::INTEGER AS k, kmer, token_id::INTEGER AS token_id, count, {chosen},
               * EXCLUDE (k, kmer, token_id, count)
        FROM {relation}""")
    metadata = pq.read_metadata(path)
    return max(metadata.row_group(i).column(0).statistics.max for i in range(metadata.num_row_groups))


def _add_macros(connection: duckdb.DuckDBPyConnection, schema: str, k: int) -> None:
    specials, bases = (", ".join(f"'{text}'" for text in texts) for texts in (SPECIAL_TOKENS, BASES))
    connection.execute(
        _MACROS.format(schema=schema, k=k, letters=BASES, bases=bases, specials=specials, num_special=NUM_SPECIAL)
    )


def _add_absent(connection: duckdb.DuckDBPyConnection, view: str, columns: dict[str, str], message: str) -> None:
    """Create a view on which every query fails with ``message``."""
    error = "error('" + message.replace("'", "''") + "')"
    chosen = ", ".join(f"{error}::{sql_type} AS {name}" for name, sql_type in columns.items())
    connection.execute(f"CREATE VIEW {view} AS SELECT {chosen} WHERE {error} IS NULL")


def _shard_rows(shards: ShardSet) -> pa.Table:
    file = pa.struct({"format": pa.string(), "path": pa.string(), "num_bytes": pa.int64(), "sha256": pa.string()})
    rows = [
        {
            "split": split,
            "shard": index,
            "first_row": entry.first_row,
            "num_rows": entry.num_rows,
            "num_tokens": entry.num_tokens,
            "num_bytes": sum(entry.files[name].num_bytes for name in entry.files),
            "files": [
                {"format": name, "path": found.path, "num_bytes": found.num_bytes, "sha256": found.sha256}
                for name, found in entry.files.items()
            ],
        }
        for split in SPLITS
        for index, entry in enumerate(shards.manifest.splits.get(split, []))
    ]
    counts = {name: pa.int64() for name in ("first_row", "num_rows", "num_tokens", "num_bytes")}
    schema = pa.schema({"split": pa.string(), "shard": pa.int32(), **counts, "files": pa.list_(file)})
    return pa.Table.from_pylist(rows, schema=schema)


def _contig_names(shards: ShardSet) -> pa.Table:
    contigs = shards.manifest.contigs
    return pa.table(
        {
            "contig": pa.array([contig.name for contig in contigs], pa.string()),
            "contig_index": np.arange(len(contigs), dtype=np.int32),
            "num_bases": pa.array([contig.num_bases for contig in contigs], pa.int64()),
        }
    )


def _quoted(path: Path) -> str:
    """Return an SQL string literal of a file name in which no character is a glob pattern."""
    return "'" + glob.escape(str(path.resolve())).replace("'", "''") + "'"


def _npmi_columns() -> dict[str, str]:
    scores = {"pmi": "DOUBLE", "npmi": "DOUBLE", "rank": "INTEGER"}
    every = {f"{score}_{name}": sql_type for name in ESTIMATORS for score, sql_type in scores.items()}
    return {"k": "INTEGER", "kmer": "VARCHAR", "token_id": "INTEGER", "count": "BIGINT", **scores, **every}


_MAKE_ONE = (
    "write one with `gemsdata npmi GENOME.fa -o TABLE.parquet` and query that file, or run `gemsdata shard` again"
)

_SET_COLUMNS = {
    "rows": {
        "split": "VARCHAR",
        "shard": "INTEGER",
        "row": "BIGINT",
        "contig": "VARCHAR",
        "start": "BIGINT",
        "num_tokens": "INTEGER",
        "tokens": "UINTEGER[]",
    },
    "tokens": {
        "split": "VARCHAR",
        "shard": "INTEGER",
        "row": "BIGINT",
        "contig": "VARCHAR",
        "token_pos": "INTEGER",
        "base_pos": "BIGINT",
        "token_id": "INTEGER",
        "rank": "INTEGER",
    },
    "shards": {"split": "VARCHAR", "shard": "INTEGER", "num_rows": "BIGINT", "num_tokens": "BIGINT"},
    "contigs": {"contig": "VARCHAR", "num_bases": "BIGINT"},
    "intervals": {"contig": "VARCHAR", "start": "BIGINT", "stop": "BIGINT", "kind": "VARCHAR"},
}

_INTERVALS = """
CREATE VIEW intervals AS
SELECT c.contig, i.start, i."end" AS stop, i.kind
FROM {relation} i JOIN _contigs c ON c.contig_index = i.contig
"""

_CONTIGS = """
CREATE VIEW contigs AS
SELECT c.*, coalesce(num_not_acgt, 0) AS num_not_acgt, coalesce(num_soft_masked, 0) AS num_soft_masked
FROM _contigs c LEFT JOIN (
    SELECT contig,
           (sum(stop - start) FILTER (kind = 'gap'))::BIGINT AS num_not_acgt,
           (sum(stop - start) FILTER (kind = 'soft'))::BIGINT AS num_soft_masked
    FROM intervals GROUP BY contig
) USING (contig)
"""

_MACROS = """
CREATE MACRO kmer(token_id, k := {k}) AS
    CASE WHEN token_id < {num_special} THEN [{specials}][token_id + 1]
         WHEN token_id < {num_special} + (1::BIGINT << (2 * k)) THEN
         list_aggregate(list_transform(range(k), lambda i:
             [{bases}][(((token_id::BIGINT - {num_special}) >> (2 * (k - 1 - i))) & 3) + 1]), 'string_agg', '') END;
CREATE MACRO token_id(kmer) AS
    CASE WHEN regexp_full_match(upper(kmer), '[{letters}]{{1,12}}') THEN
         ({num_special} + list_reduce(
             list_transform(string_split(upper(kmer), ''), lambda base: strpos('{letters}', base) - 1),
             lambda value, digit: value * 4 + digit))::INTEGER END;
CREATE MACRO revcomp(kmer) AS reverse(translate(kmer, 'ACGTacgt', 'TGCAtgca'));
CREATE MACRO gc(kmer) AS 1 - length(translate(kmer, 'GCgc', '')) / length(kmer);
CREATE MACRO npmi_of(word) AS (SELECT t.npmi FROM "{schema}".npmi t WHERE t.k = length(word) AND t.kmer = upper(word));
CREATE MACRO bases(tokens) AS
    "{schema}".kmer(tokens[1]) || coalesce(list_aggregate(list_transform(tokens[2:], lambda t:
        [{bases}][((t::BIGINT - {num_special}) & 3) + 1]), 'string_agg', ''), '');
"""
