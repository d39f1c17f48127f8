"""Processor time and memory of opening manifests of many shards.

python -m bench.open_manifest --write
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from bench.table import SCALE, machine, markdown, write_section
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.manifest_fields import (
    ContigInfo,
    GenomeInfo,
    NpmiInfo,
    Shard,
    ShardFile,
    ValidationInfo,
    WindowInfo,
    shard_path,
)

ROWS_PER_SHARD, ROW_TOKENS = 32_768, 510
_MEASURE = """
import json, time
import gemsdata as gd
gd.ShardSet
def peak_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak_kb()
begin = time.process_time()
shards = gd.ShardSet.open({folder!r})
rows = shards.num_rows("train")
seconds = time.process_time() - begin
after = peak_kb()
print(json.dumps({{"seconds": seconds, "before": before, "after": after, "rows": rows}}))
"""
"""VmHWM, because ru_maxrss of a new process starts at that of its parent"""


def manifest_of(num_shards: int) -> Manifest:
    """Return the manifest of a set with this number of shards of rows of 510 tokens."""
    digest = hashlib.sha256(b"").hexdigest()
    shards = [
        Shard(
            first_row=index * ROWS_PER_SHARD,
            num_rows=ROWS_PER_SHARD,
            num_tokens=ROWS_PER_SHARD * ROW_TOKENS,
            content_xxh3_64=f"{index:016x}",
            files={
                "arrow": ShardFile(
                    path=shard_path("train", index, "arrow"),
                    num_bytes=33_817_000 + index,
                    xxh3_64=f"{index:016x}",
                    sha256=hashlib.sha256(str(index).encode()).hexdigest(),
                )
            },
        )
        for index in range(num_shards)
    ]
    num_bases = num_shards * ROWS_PER_SHARD * (ROW_TOKENS + 5)
    return Manifest(
        genome=GenomeInfo(name="large", sha256=digest, num_bases=num_bases, num_not_acgt=0, num_soft_masked=0),
        contigs=[ContigInfo(name="one", num_bases=num_bases)],
        k=6,
        row_tokens=ROW_TOKENS,
        token_dtype="uint16",
        windows=WindowInfo(scheme="fixed", full_bases=ROW_TOKENS + 5),
        seed=0,
        validation=ValidationInfo(contigs=[], fraction=0.02, regions=[]),
        formats=["arrow"],
        compression="none",
        block_rows=1024,
        rank_column=False,
        npmi=NpmiInfo(
            file="npmi.parquet",
            sha256=digest,
            rank_sha256=digest,
            estimator="published",
            min_count=1,
            canonical=False,
            exclude_soft_masked=False,
            from_this_genome=True,
        ),
        intervals_sha256=digest,
        splits={"train": shards, "valid": []},
    ).with_hashes()


def measure(folder: Path) -> dict[str, float]:
    """Open a set in a separate process; return seconds, and kB of memory before and after."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE.format(folder=str(folder))], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


@click.command()
@click.option("--shards", "counts", multiple=True, type=int, default=(1000, 10_000, 100_000), show_default=True)
@click.option("--rounds", default=3, show_default=True, help="The fastest counts.")
@click.option("--write", is_flag=True, help="Write the table into docs/scale.md.")
def main(counts: tuple[int, ...], rounds: int, write: bool) -> None:
    """Open manifests of many shards; the last line is the same manifest in another layout."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for count in counts:
            manifest = manifest_of(count)
            text = manifest.to_json()
            for layout, content in (("as written", text), ("one line", json.dumps(json.loads(text)))):
                if layout != "as written" and count != max(counts):
                    continue
                (folder / "_index.json").write_text(content)
                found = min((measure(folder) for _ in range(rounds)), key=lambda one: one["seconds"])
                assert found["rows"] == count * ROWS_PER_SHARD
                sizes = [found["after"] / 1000, (found["after"] - found["before"]) / 1000]
                rows.append(
                    [
                        f"{count:,}, {layout}",
                        f"{len(content) / 1e6:.1f} MB",
                        f"{found['seconds']:.2f} s",
                        *(f"{size:,.0f} MB" for size in sizes),
                    ]
                )
    header = ["shards, layout", "manifest", "processor time to open", "peak memory of the process", "of it for the set"]
    text = f"Measured on {machine()}.\n\n{markdown(header, rows)}"
    click.echo(text)
    if write:
        write_section("manifest", text, SCALE)


if __name__ == "__main__":
    main()
