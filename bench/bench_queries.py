"""Time the worked queries of docs/queries.md: python -m bench.bench_queries [DATA]

DATA is the folder with genomes/ and npmi/ (by default ../shared/data beside the repository).
Prints a Markdown table, best of three.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path

import gemsdata as gd
from gemsdata.shards.write import shard

ROOT = Path(__file__).resolve().parents[1]
STREAMING = {
    "count the tokens": "SELECT count(*) FROM tokens",
    "mean rank of every row": "SELECT split, row, avg(rank) FROM tokens GROUP BY ALL",
    "bases of every row": "SELECT sum(length(bases(tokens))) FROM rows",
    "the most frequent token of every row": "SELECT list_mode(tokens) FROM rows",
}


def main() -> None:
    data = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT.parent / "shared" / "data").resolve()
    if not (data / "genomes").is_dir():
        print(f"no genomes in {data}: the worked queries are not timed; name the folder with genomes/ and npmi/")
        return
    text = (ROOT / "docs" / "queries.md").read_text()
    worked = re.findall(r"^## (\d+\. .*?)$.*?^```sql\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        for name, genome in {"human": "hg38_chr1_28Mb.fa.gz", "yeast": "yeast_R64.fa.gz"}.items():
            shard([data / "genomes" / genome], Path(folder) / name, workers=2)
        os.chdir(data / "npmi")
        with gd.catalog(human=Path(folder) / "human", yeast=Path(folder) / "yeast") as connection:
            print("| query | seconds |\n|---|---|")
            for title, sql in [*worked, *((f"streaming: {title}", sql) for title, sql in STREAMING.items())]:
                print(f"| {title} | {min(seconds(connection, sql) for _ in range(3)):.3f} |")


def seconds(connection, sql: str) -> float:
    began = time.perf_counter()
    connection.execute(sql).fetchall()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
