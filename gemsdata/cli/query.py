"""``gemsdata query``: SQL over shard sets and NPMI tables, as one query or at a prompt."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import click
import duckdb

from gemsdata.cli import query_output
from gemsdata.cli.options import PATH
from gemsdata.cli.output import error_line
from gemsdata.inspect.sql import MACROS, VIEWS, catalog, schema_name

_WRITERS = {"COPY", "COPY_DATABASE", "EXPORT", "ATTACH", "PREPARE", "EXECUTE", "LOAD"}
_READERS = {"SELECT", "EXPLAIN", "PRAGMA", "CALL"}
_PROMPT, _CONTINUED = "gemsdata> ", "     ...> "


@click.command("query")
@click.argument("arguments", metavar="SHARDS|TABLE.parquet... [SQL]", nargs=-1, required=True)
@click.option(
    "--format",
    "output",
    type=click.Choice(query_output.FORMATS),
    help="Output format; default: by the suffix of -o, else table.",
)
@click.option("-o", "--out", type=PATH, help="File to write; default: standard output.")
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
def command(arguments: tuple[str, ...], output: str | None, out: Path | None, as_json: bool) -> None:
    """Query shard sets and NPMI tables (PATH or NAME=PATH) with SQL; without SQL, open a prompt.

    \b
    Views:  npmi rows tokens shards contigs intervals
    Macros: kmer(token_id) token_id(kmer) revcomp(kmer) gc(kmer) npmi_of(kmer) bases(tokens)
    Each set is a schema (human.npmi, yeast.npmi); names without a schema refer to the first set.

    \b
    Examples:
      gemsdata query human "SELECT kmer, npmi FROM npmi WHERE k = 6 ORDER BY rank LIMIT 10"
      gemsdata query human yeast "FROM human.npmi JOIN yeast.npmi USING (k, kmer)" -o both.parquet
      gemsdata query human
    """
    paths, sql = _split(arguments)
    if as_json and output not in (None, "json"):
        raise click.UsageError(f"--json and --format {output} contradict each other; give one of the two")
    file_format = query_output.format_of("json" if as_json else output, out)
    named: dict[str, str] = {}
    for argument in paths:
        name, path = _named(argument)
        if name in named:
            raise ValueError(f"two sets are named {name}; give one another name: NAME={path}")
        named[name] = path
    with contextlib.closing(catalog(**named)) as connection:
        if sql is None and sys.stdin.isatty():
            _prompt(connection, list(named))
        else:
            run(connection, sys.stdin.read() if sql is None else sql, file_format, out)


def run(connection: duckdb.DuckDBPyConnection, sql: str, file_format: str, out: Path | None) -> None:
    """Run statements and write the result of the last one; raise ValueError with DuckDB's message in one line."""
    _interruptible(connection, lambda: _run(connection, sql, file_format, out))


def _interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], None]) -> None:
    """Run ``work`` in a thread, because Ctrl-C does not end a call of DuckDB in the main thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(work)
        try:
            future.result()
        except KeyboardInterrupt:
            while not future.done():  # an interrupt between two statements has no effect
                connection.interrupt()
                wait([future], timeout=0.05)
            raise


def _run(connection: duckdb.DuckDBPyConnection, sql: str, file_format: str, out: Path | None) -> None:
    with _one_line_errors():
        statements = connection.extract_statements(sql)
        if not statements:
            raise ValueError("the query is empty")
        for statement in statements:
            _check_reads_only(statement)
        connection.execute("SET python_enable_replacements = false")  # table names must not resolve to Python variables
        for statement in statements[:-1]:
            connection.execute(statement)
        if statements[-1].type.name in _READERS:
            query_output.write(connection, statements[-1].query, file_format, out)
        else:
            connection.execute(statements[-1])


def _split(arguments: tuple[str, ...]) -> tuple[list[str], str | None]:
    """Separate sets and SQL: the last argument is SQL if it contains white space and is not a file."""
    *before, last = arguments
    is_sql = re.search(r"\s", last) is not None and not Path(_named(last)[1]).exists()
    if is_sql and not before:
        raise ValueError(f"nothing to query in {last!r}; give a shard set or an NPMI table before the SQL")
    return (before, last) if is_sql else (list(arguments), None)


def _named(argument: str) -> tuple[str, str]:
    """Return (schema name, path) of an argument PATH or NAME=PATH."""
    match = re.fullmatch(r"([A-Za-z_]\w*)=(.+)", argument, flags=re.ASCII)
    if match and not Path(argument).exists():
        return match[1], match[2]
    return schema_name(argument), argument


def _check_reads_only(statement: duckdb.Statement) -> None:
    kind = statement.type.name
    if kind in _WRITERS or (kind == "EXPLAIN" and re.search(r"\bcopy\b", statement.query, flags=re.IGNORECASE)):
        raise ValueError(f"{kind} is not allowed: queries are read-only; write a result with -o FILE")


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        message = re.split(r"\n\s*LINE \d+:|Detail: Python exception", str(error))[0]
        raise ValueError(" ".join(message.split())) from None


def _prompt(connection: duckdb.DuckDBPyConnection, names: list[str]) -> None:
    """Read and run statements that end in a semicolon until the end of input; continue after errors."""
    click.echo(f"sets: {', '.join(names)}   views: {', '.join(VIEWS)}\nmacros: {', '.join(MACROS)}")
    click.echo("End a statement with ; and leave with Ctrl-D.")
    with _history():
        lines: list[str] = []
        while True:
            try:
                line = input(_CONTINUED if lines else _PROMPT)
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                click.echo()
                lines.clear()
                continue
            if not lines and line.strip().rstrip(";").lower() in ("exit", "quit", ""):
                if line.strip():
                    return
                continue
            lines.append(line)
            if line.rstrip().endswith(";"):
                _answer(connection, "\n".join(lines))
                lines.clear()


def _answer(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        run(connection, sql, "table", None)
    except ValueError as error:
        error_line("error", str(error))
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Keep the history of statements between sessions, if readline is available."""
    try:
        import readline
    except ImportError:
        yield
        return
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    path = state / "gemsdata" / "query_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
