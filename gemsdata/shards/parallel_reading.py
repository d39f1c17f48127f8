"""Read the files of a genome on an executor, one task for each, and merge the tasks' results on disk.

A task packs and counts one file into a folder of its own (map). The caller then merges these folders in the order of
the files, so that the genome, its digest and its counts equal those of sequential reading (reduce). The caller's memory
use grows with the number of intervals of the genome, not with its bases.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, cast

import numpy as np

from gemsdata.files.progress import Progress
from gemsdata.genome.packed import (
    Contig,
    ContigNames,
    GenomeReport,
    GenomeWriter,
    PackedGenome,
    check_any_acgt,
    read_file,
)
from gemsdata.npmi.counts import NgramCounter, countable_runs
from gemsdata.shards.tasks import run_tasks

_COUNTS_FILE = "counts.npz"


def read_on(
    executor: Executor,
    inputs: list[str],
    folder: Path,
    writer: GenomeWriter,
    counter: NgramCounter | None,
    *,
    exclude_soft_masked: bool,
    progress: Progress,
) -> GenomeReport:
    """Read sequence files with one task for each; write the contigs to ``writer`` and the counts to ``counter``.

    ``folder``, which all workers must see, contains the tasks' results until this function returns. Raises ValueError
    as `gemsdata.genome.packed.read_contigs` does.
    """
    max_n = None if counter is None else counter.max_n
    paths = [folder / f"{index:06d}" for index in range(len(inputs))]
    calls = [
        (_read_into, (path, str(own), max_n, exclude_soft_masked)) for path, own in zip(inputs, paths, strict=True)
    ]
    report = GenomeReport()
    names = ContigNames()
    try:
        reports = run_tasks(executor, calls, lambda _: progress("reading files", 1, len(inputs)))
        for path, own, found in zip(inputs, paths, reports, strict=True):
            for contig in _contigs_in(own):
                names.add(contig.name, path)
                writer.add(contig)
            if counter is not None:
                with np.load(own / _COUNTS_FILE) as totals:
                    counter.add_totals(totals)
            report.merge(found)
            shutil.rmtree(own)
        check_any_acgt(report)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _read_into(path: str, folder: str, max_n: int | None, exclude_soft_masked: bool) -> GenomeReport:
    """Pack and count one file into a folder; the folder of an interrupted task is overwritten."""
    own = Path(folder)
    shutil.rmtree(own, ignore_errors=True)
    report = GenomeReport()
    counter = None if max_n is None else NgramCounter(max_n)
    with GenomeWriter(own) as writer:
        for contig in read_file(path, report):
            writer.add(contig)
            if counter is not None:
                counter.add(contig.packed, countable_runs(contig, exclude_soft_masked))
        writer.finish()
    if counter is not None:
        np.savez(own / _COUNTS_FILE, **cast(dict[str, Any], counter.totals()))
    return report


def _contigs_in(folder: Path) -> Iterator[Contig]:
    """Yield the contigs that a `GenomeWriter` wrote to ``folder``, without the counts of their letters."""
    genome = PackedGenome.open(folder)
    intervals = (genome.gaps, genome.soft, genome.ambiguous)
    edges = np.arange(len(genome.names) + 1)
    first = [np.searchsorted(table[:, 0], edges) for table in intervals]
    for index, name in enumerate(genome.names):
        num_bases, begin = int(genome.num_bases[index]), int(genome.base_offset[index]) // 4
        gaps, soft, ambiguous = (
            table[bounds[index] : bounds[index + 1], 1:] for table, bounds in zip(intervals, first, strict=True)
        )
        packed = genome.packed[begin : begin + (num_bases + 3) // 4]
        yield Contig(name, num_bases, packed, gaps, soft, {}, ambiguous)
