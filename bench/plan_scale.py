"""Bytes, requests and seconds of large sets, computed from the rates that docs/benchmarks.md reports.

python -m bench.plan_scale --write
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import click

from bench.table import BENCHMARKS, SCALE, markdown, write_section
from gemsdata.shards.options import ShardOptions

HOSTS, CORES, NETWORK_BYTES_S = 64, 32, 10e9 / 8
"""hosts, cores of a host, bytes a second of a host's network"""
PART_BYTES = 8 << 20
"""size of one request to an object store, to read inputs or to write shards"""
INPUT_BYTES_A_BASE = 0.32
"""of FASTA compressed with gzip: the first 28 Mb of human chromosome 1"""
GENOMES = {"3 Gb, one genome": (3.1e9, 1), "1.5 Tb, 500 assemblies": (1.5e12, 500), "10 Tb, 3,300 files": (1e13, 3300)}
"""bases and input files"""
FORMATS = {"rows of 510 tokens": ShardOptions(), "packed bases": ShardOptions(format="packed")}
_ROW_BYTES = 2 * 510 + 2 + 2 + 8
_PACKED_BLOCK = 32_768
_MANIFEST_BYTES_A_SHARD = 457
"""of the JSON of one shard with one file"""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Measured rates per core."""

    counted_bases_s: float
    """read from FASTA and counted for n = 1..10"""
    encoded_rows_s: float
    """cut, encoded, hashed and written"""
    masked_rows_s: float
    """read from shards, masked and passed to the training loop"""

    @classmethod
    def of(cls, page: str) -> Rates:
        """Read the rates from the tables of benchmarks."""
        return cls(
            counted_bases_s=1e6 * _cell(page, "gemsdata, n = 1..10", 3),
            encoded_rows_s=_cell(page, "gemsdata, 1 worker", 2),
            masked_rows_s=_cell(page, "gemsdata, 2 processes", 3) / 2,
        )


def _cell(page: str, first: str, column: int) -> float:
    """Return the number in a column of the table row that begins with ``first``."""
    found = re.search(rf"^\| {re.escape(first)} \|(.*)\|$", page, re.MULTILINE)
    if found is None:
        raise ValueError(f"{BENCHMARKS} has no row {first!r}; run make bench")
    return float(found[1].split("|")[column - 2].strip().replace(",", ""))


def plan(bases: float, files: int, packed: bool, rates: Rates) -> list[str]:
    """Return the line of a table for a set with this number of bases."""
    row_tokens = _PACKED_BLOCK if packed else 510
    num_rows = bases / (_PACKED_BLOCK if packed else 515)
    row_bytes = _PACKED_BLOCK / 4 + 14 if packed else _ROW_BYTES
    options = FORMATS["packed bases" if packed else "rows of 510 tokens"]
    rows_of_shard = options.num_rows_of_shard(math.ceil(num_rows), 128 if packed else 1024, row_tokens)
    shards, num_bytes = math.ceil(num_rows / rows_of_shard), num_rows * row_bytes
    shard_bytes = num_bytes / shards
    requests = shards * math.ceil(shard_bytes / PART_BYTES) + files * math.ceil(
        bases / files * INPUT_BYTES_A_BASE / PART_BYTES
    )
    readers = min(files, HOSTS * CORES)
    counting = math.ceil(files / readers) * bases / files / rates.counted_bases_s
    encoding = bases / 515 / rates.encoded_rows_s / (HOSTS * CORES)
    moving = num_bytes / (HOSTS * NETWORK_BYTES_S)
    return [
        f"{num_rows:.2g}".replace("e+", "e"),
        _bytes(num_bytes),
        f"{shards:,}",
        _bytes(shards * _MANIFEST_BYTES_A_SHARD),
        f"{requests:,}",
        _seconds(bases * INPUT_BYTES_A_BASE / (min(files, HOSTS) * NETWORK_BYTES_S)),
        _seconds(counting),
        _seconds(encoding),
        _seconds(moving),
    ]


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _seconds(seconds: float) -> str:
    return (
        f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 0.1 else f"{1000 * seconds:.0f} ms"
    )


def table() -> str:
    """Return the table, with the rates that it is based on."""
    rates = Rates.of(BENCHMARKS.read_text())
    header = ["set", "rows or blocks", "bytes", "shards", "manifest", "requests"]
    header += ["fetch inputs", "count", "encode", "write, or read once"]
    rows = [
        [f"{genome}, {name}", *plan(bases, files, name == "packed bases", rates)]
        for genome, (bases, files) in GENOMES.items()
        for name in FORMATS
    ]
    measured = (
        f"For {HOSTS} hosts with {CORES} cores and 10 Gbit/s each, from rates of one core in benchmarks.md:"
        f" {rates.counted_bases_s / 1e6:,.0f} Mbase/s of plain FASTA read and counted, {rates.encoded_rows_s:,.0f} "
        " rows/s encoded (also for packed sets, which cut no rows and take less)."
    )
    trained = (
        f"A core reads and masks {rates.masked_rows_s:,.0f} rows/s, {rates.masked_rows_s * _ROW_BYTES / 1e6:,.0f} MB/s:"
        f" {NETWORK_BYTES_S / (rates.masked_rows_s * _ROW_BYTES):.1f} cores read as much as 10 Gbit/s bring."
    )
    return f"{measured}\n\n{markdown(header, rows)}\n\n{trained}"


@click.command()
@click.option("--write", is_flag=True, help="Write the table into docs/scale.md.")
def main(write: bool) -> None:
    """Print the table of large sets."""
    text = table()
    click.echo(text)
    if write:
        write_section("plan", text, SCALE)


if __name__ == "__main__":
    main()
