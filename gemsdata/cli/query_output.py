"""Write the result of a query as text table, CSV, JSON lines, Parquet or Arrow."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import duckdb
import pyarrow as pa

from gemsdata.cli.output import printable
from gemsdata.files.publish import publish

FORMATS = ("table", "csv", "json", "parquet", "arrow")
_SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".arrow": "arrow"}
_COPY = {"csv": "FORMAT csv, HEADER", "json": "FORMAT json", "parquet": "FORMAT parquet, COMPRESSION zstd"}
_WIDTH_ROWS = 1000
_MOST_TERMINAL_ROWS = 1000
_WIDEST_CELL = 80
_BATCH_ROWS = 16384


def format_of(output: str | None, out: Path | None) -> str:
    """Return the output format: as given, else by the file's suffix, else table; raise ValueError if not writable."""
    chosen = output or (_SUFFIXES.get(out.suffix.lower(), "table") if out else "table")
    if chosen in ("parquet", "arrow") and out is None:
        raise ValueError(f"--format {chosen} is binary; give a file with -o FILE.{chosen}")
    if out is not None and out.is_dir():
        raise ValueError(f"{out} is a folder; give the name of a file")
    if out is not None and not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"{out.absolute().parent}: no such folder to write {out.name} in")
    return chosen


def write(connection: duckdb.DuckDBPyConnection, sql: str, file_format: str, out: Path | None) -> None:
    """Run one statement and write its result to the file ``out``, or to standard output."""
    if out is None:
        if file_format == "table":
            write_table(connection.execute(sql), sys.stdout, _MOST_TERMINAL_ROWS if sys.stdout.isatty() else None)
        else:
            with _pipe_to_stdout() as path:
                _copy(connection, sql, path, file_format)
        return
    with publish(out) as stream:
        if file_format == "table":
            text = io.TextIOWrapper(stream, encoding="utf-8")
            write_table(connection.execute(sql), text)
            text.detach()
        elif file_format == "arrow":
            with (
                connection.sql(sql).to_arrow_reader(_BATCH_ROWS) as reader,
                pa.ipc.new_file(stream, reader.schema) as writer,
            ):
                for batch in reader:
                    writer.write_batch(batch)
        else:
            unnamed = f"/proc/self/fd/{stream.fileno()}"  # see `publish`
            _copy(connection, sql, stream.name if isinstance(stream.name, str) else unnamed, file_format)


def write_table(result: duckdb.DuckDBPyConnection, stream: TextIO, max_rows: int | None = None) -> None:
    """Write the pending result as aligned text.

    With ``max_rows``, at most that many rows are written, with a note on standard error. The column widths are those of
    the first 1,000 rows; the rest is streamed.
    """
    names = [printable(column[0]) for column in result.description]
    values = result.fetchmany(_WIDTH_ROWS)
    rows = [[_cell(value) for value in row] for row in values]
    if names == ["explain_key", "explain_value"]:
        stream.write("\n".join(text for _, text in values))
        return
    numeric = [
        any(isinstance(row[i], int | float) for row in values)
        and not any(isinstance(row[i], bool | str) for row in values)
        for i in range(len(names))
    ]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for cells in itertools.chain([names, ["-" * width for width in widths]], rows):
        stream.write(_line(cells, widths, numeric) + "\n")
    num_rows = len(values)
    while values := result.fetchmany(_WIDTH_ROWS):
        if max_rows is not None and num_rows >= max_rows:
            print(f"first {max_rows:,} rows; use LIMIT, a pipe or -o FILE", file=sys.stderr)
            return
        num_rows += len(values)
        for row in values:
            stream.write(_line([_cell(value) for value in row], widths, numeric) + "\n")


def _copy(connection: duckdb.DuckDBPyConnection, sql: str, path: str, file_format: str) -> None:
    """Stream the result of one statement to ``path`` through a second, empty database."""
    target = path.replace("'", "''")
    with (
        contextlib.closing(duckdb.connect()) as writer,
        connection.sql(sql).to_arrow_reader(_BATCH_ROWS) as reader,
    ):
        writer.register("result", reader)
        writer.execute(f"COPY (FROM result) TO '{target}' ({_COPY[file_format]}, USE_TMP_FILE false)")


@contextlib.contextmanager
def _pipe_to_stdout() -> Iterator[str]:
    """Yield a path that forwards to standard output; opening /dev/stdout would truncate a redirected file."""
    read_end, write_end = os.pipe()
    closed: list[bool] = []

    def forward() -> None:
        with open(read_end, "rb", buffering=0) as pipe:
            try:
                while block := pipe.read(1 << 16):
                    sys.stdout.buffer.write(block)
                sys.stdout.buffer.flush()
            except BrokenPipeError:  # the reader of the pipe has closed it
                closed.append(True)

    sys.stdout.flush()
    thread = threading.Thread(target=forward)
    thread.start()
    try:
        yield f"/dev/fd/{write_end}"
    except duckdb.IOException:
        if not closed:
            raise
    finally:
        os.close(write_end)
        thread.join()
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit does not fail


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    return "  ".join(padded).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else printable(" ".join(str(value).splitlines()))
    return text if len(text) <= _WIDEST_CELL else text[: _WIDEST_CELL - 3] + "..."
