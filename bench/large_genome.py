"""Time, memory and space of `gemsdata shard` for a genome of vertebrate size."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.table import markdown
from tools.synthesize import GenomeRecipe, write_fasta


def write_large(fasta: Path, megabases: int) -> int:
    """Write a synthetic genome of 24 contigs, eight times the same three; return its bases."""
    part_bases, part = megabases * 1_000_000 // 8, io.BytesIO()
    write_fasta(GenomeRecipe(num_bases=part_bases, num_contigs=3), part)
    with open(fasta, "wb") as stream:
        for copy in range(8):
            stream.write(part.getvalue().replace(b">synth", b">copy%d_synth" % copy))
    return 8 * part_bases


def sharding(megabases: int, folder: Path) -> str:
    """Time `gemsdata shard` of a large synthetic genome, packed and as rows; say sizes and peak memory."""
    fasta = folder / "large.fa"
    bases = write_large(fasta, megabases)
    lines = []
    for name in ("packed", "arrow"):
        out = folder / f"large-{name}"
        seconds, processor_seconds, memory_bytes = _measured("shard", fasta, "-o", out, "--format", name)
        sizes = {path.relative_to(out): path.stat().st_size for path in out.rglob("*") if path.is_file()}
        beside = ", ".join(f"{path} {size / 1e6:,.1f} MB" for path, size in sizes.items() if len(path.parts) == 1)
        total = sum(sizes.values())
        lines.append(
            [
                f"--format {name}",
                f"{seconds:.1f} s",
                f"{processor_seconds:.1f} s",
                f"{memory_bytes / 1e6:,.0f} MB",
                f"{total / 1e9:.3f} GB",
                f"{total / bases:.4f}",
                beside,
            ]
        )
        shutil.rmtree(out)
    fasta.unlink()
    title = f"gemsdata shard, {bases:,} synthetic bases, 2 workers"
    header = [title, "wall clock", "processor time", "peak memory", "written", "bytes a base", "beside the shards"]
    return markdown(header, lines)


_LAUNCHER = """
import json, resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))
"""
"""runs a command from a small process: its peak memory includes that of the process which started it"""


def _measured(*arguments: str | Path) -> tuple[float, float, int]:
    """Run a command of gemsdata with two workers; return its seconds, processor seconds and peak memory in bytes."""
    command = [sys.executable, "-m", "gemsdata.cli", *map(str, arguments), "--workers", "2", "-q"]
    began = time.perf_counter()
    launched = subprocess.run([sys.executable, "-c", _LAUNCHER, *command], stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - began
    status, processor_seconds, memory_bytes = json.loads(launched.stdout)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    return seconds, processor_seconds, memory_bytes
