"""The plan of a shard set, in ``OUT/_work``: the genome, read once, and the window of each row of each part."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemsdata.files.checked_json import read_checked, write_checked
from gemsdata.files.hashing import sha256_of, xxh3_of
from gemsdata.files.progress import Progress, no_progress
from gemsdata.files.shared_folder import LocalShared, SharedFolder
from gemsdata.files.typed_json import from_json
from gemsdata.genome.packed import GENOME_FILES, PackedGenome, fasta
from gemsdata.shards import windows
from gemsdata.shards.intervals import write_intervals
from gemsdata.shards.manifest import INTERVALS_FILE, NPMI_FILE, SPLITS, Manifest
from gemsdata.shards.manifest_fields import ContigInfo, GenomeInfo, NpmiInfo, ValidationInfo, shard_path
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.resume import check_plan, input_identity
from gemsdata.shards.row_layout import RowLayout, lay_out_rows
from gemsdata.shards.scored_genome import ScoredGenome, read_and_score
from gemsdata.shards.summary import summarise
from gemsdata.shards.work_folder import (
    FILES_FOLDER,
    GENOME_FOLDER,
    PLAN_FILE,
    RANKS_FILE,
    clear_work,
    is_planned,
    work_of,
)

PLANNED_FILES = (
    *(f"{GENOME_FOLDER}/{name}" for name in GENOME_FILES),
    *(name for split in SPLITS for name in windows.window_files(split).values()),
    RANKS_FILE,
    NPMI_FILE,
    INTERVALS_FILE,
)
"""the files of a plan besides plan.json"""


@dataclass(frozen=True)
class Part:
    """One shard to encode: rows first_row .. first_row + num_rows - 1 of a split."""

    split: str
    index: int
    first_row: int
    num_rows: int

    @property
    def name(self) -> str:
        """The shard's file name without its suffix, such as train/000003."""
        return f"{self.split}/{self.index:06d}"

    def path(self, file_format: str) -> str:
        """Return the path of the shard in one format, relative to the set's folder."""
        return shard_path(self.split, self.index, file_format)


@dataclass(frozen=True)
class Plan:
    """The data shared by all parts of a shard set."""

    folder: Path
    options: ShardOptions
    genome: PackedGenome
    windows: dict[str, windows.Windows]
    """in a packed set, its blocks; their ``num_tokens`` is the number of bases"""
    ranks: np.ndarray
    """uint16[4**k + 5] (uint32 from k = 8)"""
    draft: Manifest
    """the manifest without its shards and hashes"""
    summary: dict[str, Any]
    """the summary printed at the end"""
    parts_folder: str
    """folder below ``_work`` with the parts of this plan until the set is complete"""

    @property
    def parts(self) -> list[Part]:
        """Return every part, train first."""
        parts: list[Part] = []
        for split in SPLITS:
            num_rows = len(self.windows[split])
            size = self.options.num_rows_of_shard(num_rows, self.draft.block_rows, self.draft.row_tokens)
            parts += [
                Part(split, index, first, min(size, num_rows - first))
                for index, first in enumerate(range(0, num_rows, size))
            ]
        return parts

    def part_file(self, path: str) -> Path:
        """Return the location of the file of a part (``path`` in the complete set) until the set is complete."""
        return work_of(self.folder) / self.parts_folder / path


def make_plan(
    inputs: list[str],
    folder: Path,
    options: ShardOptions,
    *,
    resume: bool = False,
    executor: Executor | None = None,
    shared: SharedFolder | None = None,
    progress: Progress = no_progress,
) -> Plan:
    """Read the genome and lay out all rows; with ``resume``, reopen the plan in ``folder`` if there is one.

    With an ``executor``, the input files are read by its tasks; the plan is the same. The tasks' results go to
    ``shared``, by default a folder below ``folder``. Raises ValueError if the reopened plan has other input or options.
    ``OUT/_work/plan.json`` is written last, so that a plan is complete or absent.
    """
    if resume and is_planned(folder):
        check_plan(folder, plan_identity(folder), inputs, options)
        plan = open_plan(folder)
    else:
        clear_work(folder)
        identity = {"inputs": input_identity(inputs), "options": dataclasses.asdict(options)}
        shared = shared or LocalShared(work_of(folder) / FILES_FOLDER)
        source = read_and_score(inputs, folder, options, executor, shared, progress)
        rows = lay_out_rows(source.genome, options, work_of(folder))
        _write_tables(folder, options, source)
        draft = _draft_manifest(folder, inputs, options, source, rows)
        summary = summarise(source.report, rows.segments, rows.windows, source.table, options)
        _write_plan_file(folder, identity, draft, summary)
        plan = open_plan(folder)
    for split in SPLITS:  # created only here, so that a late `encode` cannot recreate the folders of a removed plan
        plan.part_file(split).mkdir(parents=True, exist_ok=True)
    return plan


