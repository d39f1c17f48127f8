"""The plan of a shard set, in ``OUT/_work``: the genome read once, which window is row i of which part."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemsdata.files.hashing import sha256_of
from gemsdata.files.prefetch import prefetch
from gemsdata.files.progress import Progress, no_progress
from gemsdata.files.publish import publish, write_text
from gemsdata.files.typed_json import from_json
from gemsdata.genome.packed import Contig, GenomeReport, GenomeWriter, PackedGenome, ReadProgress, fasta, read_contigs
from gemsdata.npmi.counts import NgramCounter, countable_runs
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards import windows
from gemsdata.shards.manifest import INTERVALS_FILE, NPMI_FILE, PACKED_SCHEME, SPLITS, WORK_FOLDER, Manifest, shard_path
from gemsdata.shards.manifest_fields import ContigInfo, GenomeInfo, NpmiInfo, ValidationInfo, WindowInfo
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.packed import blocks_per_batch, choose_block_bases, cut_blocks, stretches_of
from gemsdata.shards.resume import check_plan, input_identity
from gemsdata.shards.work_folder import PLAN_FILE, clear_work, is_planned

_MOST_ROWS_PER_SHARD = 32768
_MOST_BASES_PER_SHARD = 1 << 26
"""of a packed set: 16 MB, the piece that is fetched from a URL"""
_SHARDS_WANTED = 8
_COUNTED_K = 10
_BATCH_BASES = 1 << 24
_MANY_WITHOUT_SCORE = 0.1


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
    """What the parts of one shard set share."""

    folder: Path
    options: ShardOptions
    genome: PackedGenome
    windows: dict[str, windows.Windows]
    """of a packed set: its blocks, whose ``num_tokens`` is their number of bases"""
    ranks: np.ndarray
    """uint16[4**k + 5] (uint32 from k = 8)"""
    draft: Manifest
    """the manifest without its shards and hashes"""
    summary: dict[str, Any]
    """what the user is told at the end"""
    parts_folder: str
    """folder below ``_work`` in which the parts of this plan stand until the set is complete"""

    @property
    def parts(self) -> list[Part]:
        """Return every part, train first."""
        parts: list[Part] = []
        for split in SPLITS:
            num_rows = len(self.windows[split])
            size = self.options.rows_per_shard or self._default_rows_per_shard(num_rows)
            parts += [
                Part(split, index, first, min(size, num_rows - first))
                for index, first in enumerate(range(0, num_rows, size))
            ]
        return parts

    def part_file(self, path: str) -> Path:
        """Return where the file of a part, ``path`` in the complete set, stands until the set is complete."""
        return self.folder / WORK_FOLDER / self.parts_folder / path

    def _default_rows_per_shard(self, num_rows: int) -> int:
        block_rows = self.draft.block_rows
        most = _MOST_BASES_PER_SHARD // self.draft.row_tokens if self.options.packed else _MOST_ROWS_PER_SHARD
        blocks = -(-num_rows // (_SHARDS_WANTED * block_rows))
        return min(max(blocks * block_rows, block_rows), max(most // block_rows, 1) * block_rows)


def make_plan(
    inputs: list[str], folder: Path, options: ShardOptions, *, resume: bool = False, progress: Progress = no_progress
) -> Plan:
    """Read the genome and decide every row; with ``resume`` reopen the plan in ``folder`` if there is one.

    Raises ValueError when that plan has another input or other options.

    ``OUT/_work/plan.json`` is written last, so a plan is there whole or not at all.
    """
    work = folder / WORK_FOLDER
    identity = {"inputs": input_identity(inputs), "options": dataclasses.asdict(options)}
    if is_planned(folder) and resume:
        check_plan(folder, json.loads((work / PLAN_FILE).read_text())["identity"], inputs, options)
        return open_plan(folder)
    clear_work(folder)
    given = NpmiTable.from_parquet(options.npmi, options.estimator) if options.npmi else None
    if given is not None and options.k > given.max_k:
        raise ValueError(
            f"{options.npmi} holds n-grams of 1 to {given.max_k} bases; -k {options.k} needs {options.k}-mers"
        )

    report = GenomeReport()
    reading = ReadProgress(inputs, report, progress)
    tally = NgramCounter(max(_COUNTED_K, options.k)) if given is None else None
    with GenomeWriter(work / "genome") as writer:
        for contig in itertools.chain.from_iterable(prefetch(_batched(read_contigs(inputs, report)))):
            writer.add(contig)
            if tally is not None:
                tally.add(contig.packed, countable_runs(contig, options.exclude_soft_masked))
            reading.update(contig)
        genome = writer.finish()
    table = (
        given
        if tally is None
        else NpmiTable.from_counts(
            tally.counts(),
            estimator=options.estimator or "published",
            min_count=options.min_count,
            canonical=options.canonical,
            exclude_soft_masked=options.exclude_soft_masked,
        )
    )
    assert table is not None

    regions = _valid_regions(genome, options)
    segments = windows.segments(genome, regions)
    fields = options.manifest_fields()
    if options.packed:
        stretches = stretches_of(genome.num_bases, regions)
        block_bases = choose_block_bases(np.concatenate([s[:, 2] - s[:, 1] for s in stretches.values()]))
        cut = {split: _blocks(stretches[split], block_bases) for split in SPLITS}
        scheme = WindowInfo(scheme=PACKED_SCHEME, full_bases=block_bases)
        fields |= {"row_tokens": block_bases, "block_rows": blocks_per_batch(block_bases), "windows": scheme}
    else:
        cut = {
            split: windows.cut(
                segments[split],
                scheme=options.scheme,
                k=options.k,
                row_tokens=options.row_tokens,
                seed=options.seed,
                num_contigs=len(genome.names),
            )
            for split in SPLITS
        }
    if len(cut["train"]) == 0:
        longest = max((int((s[:, 2] - s[:, 1]).max()) for s in segments.values() if len(s)), default=0)
        raise ValueError(
            f"no training row: the longest run of ACGT has {longest} bases and a row needs {options.k} at least; "
            "give longer contigs, a smaller -k or a smaller validation set"
        )
    for split in SPLITS:
        np.savez(work / f"{split}.npz", **dataclasses.asdict(cut[split]))
    ranks = table.ranks(options.k)
    np.save(work / "ranks.npy", ranks)
    table.to_parquet(work / NPMI_FILE)
    _write_intervals(genome, work / INTERVALS_FILE, with_letters=options.packed)
    draft = Manifest(
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
            regions=[(contig, start, end) for contig, start, end in regions.tolist()],
        ),
        npmi=NpmiInfo(
            file=NPMI_FILE,
            sha256=sha256_of(work / NPMI_FILE),
            rank_sha256=hashlib.sha256(ranks.astype("<u4").tobytes()).hexdigest(),
            estimator=table.estimator,
            min_count=table.min_count,
            canonical=table.canonical,
            exclude_soft_masked=table.exclude_soft_masked,
            from_this_genome=given is None,
        ),
        intervals_sha256=sha256_of(work / INTERVALS_FILE),
        **fields,
    )
    summary = _summarise(report, segments, cut, table, options)
    stored = {
        "identity": identity,
        "options": dataclasses.asdict(options),
        "draft": draft.as_json(),
        "summary": summary,
    }
    write_text(work / PLAN_FILE, json.dumps(stored))
    return open_plan(folder)


def open_plan(folder: str | Path) -> Plan:
    """Open the plan in ``folder``; raise FileNotFoundError when there is none."""
    folder = Path(folder)
    work = folder / WORK_FOLDER
    if not (work / PLAN_FILE).exists():
        raise FileNotFoundError(
            f"{folder} holds no plan of a shard set; make one with `gemsdata shard GENOME.fa -o {folder}`"
        )
    stored = json.loads((work / PLAN_FILE).read_text())
    options = ShardOptions(**{**stored["options"], "valid_contigs": tuple(stored["options"]["valid_contigs"])})
    cut = {}
    for split in SPLITS:
        with np.load(work / f"{split}.npz") as arrays:
            cut[split] = windows.Windows(**arrays)
    genome = PackedGenome.open(work / "genome")
    stored["draft"].pop("format")
    draft = from_json(Manifest, stored["draft"], "the plan")
    parts_folder = f"parts-{hashlib.sha256(json.dumps(stored['identity']).encode()).hexdigest()[:16]}"
    return Plan(folder, options, genome, cut, np.load(work / "ranks.npy"), draft, stored["summary"], parts_folder)


def _batched(contigs: Iterable[Contig]) -> Iterator[list[Contig]]:
    """Yield contigs in lists of 16 Mb or more, so that a thread hands over few things also where contigs are many."""
    batch: list[Contig] = []
    num_bases = 0
    for contig in contigs:
        batch.append(contig)
        num_bases += contig.num_bases
        if num_bases >= _BATCH_BASES:
            yield batch
            batch, num_bases = [], 0
    yield batch


def _valid_regions(genome: PackedGenome, options: ShardOptions) -> np.ndarray:
    if options.valid_contigs:
        return windows.whole_contigs(genome, list(options.valid_contigs))
    row_bases = options.row_tokens + options.k - 1
    return windows.hashed_regions(genome, options.valid_fraction, row_bases, options.seed)


def _blocks(stretches: np.ndarray, block_bases: int) -> windows.Windows:
    contig, start, num_bases = cut_blocks(stretches, block_bases)[0].T
    return windows.Windows(contig.copy(), start.copy(), num_bases.copy())


def _write_intervals(genome: PackedGenome, path: Path, *, with_letters: bool) -> None:
    """Publish what the rows do not carry, as Parquet: (contig, start, end, kind), kind "gap" or "soft".

    With letters there is an interval for each run of one letter, and a column ``letter`` (null where soft-masked).
    """
    gaps = genome.ambiguous if with_letters else genome.gaps
    both = np.concatenate([gaps[:, :3], genome.soft])
    kinds = pa.DictionaryArray.from_arrays(
        np.repeat(np.array([0, 1], np.int8), [len(gaps), len(genome.soft)]), ["gap", "soft"]
    )
    columns = {
        "contig": both[:, 0].astype(np.uint32),
        "start": both[:, 1],
        "end": both[:, 2],
        "kind": kinds.cast(pa.string()),
    }
    if with_letters:
        letters = [chr(code) for code in gaps[:, 3].tolist()] + [None] * len(genome.soft)
        columns["letter"] = pa.array(letters, pa.string())
    encoding: dict[str, Any] = {}
    if with_letters:  # differences of sorted positions take 40 % of the space; sets of tokens keep their bytes
        encoding["use_dictionary"] = ["contig", "kind", "letter"]
        encoding["column_encoding"] = dict.fromkeys(("start", "end"), "DELTA_BINARY_PACKED")
    table = pa.table(columns)
    with publish(path) as stream:
        pq.write_table(table, stream, compression="zstd", **encoding)


def _summarise(
    report: GenomeReport,
    segments: Mapping[str, np.ndarray],
    cut: Mapping[str, windows.Windows],
    table: NpmiTable,
    options: ShardOptions,
) -> dict[str, Any]:
    lengths = np.concatenate([s[:, 2] - s[:, 1] for s in segments.values()])
    too_short = 0 if options.packed else int(lengths[lengths < options.k].sum())
    skipped = {f"not ACGT ({_letters_text(report.letters)})": report.num_not_acgt} if report.letters else {}
    if too_short:
        skipped[f"in runs of ACGT shorter than k = {options.k}"] = too_short
    if options.scheme == "dnabert":
        covered = sum(int((w.num_tokens.astype(np.int64) + options.k - 1).sum()) for w in cut.values())
        skipped[f"in pieces shorter than k = {options.k}"] = int(lengths.sum()) - too_short - covered
    notes: list[str] = []
    crlf = [file.path for file in report.files if file.crlf]
    if crlf:
        notes.append(f"Windows line ends in {', '.join(crlf)}: read as they should be")
    if report.num_rna:
        notes.append(f"{report.num_rna:,} U read as T")
    if report.num_empty:
        notes.append(f"{report.num_empty} records without a base: kept in the list of contigs, no rows")
    if len(cut["valid"]) == 0 and (options.valid_contigs or options.valid_fraction):
        notes.append(
            "no validation rows: the genome is too small for the fraction, or its validation contigs hold no row"
        )
    missing = table.share_without_score(options.k)
    if missing > _MANY_WITHOUT_SCORE:
        notes.append(
            f"{missing:.0%} of the {options.k}-mers occur fewer than {table.min_count} times and share the worst rank; "
            "set a smaller --min-count, or take the table of a larger genome with --npmi TABLE.parquet"
        )
    return {
        "contigs": report.num_contigs,
        "bases": report.num_bases,
        "soft_masked": report.num_soft_masked,
        "skipped": skipped,
        "notes": notes,
    }


def _letters_text(letters: Mapping[str, int]) -> str:
    ordered = sorted(letters.items(), key=lambda item: -item[1])
    return ", ".join(f"{letter} {count:,}" for letter, count in ordered)


def _genome_name(inputs: list[str]) -> str:
    if inputs[0] == fasta.STDIN:
        return "stdin"
    names = [Path(path).name.split(".", 1)[0] for path in inputs]
    return "+".join(names)
