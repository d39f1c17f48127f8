"""Read the files of a genome on an executor and merge the tasks' results.

A task packs and counts one file, or a portion of one with an index (map): the contigs go to a folder of its own, the
counts to another. Tasks add the counts of 16 others until few are left (reduce, in a tree). The caller then goes
through the contigs in the order of the files, so the genome, its digest and its counts are those of reading the files
one after the other. The memory of the caller depends on the longest contig (2 bits a base), not on the genome.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from gemsdata.files.progress import Progress
from gemsdata.files.shared_folder import SharedFolder
from gemsdata.genome import fasta
from gemsdata.genome.joining import join_stretches
from gemsdata.genome.packed import (
    Contig,
    ContigNames,
    GenomeReport,
    GenomeWriter,
    PackedGenome,
    check_any_acgt,
    pack_record,
    read_file,
)
from gemsdata.genome.stretches import IndexMisfitError, Portion, has_crlf, portions_of, read_portion
from gemsdata.npmi.counts import NgramCounter, countable_runs
from gemsdata.shards.tasks import run_tasks

PORTION_BASES = 1 << 27
"""of a file with an index that one task reads"""
_COUNTS_FILE = "counts.npz"
_ADDED_AT_ONCE = 16


@dataclass(frozen=True)
class _Task:
    """What one task reads: a file, or a portion of it."""

    path: str
    index: int
    portion: Portion | None
    of_file: int
    """which of the files"""

    @property
    def name(self) -> str:
        """The folder of its contigs."""
        return _name(0, self.index)


@dataclass
class _Read:
    """What one task has read."""

    report: GenomeReport
    """of whole contigs"""
    letters: list[dict[str, int]] = field(default_factory=list)
    """of each stretch of a portion, letters other than ACGT and their counts"""
    num_rna: list[int] = field(default_factory=list)
    """of each stretch"""


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
    """Read sequence files on an executor; write the contigs to ``writer`` and the counts to ``counter``.

    ``shared``, which all workers must see, contains the tasks' results until this function returns. Raises ValueError
    as `gemsdata.genome.packed.read_contigs` does.
    """
    max_n = None if counter is None else counter.max_n
    report = GenomeReport()
    names = ContigNames()
    try:
        tasks = _tasks_of(inputs, set())
        found: list[_Read] | None = None
        while found is None:
            calls = [(_read_into, (task, shared, max_n, exclude_soft_masked)) for task in tasks]
            try:
                found = run_tasks(executor, calls, functools.partial(_report_one, progress, len(calls)))
            except IndexMisfitError as error:  # read that file from its beginning
                whole = {task.path for task in tasks if task.portion is None}
                tasks = _tasks_of(inputs, {*whole, error.path})
        if counter is not None:
            _add_counts(executor, shared, len(tasks), counter)
        done = zip(tasks, found, strict=True)
        for _, of_file in itertools.groupby(done, key=lambda item: item[0].of_file):
            _join_file(list(of_file), shared, writer, names, report)
        check_any_acgt(report)
    finally:
        shared.clear()
    return report


def _report_one(progress: Progress, total: int, _: int) -> None:
    progress("reading files", 1, total)


def _tasks_of(inputs: list[str], whole: set[str]) -> list[_Task]:
    """Divide the files among tasks; those of ``whole`` are not divided."""
    tasks: list[_Task] = []
    for number, path in enumerate(inputs):
        portions: Sequence[Portion | None] = (path not in whole and portions_of(path, PORTION_BASES)) or [None]
        tasks += [_Task(path, len(tasks) + i, portion, number) for i, portion in enumerate(portions)]
    return tasks


def _join_file(
    done: list[tuple[_Task, _Read]],
    shared: SharedFolder,
    writer: GenomeWriter,
    names: ContigNames,
    report: GenomeReport,
) -> None:
    """Write the contigs of one file, which one task has read or several have, and add to the report."""
    report.merge(done[0][1].report)
    path = done[0][0].path
    parts: list[Contig] = []  # of the contig that is being joined
    with ExitStack() as folders:  # that hold them
        for task, read in done:
            folder = folders.enter_context(shared.reading(task.name))
            folders.callback(shared.remove, task.name)
            for number, contig in enumerate(_contigs_in(folder)):
                if task.portion is None:
                    names.add(contig.name, path)
                    writer.add(contig)
                    continue
                parts.append(replace(contig, letters=read.letters[number], num_rna=read.num_rna[number]))
                stretch = task.portion.stretches[number]
                if stretch.end == stretch.num_bases:
                    whole = join_stretches(parts)
                    names.add(whole.name, path)
                    writer.add(whole)
                    report.add(whole)
                    parts = []
            if not parts:
                folders.pop_all().close()


def _read_into(task: _Task, shared: SharedFolder, max_n: int | None, exclude_soft_masked: bool) -> _Read:
    """Pack and count a file or a portion of one; share the contigs and the counts."""
    counter = None if max_n is None else NgramCounter(max_n)
    with shared.writing(task.name) as own, GenomeWriter(own) as writer:
        if task.portion is None:
            read = _Read(GenomeReport())
            for contig in read_file(task.path, read.report):
                writer.add(contig)
                if counter is not None:
                    counter.add(contig.packed, countable_runs(contig, exclude_soft_masked))
        else:
            read = _read_stretches(task.portion, writer, counter, exclude_soft_masked)
        writer.finish()
    if counter is not None:
        with shared.writing(_name(1, task.index)) as own:
            _save_counts(own, counter)
    return read


def _read_stretches(
    portion: Portion, writer: GenomeWriter, counter: NgramCounter | None, exclude_soft_masked: bool
) -> _Read:
    """Pack the stretches of a portion, and count the n-grams that begin in them."""
    file_report = fasta.FileReport(portion.path, has_crlf(portion), portion.state[0])
    read = _Read(GenomeReport(files=[file_report]))
    for stretch, letters, left in read_portion(portion, 0 if counter is None else counter.context):
        num_bases = stretch.end - stretch.start
        contig = pack_record(fasta.Record(stretch.name, letters[left : left + num_bases]), portion.path)
        writer.add(contig)
        read.letters.append(contig.letters)
        read.num_rna.append(contig.num_rna)
        if counter is not None:
            around = pack_record(fasta.Record(stretch.name, letters), portion.path)
            runs = countable_runs(around, exclude_soft_masked)
            counter.add_stretch(around.packed, runs, left, left + num_bases)
    return read


def _add_counts(executor: Executor, shared: SharedFolder, count: int, counter: NgramCounter) -> None:
    """Add the counts of ``count`` tasks to ``counter``, those of many by further tasks."""
    level = 1
    while count > _ADDED_AT_ONCE:
        groups = [range(first, min(first + _ADDED_AT_ONCE, count)) for first in range(0, count, _ADDED_AT_ONCE)]
        calls = [
            (_sum_into, (shared, [_name(level, index) for index in group], _name(level + 1, number), counter.max_n))
            for number, group in enumerate(groups)
        ]
        run_tasks(executor, calls, lambda _: None)
        level, count = level + 1, len(groups)
    for index in range(count):
        _load_counts(shared, _name(level, index), counter)


def _sum_into(shared: SharedFolder, names: list[str], total_name: str, max_n: int) -> None:
    """Add the counts that are shared under ``names``."""
    counter = NgramCounter(max_n)
    for name in names:
        _load_counts(shared, name, counter)
    with shared.writing(total_name) as own:
        _save_counts(own, counter)


def _save_counts(folder: Path, counter: NgramCounter) -> None:
    np.savez(folder / _COUNTS_FILE, **cast(dict[str, Any], counter.totals()))


def _load_counts(shared: SharedFolder, name: str, counter: NgramCounter) -> None:
    with shared.reading(name) as folder, np.load(folder / _COUNTS_FILE) as totals:
        counter.add_totals(totals)


def _name(level: int, index: int) -> str:
    """Return the name of what task ``index`` leaves: contigs at level 0, counts at level 1, sums of counts above."""
    return f"{level}{index:06d}"


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
