"""Read the files of a genome on an executor, one task for each, and join what the tasks leave on disk.

A task packs and counts one file into a folder of its own (map). The caller then goes through these folders in the
order of the files, so the genome, its digest and its counts are those of reading the files one after the other
(reduce). The memory of the caller depends on the intervals of the genome, not on its bases.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, cast

import numpy as np

from gemsdata.files.progress import Progress
from gemsdata.files.shared_folder import SharedFolder
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
    shared: SharedFolder,
    writer: GenomeWriter,
    counter: NgramCounter | None,
    *,
    exclude_soft_masked: bool,
    progress: Progress,
) -> GenomeReport:
    """Read sequence files with one task for each; write the contigs to ``writer`` and the counts to ``counter``.

    ``shared``, which all workers must see, holds what the tasks leave, until this function returns. Raises ValueError
    as `gemsdata.genome.packed.read_contigs` does.
    """
    max_n = None if counter is None else counter.max_n
    names_of = [f"{index:06d}" for index in range(len(inputs))]
    calls = [
        (_read_into, (path, shared, own, max_n, exclude_soft_masked))
        for path, own in zip(inputs, names_of, strict=True)
    ]
    report = GenomeReport()
    names = ContigNames()
    try:
        reports = run_tasks(executor, calls, lambda _: progress("reading files", 1, len(inputs)))
        for path, own, found in zip(inputs, names_of, reports, strict=True):
            with shared.reading(own) as folder:
                for contig in _contigs_in(folder):
                    names.add(contig.name, path)
                    writer.add(contig)
                if counter is not None:
                    with np.load(folder / _COUNTS_FILE) as totals:
                        counter.add_totals(totals)
            report.merge(found)
        check_any_acgt(report)
    finally:
        shared.clear()
    return report


def _read_into(
    path: str, shared: SharedFolder, name: str, max_n: int | None, exclude_soft_masked: bool
) -> GenomeReport:
    """Pack and count one file into a folder that is shared as ``name``."""
    report = GenomeReport()
    counter = None if max_n is None else NgramCounter(max_n)
    with shared.writing(name) as own:
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
    """Yield the contigs that a `GenomeWriter` left in ``folder``, without the counts of their letters."""
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
