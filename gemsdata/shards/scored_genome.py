"""Reading of a genome into ``OUT/_work``, and scoring of its n-grams: the first step of a plan."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from gemsdata.files.prefetch import prefetch
from gemsdata.files.progress import Progress
from gemsdata.files.shared_folder import SharedFolder
from gemsdata.genome.packed import Contig, GenomeReport, GenomeWriter, PackedGenome, ReadProgress, fasta, read_contigs
from gemsdata.npmi.counts import NgramCounter, countable_runs
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.parallel_reading import read_on
from gemsdata.shards.work_folder import GENOME_FOLDER, work_of

_COUNTED_K = 10
_BATCH_BASES = 1 << 24


@dataclass(frozen=True)
class ScoredGenome:
    """A packed genome and the NPMI table of its set."""

    genome: PackedGenome
    report: GenomeReport
    table: NpmiTable
    """given by the options, or computed from the genome's counts"""


def read_and_score(
    inputs: list[str],
    folder: Path,
    options: ShardOptions,
    executor: Executor | None,
    shared: SharedFolder,
    progress: Progress,
) -> ScoredGenome:
    """Write the packed genome to ``_work``, and score its n-grams unless the options name a table."""
    given = _given_table(options)
    counter = NgramCounter(max(_COUNTED_K, options.k)) if given is None else None
    soft_excluded = options.exclude_soft_masked
    with GenomeWriter(work_of(folder) / GENOME_FOLDER) as writer:
        if executor is None or fasta.STDIN in inputs:
            report = _read_in_order(inputs, writer, counter, exclude_soft_masked=soft_excluded, progress=progress)
        else:
            report = read_on(
                executor, inputs, shared, writer, counter, exclude_soft_masked=soft_excluded, progress=progress
            )
        genome = writer.finish()
    if counter is not None:
        given = NpmiTable.from_counts(
            counter.counts(),
            estimator=options.estimator or "published",
            min_count=options.min_count,
            canonical=options.canonical,
            exclude_soft_masked=options.exclude_soft_masked,
        )
    assert given is not None
    return ScoredGenome(genome, report, given)


def _read_in_order(
    inputs: list[str],
    writer: GenomeWriter,
    counter: NgramCounter | None,
    *,
    exclude_soft_masked: bool,
    progress: Progress,
) -> GenomeReport:
    report = GenomeReport()
    reading = ReadProgress(inputs, report, progress)
    for contig in itertools.chain.from_iterable(prefetch(_batched(read_contigs(inputs, report)))):
        writer.add(contig)
        if counter is not None:
            counter.add(contig.packed, countable_runs(contig, exclude_soft_masked))
        reading.update(contig)
    return report


def _given_table(options: ShardOptions) -> NpmiTable | None:
    """Return the NPMI table that the options name, or None."""
    if not options.npmi:
        return None
    table = NpmiTable.from_parquet(options.npmi, options.estimator)
    if options.k > table.max_k:
        raise ValueError(
            f"{options.npmi} holds n-grams of 1 to {table.max_k} bases; -k {options.k} needs {options.k}-mers"
        )
    return table


def _batched(contigs: Iterable[Contig]) -> Iterator[list[Contig]]:
    """Yield contigs in lists of 16 Mb or more, so that a thread passes few items even if there are many contigs."""
    batch: list[Contig] = []
    num_bases = 0
    for contig in contigs:
        batch.append(contig)
        num_bases += contig.num_bases
        if num_bases >= _BATCH_BASES:
            yield batch
            batch, num_bases = [], 0
    yield batch
