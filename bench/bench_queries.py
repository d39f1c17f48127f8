"""Time the worked queries of docs/queries.md: python -m bench.bench_queries [DATA] [--write]

DATA is the folder with genomes/ and npmi/ (by default ../shared/data beside the repository).
Prints a Markdown table, best of three.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

import click

import gemsdata as gd
from bench.table import machine, markdown, write_section
from gemsdata.shards.write import shard

ROOT = Path(__file__).resolve().parents[1]
STREAMING = {
    "count the tokens": "SELECT count(*) FROM tokens",
    "mean rank of every row": "SELECT split, row, avg(rank) FROM tokens GROUP BY ALL",
    "bases of every row": "SELECT sum(length(bases(tokens))) FROM rows",
    "the most frequent token of every row": "SELECT list_mode(tokens) FROM rows",
}


@click.command()
@click.argument("data", type=click.Path(path_type=Path), default=ROOT.parent / "shared" / "data")
@click.option("--write", is_flag=True, help="Write the table into docs/benchmarks.md.")
def main(data: Path, write: bool) -> None:
    """Print a Markdown table of the seconds of each query."""
    data = data.resolve()
    if not (data / "genomes").is_dir():
        click.echo(f"no genomes in {data}: the worked queries are not timed; give the folder with genomes/ and npmi/")
        return
    text = (ROOT / "docs" / "queries.md").read_text()
    worked = re.findall(r"^## (\d+\. .*?)$.*?^```sql\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        for name, genome in {"human": "hg38_chr1_28Mb.fa.gz", "yeast": "yeast_R64.fa.gz"}.items():
            shard([data / "genomes" / genome], Path(folder) / name, workers=2)
        os.chdir(data / "npmi")
        with gd.catalog(human=Path(folder) / "human", yeast=Path(folder) / "yeast") as connection:
            queries = [*worked, *((f"streaming: {title}", sql) for title, sql in STREAMING.items())]
            lines = [[title, f"{min(seconds(connection, sql) for _ in range(3)):.3f}"] for title, sql in queries]
    text = f"Measured by `make bench` on {machine()}; the best of three.\n\n{markdown(['query', 'seconds'], lines)}"
    click.echo(text)
    if write:
        write_section("queries", text)


def seconds(connection, sql: str) -> float:
    began = time.perf_counter()
    connection.execute(sql).fetchall()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