def open_plan(folder: str | Path) -> Plan:
    """Open the plan in ``folder``; raise FileNotFoundError if there is none, ValueError if a file is damaged."""
    folder = Path(folder)
    work = work_of(folder)
    stored = _read_plan_file(folder)
    options = ShardOptions(
        **{**stored["identity"]["options"], "valid_contigs": tuple(stored["identity"]["options"]["valid_contigs"])}
    )
    for name, digest in stored["files"].items():
        if not (work / name).is_file() or xxh3_of(work / name) != digest:
            raise _damaged(work / name)
    cut = {}
    for split in SPLITS:
        cut[split] = windows.open_windows(work, split)
    return Plan(
        folder=folder,
        options=options,
        genome=PackedGenome.open(work / GENOME_FOLDER),
        windows=cut,
        ranks=np.load(work / RANKS_FILE),
        draft=from_json(Manifest, stored["draft"], "the plan"),
        summary=stored["summary"],
        parts_folder=parts_folder_of(stored["identity"]),
    )


def plan_identity(folder: Path) -> dict[str, Any]:
    """Return what the inputs and options of the plan in ``folder`` were; errors as `open_plan`."""
    identity: dict[str, Any] = _read_plan_file(folder)["identity"]
    return identity


def parts_folder_of(identity: dict[str, Any]) -> str:
    """Return the folder of the parts of a plan."""
    return f"parts-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}"


def _write_tables(folder: Path, options: ShardOptions, source: ScoredGenome) -> None:
    """Write the ranks and the two tables of the set to ``_work``."""
    work = work_of(folder)
    np.save(work / RANKS_FILE, source.table.ranks(options.k))
    source.table.to_parquet(work / NPMI_FILE, scores=not options.packed)
    write_intervals(source.genome, work / INTERVALS_FILE, with_letters=options.packed)


def _draft_manifest(
    folder: Path, inputs: list[str], options: ShardOptions, source: ScoredGenome, rows: RowLayout
) -> Manifest:
    """Return the manifest without its shards and hashes; the two tables of the set are in ``_work``."""
    work, genome, report, table = work_of(folder), source.genome, source.report, source.table
    return Manifest(
        genome=GenomeInfo(
            name=_genome_name(inputs),
            sha256=genome.sha256,
            num_bases=report.num_bases,
            num_not_acgt=report.num_not_acgt,
            num_soft_masked=report.num_soft_masked,
        ),
        contigs=[
            ContigInfo(name=name, num_bases=num_bases)
            for name, num_bases in zip(genome.names, genome.num_bases.tolist(), strict=True)
        ],
        validation=ValidationInfo(
            contigs=sorted(set(options.valid_contigs)),
            fraction=None if options.valid_contigs else options.valid_fraction,
            regions=[(contig, start, end) for contig, start, end in rows.valid_regions.tolist()],
        ),
        npmi=NpmiInfo(
            file=NPMI_FILE,
            sha256=sha256_of(work / NPMI_FILE),
            rank_sha256=hashlib.sha256(np.load(work / RANKS_FILE).astype("<u4").tobytes()).hexdigest(),
            estimator=table.estimator,
            min_count=table.min_count,
            canonical=table.canonical,
            exclude_soft_masked=table.exclude_soft_masked,
            from_this_genome=options.npmi is None,
        ),
        intervals_sha256=sha256_of(work / INTERVALS_FILE),
        **rows.fields,
    )


def _write_plan_file(folder: Path, identity: dict[str, Any], draft: Manifest, summary: dict[str, Any]) -> None:
    """Write ``plan.json``, with a digest of every other file of the plan."""
    content = {
        "identity": identity,
        "draft": {name: value for name, value in draft.as_json().items() if name != "format"},
        "summary": summary,
        "files": {name: xxh3_of(work_of(folder) / name) for name in PLANNED_FILES},
    }
    write_checked(work_of(folder) / PLAN_FILE, content)


def _read_plan_file(folder: Path) -> dict[str, Any]:
    path = work_of(folder) / PLAN_FILE
    try:
        return read_checked(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{folder} holds no plan of a shard set; make one with `gemsdata shard GENOME.fa -o {folder}`"
        ) from None
    except ValueError:
        raise _damaged(path) from None


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path} is damaged, or of another version of gemsdata; begin anew with --overwrite")


def _genome_name(inputs: list[str]) -> str:
    if inputs[0] == fasta.STDIN:
        return "stdin"
    names = [Path(path).name.split(".", 1)[0] for path in inputs]
    return "+".join(names)
