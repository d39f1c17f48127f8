"""Memory of the process that shards a genome on an executor, by genome size: ``python -m bench.bench_planning``.

The genomes are random, with a gap every 100 kb and a soft-masked stretch every 1,000 bases, as FASTA with an index. Two
worker processes read portions of them, and encode. Measured is the anonymous memory (RssAnon) of the process that
starts the tasks, above that before it does, in the same process for all sizes, after a small genome that is not
counted; the pages of mapped files, which the system takes back when it needs them, are not part of it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from gemsdata.shards import parallel_reading
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import shard

LINE_BASES = 60
CONTIG_BASES = 1 << 24


def write_genome(path: Path, num_bases: int) -> None:
    """Write a FASTA file of contigs of 16 Mb, and its index."""
    rng = np.random.default_rng(0)
    offset, index = 0, []
    with open(path, "wb") as stream:
        for number, first in enumerate(range(0, num_bases, CONTIG_BASES)):
            size = min(CONTIG_BASES, num_bases - first) // LINE_BASES * LINE_BASES
            letters = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, size)]
            place = np.arange(size)
            letters[place % 1000 < 400] |= 0x20
            letters[place % 100_000 < 50] = ord("N")
            lines = np.full((size // LINE_BASES, LINE_BASES + 1), ord("\n"), np.uint8)
            lines[:, :-1] = letters.reshape(-1, LINE_BASES)
            header = f">contig{number}\n".encode()
            stream.write(header + lines.tobytes())
            index.append(f"contig{number}\t{size}\t{offset + len(header)}\t{LINE_BASES}\t{LINE_BASES + 1}\n")
            offset += len(header) + lines.size
    Path(f"{path}.fai").write_text("".join(index))


class PeakMemory:
    """The most anonymous memory of this process while the context is entered, less that at its beginning, in bytes."""

    def __enter__(self) -> PeakMemory:
        self.num_bytes, self._begin, self._ended = 0, anonymous_bytes(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self.num_bytes = max(self.num_bytes, anonymous_bytes() - self._begin)

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()


def anonymous_bytes() -> int:
    """Return the anonymous memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("this system does not report RssAnon")


def peak_bytes(megabases: int, options: ShardOptions) -> tuple[int, float]:
    """Return the memory of sharding a genome of so many MiB of bases with two worker processes, and the seconds."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2, mp_context=context) as pool:
        path = Path(folder, "genome.fa")
        write_genome(path, megabases << 20)
        began = time.perf_counter()
        with PeakMemory() as peak:
            shard([path], Path(folder, "set"), options, workers=2, executor=pool)
        return peak.num_bytes, time.perf_counter() - began


def main(arguments: list[str] | None = None) -> int:
    """Shard a genome of each size, and print the memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabases", type=int, nargs="+", default=[64, 320, 1024])
    parser.add_argument("--portion-megabases", type=int, default=8)
    parser.add_argument("--format", default="arrow")
    chosen = parser.parse_args(arguments)
    parallel_reading.PORTION_BASES = chosen.portion_megabases << 20
    options = ShardOptions(format=chosen.format)
    peak_bytes(16, options)
    for megabases in chosen.megabases:
        num_bytes, seconds = peak_bytes(megabases, options)
        print(f"{megabases} Mb: {num_bytes / 1e6:.0f} MB above the beginning, {seconds:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
