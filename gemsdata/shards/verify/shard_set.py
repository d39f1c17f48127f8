"""``verify``: the checks of a shard set, in their order."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemsdata.files.hashing import sha256_of
from gemsdata.files.progress import Progress, no_progress
from gemsdata.kernels.keys import key_of
from gemsdata.kernels.order import permute_range
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.manifest import INTERVALS_FILE, MANIFEST_FILE, NPMI_FILE, SPLITS, Manifest
from gemsdata.shards.storage import LocalStore, RemoteStore, store_of
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.npmi import check_counts, check_scores
from gemsdata.shards.verify.packed import check_packed_shard, expected_blocks
from gemsdata.shards.verify.reference import ReferenceGenome, read_reference
from gemsdata.shards.verify.rows import check_shard
from gemsdata.shards.verify.windows import expected_regions, expected_windows
from gemsdata.shards.verify.written import check_held_out, check_tokenizer, check_written_places, check_written_shard
from gemsdata.shards.work_folder import holds_work, is_work

_MOST_NAMES_SHOWN = 10
_SHORTEST_PIECE, _LONGEST_PIECE = 5, 510
"""lengths of the pieces of Ji et al. 2021, in bases"""


@dataclass
class Verdict:
    """The checks that passed, and the amount of data."""

    num_files: int = 0
    num_rows: int = 0
    num_tokens: int = 0
    """of a packed set, the number of bases; its rows are blocks"""
    packed: bool = False
    against_fasta: bool = False
    checks: list[str] = field(default_factory=list)


def verify(out: str | Path, fasta: Sequence[str] = (), progress: Progress = no_progress) -> Verdict:
    """Check the shard set in ``out`` against its manifest, and with ``fasta`` against the genome.

    Returns the list of the checks that were made. Raises VerificationError at the first difference, and
    FileNotFoundError or ValueError if ``out`` is not a shard set or ``fasta`` cannot be read. The shards of a set at a
    URL are fetched to a temporary folder, bypassing the cache, one at a time.
    """
    store = store_of(out)
    manifest = store.manifest()
    verdict = Verdict(packed=manifest.packed)
    with tempfile.TemporaryDirectory(prefix="gemsdata-verify-") as scratch:
        if isinstance(store, LocalStore):
            folder = store.folder
            _check_file_names(folder, manifest)
            other = " except those of an unfinished set in _work" if holds_work(folder) else ""
            verdict.checks.append(f"the folder contains the files of the manifest and no others{other}")
        else:
            folder = Path(scratch) / "set"
        tokenizer = manifest.tokens.files if manifest.tokens else []
        with _local_files(store, folder, [NPMI_FILE, INTERVALS_FILE, *tokenizer]):
            _check_set(store, folder, manifest, fasta, Path(scratch), verdict, progress)
    return verdict


@contextlib.contextmanager
def _local_files(store: LocalStore | RemoteStore, folder: Path, names: list[str]) -> Iterator[None]:
    """Context manager: download files of a set at a URL to ``folder``; do nothing for a local set."""
    if isinstance(store, LocalStore):
        yield
        return
    paths = []
    for name in names:
        try:
            paths.append(store.download(name, folder))
        except FileNotFoundError:
            raise VerificationError(f"{name} is missing at {store}") from None
    yield
    for path in paths:
        path.unlink()


def _check_set(
    store: LocalStore | RemoteStore,
    folder: Path,
    manifest: Manifest,
    fasta: Sequence[str],
    scratch: Path,
    verdict: Verdict,
    progress: Progress,
) -> None:
    """Check everything except the list of files, and record the checks that pass."""
    if manifest.intervals_sha256 and sha256_of(folder / INTERVALS_FILE) != manifest.intervals_sha256:
        raise VerificationError(f"{INTERVALS_FILE}: its sha256 is not the manifest's")
    if manifest.tokens is not None:
        check_held_out(manifest)
    if manifest.tokens is not None and manifest.tokens.files:
        verdict.checks.append(check_tokenizer(folder, manifest.tokens))
    table = _checked_table(folder, manifest)
    ranks = table.ranks(manifest.k)
    verdict.checks.append(f"{NPMI_FILE}, its settings and its ranks match the manifest")
    num_bases = manifest.genome.num_bases
    genome = read_reference(fasta, scratch / "bases.bin", num_bases, progress) if fasta else None
    if genome is not None:
        verdict.against_fasta = True
        _check_genome(folder, manifest, genome)
        regions = " and validation regions" if manifest.tokens is None else ""
        verdict.checks.append(f"contigs, numbers of bases{regions} match the FASTA")
        verdict.checks.append(f"{INTERVALS_FILE} contains every gap and every soft-masked interval of the FASTA")
    for split in manifest.splits:
        _check_split(store, folder, manifest, split, ranks, genome, verdict, progress)
    if genome is not None:  # after the rows, whose messages name the base that differs
        _expect("genome.sha256", manifest.genome.sha256, genome.sha256())
    verdict.checks.append("every shard has the size, hashes, rows, columns and padding that the manifest gives")
    if manifest.rank_column:
        verdict.checks.append("npmi_rank of every token is its rank in every shard")
    if manifest.tokens is not None:
        verdict.checks.append("no token is in two rows, and no row crosses the border of the validation split")
    if manifest.packed:
        verdict.checks.append("blocks cover each split's parts of the contigs, in order and once")
    if genome is not None:
        verdict.checks.append("the digest of the genome matches the FASTA")
        if manifest.packed:
            verdict.checks.append("every base matches the FASTA; which letter a gap has was not checked")
        elif manifest.tokens is not None:
            verdict.checks.append("every token spells the bases of the FASTA; how a tokenizer cuts was not checked")
            verdict.checks.append("the windows, seed and order of rows of the view were not checked")
        else:
            verdict.checks.append("every token and its position match the FASTA")
            verdict.checks.append("each window of the FASTA occurs once, in its split and in the order of the seed")
        if manifest.npmi.from_this_genome:
            check_counts(table, genome, NPMI_FILE)
            verdict.checks.append(f"the counts of all n-grams of 1 to {table.max_k} bases match the FASTA")
        else:
            verdict.checks.append("the NPMI table is another genome's: its counts were not checked")
        verdict.checks.append(check_scores(table, folder / NPMI_FILE))


def _check_file_names(folder: Path, manifest: Manifest) -> None:
    expected = {MANIFEST_FILE, NPMI_FILE, INTERVALS_FILE, *(manifest.tokens.files if manifest.tokens else ())}
    for shards in manifest.splits.values():
        expected |= {file.path for shard in shards for file in shard.files.values()}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    missing = sorted(expected - found)
    if missing:
        raise VerificationError(f"{missing[0]} is missing" + (f" ({len(missing)} files are)" if missing[1:] else ""))
    extra = sorted(path for path in found - expected if not is_work(path))
    if extra:
        names = ", ".join(extra[:_MOST_NAMES_SHOWN]) + (", ..." if len(extra) > _MOST_NAMES_SHOWN else "")
        raise VerificationError(f"{len(extra)} files in {folder} are not in the manifest: {names}; remove them")


def _checked_table(folder: Path, manifest: Manifest) -> NpmiTable:
    """Return the NPMI table of the set, after comparing its hash with the manifest."""
    if sha256_of(folder / NPMI_FILE) != manifest.npmi.sha256:
        raise VerificationError(f"{NPMI_FILE}: its sha256 is not the manifest's")
    table = NpmiTable.from_parquet(folder / NPMI_FILE)
    for name in ("estimator", "min_count", "canonical", "exclude_soft_masked"):
        _expect(f"{NPMI_FILE}: {name}", getattr(table, name), getattr(manifest.npmi, name))
    digest = hashlib.sha256(table.ranks(manifest.k).astype("<u4").tobytes()).hexdigest()
    if digest != manifest.npmi.rank_sha256:
        raise VerificationError(f"{NPMI_FILE}: its ranks of the {manifest.k}-mers are not the manifest's")
    return table


def _check_genome(folder: Path, manifest: Manifest, genome: ReferenceGenome) -> None:
    """Check the manifest and intervals.parquet against the genome, and the options that depend on it."""
    _check_contigs(manifest, genome)
    gaps, soft = genome.gaps(), genome.soft()
    stated = manifest.genome
    _expect("genome.num_bases", stated.num_bases, int(genome.num_bases.sum()))
    _expect("genome.num_not_acgt", stated.num_not_acgt, int((gaps[:, 2] - gaps[:, 1]).sum()))
    _expect("genome.num_soft_masked", stated.num_soft_masked, int((soft[:, 2] - soft[:, 1]).sum()))
    if manifest.tokens is not None:  # its windows and regions were chosen by the view that was written
        has_letters = "letter" in pq.read_schema(folder / INTERVALS_FILE).names
        _check_intervals(folder / INTERVALS_FILE, gaps, soft, with_letters=has_letters)
        return
    _check_intervals(folder / INTERVALS_FILE, gaps, soft, with_letters=manifest.packed)
    full_bases = manifest.row_tokens if manifest.packed else manifest.row_tokens + manifest.k - 1
    windows = manifest.windows
    _expect("windows.full_bases", windows.full_bases, full_bases)
    random_lengths = (_SHORTEST_PIECE, min(_LONGEST_PIECE, full_bases)) if windows.scheme == "dnabert" else (None, None)
    _expect("windows: the lengths of pieces", (windows.shortest_bases, windows.longest_bases), random_lengths)
    named = frozenset(manifest.validation.contigs)
    _expect("validation.contigs", manifest.validation.contigs, [name for name in sorted(genome.names) if name in named])
    _expect("validation.regions", manifest.validation.regions, expected_regions(manifest, genome))


def _check_contigs(manifest: Manifest, genome: ReferenceGenome) -> None:
    for index, contig in enumerate(manifest.contigs):
        if index >= len(genome.names):
            raise VerificationError(f"contig {contig.name} is not in the FASTA")
        found = (genome.names[index], int(genome.num_bases[index]))
        if found != (contig.name, contig.num_bases):
            raise VerificationError(
                f"contig {index} is {contig.name} of {contig.num_bases} bases in the set, "
                f"{found[0]} of {found[1]} in the FASTA"
            )
    if len(genome.names) > len(manifest.contigs):
        raise VerificationError(f"contig {genome.names[len(manifest.contigs)]} of the FASTA is not in the set")


def _check_intervals(path: Path, gaps: np.ndarray, soft: np.ndarray, *, with_letters: bool) -> None:
    """Check that intervals.parquet holds the gaps, then the soft-masked intervals, and nothing else.

    In packed sets, which store letters, gaps are split where the letter changes. The letters themselves are not
    checked.
    """
    try:
        table = pq.read_table(path)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise VerificationError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from None
    if with_letters:
        table = _joined(table, path.name)
    wanted = pa.table(
        {
            "contig": pa.array(np.concatenate([gaps[:, 0], soft[:, 0]]), pa.uint32()),
            "start": pa.array(np.concatenate([gaps[:, 1], soft[:, 1]])),
            "end": pa.array(np.concatenate([gaps[:, 2], soft[:, 2]])),
            "kind": pa.array(["gap"] * len(gaps) + ["soft"] * len(soft), pa.string()),
        }
    )
    if not table.schema.equals(wanted.schema):
        raise VerificationError(f"{path.name}: its columns are not contig, start, end and kind")
    if table.num_rows != wanted.num_rows:
        raise VerificationError(f"{path.name} has {table.num_rows} intervals, the FASTA {wanted.num_rows}")
    for name in wanted.schema.names:
        if not table[name].equals(wanted[name]):
            row = next(i for i in range(len(wanted)) if table[name][i] != wanted[name][i])
            raise VerificationError(f"{path.name} row {row}: {name} is {table[name][row]}, not {wanted[name][row]}")


def _joined(table: pa.Table, name: str) -> pa.Table:
    """Return intervals without their letters, with the intervals of one gap joined."""
    if table.schema.names != ["contig", "start", "end", "kind", "letter"]:
        raise VerificationError(f"{name}: its columns are not contig, start, end, kind and letter")
    rows: list[dict[str, Any]] = []
    for row in table.to_pylist():
        letter = row.pop("letter")
        if (row["kind"] == "soft") != (letter is None) or (letter is not None and letter in "ACGTU"):
            raise VerificationError(f"{name}: an interval of kind {row['kind']} has the letter {letter}")
        touches = rows and row["kind"] == "gap" and all(rows[-1][key] == row[key] for key in ("contig", "kind"))
        if touches and rows[-1]["end"] == row["start"]:
            rows[-1]["end"] = row["end"]
        else:
            rows.append(row)
    return pa.Table.from_pylist(rows, table.schema.remove(4))


def _check_split(
    store: LocalStore | RemoteStore,
    folder: Path,
    manifest: Manifest,
    split: str,
    ranks: np.ndarray,
    genome: ReferenceGenome | None,
    verdict: Verdict,
    progress: Progress,
) -> None:
    """Check all shards of a split, and the positions of its rows."""
    total = sum(manifest.num_rows(name) for name in manifest.splits)
    places: list[np.ndarray] = [np.empty((0, 3 if manifest.tokens is None else 4), np.int64)]
    first_row = 0
    for index, shard in enumerate(manifest.shards(split)):
        _expect(f"{split}: the first row of shard {index}", shard.first_row, first_row)
        where = f"{split}/{index:06d}"
        with _local_files(store, folder, [file.path for file in shard.files.values()]):
            if manifest.tokens is not None:
                places.append(check_written_shard(folder, manifest, manifest.tokens, where, shard, genome))
            elif manifest.packed:
                places.append(check_packed_shard(folder, manifest, where, shard, genome))
            else:
                places.append(check_shard(folder, manifest, where, shard, ranks, genome))
        verdict.num_files += len(shard.files)
        verdict.num_rows += shard.num_rows
        verdict.num_tokens += shard.num_tokens
        first_row += shard.num_rows
        progress("checking", shard.num_rows, total)
    if manifest.tokens is not None:
        check_written_places(manifest, manifest.tokens, split, np.concatenate(places))
    elif manifest.packed:
        if not np.array_equal(np.concatenate(places), expected_blocks(manifest, split)):
            raise VerificationError(f"{split}: its blocks do not cover its parts of the contigs, in order and once")
    elif genome is not None:
        _check_places(manifest, split, genome, np.concatenate(places))


def _check_places(manifest: Manifest, split: str, genome: ReferenceGenome, placed: np.ndarray) -> None:
    """Check that the rows are exactly the windows that a loop over the runs of ACGT gives, each once."""
    expected = expected_windows(manifest, split, genome)
    in_order = placed[np.lexsort((placed[:, 1], placed[:, 0]))]
    num_both = min(len(expected), len(placed))
    differs = np.flatnonzero((expected[:num_both] != in_order[:num_both]).any(axis=1))
    if differs.size:
        here, wanted = _window_text(in_order[differs[0]], genome), _window_text(expected[differs[0]], genome)
        raise VerificationError(f"{split}: window {here} was found, {wanted} was expected")
    _expect(f"{split}: the number of windows", len(placed), len(expected))
    order = np.empty(len(placed), np.int64)  # the kernel of the writer: its order is tested elsewhere
    permute_range(0, len(placed), np.uint64(key_of(manifest.seed, RandomStream.ROW_ORDER, SPLITS.index(split))), order)
    differs = np.flatnonzero((expected[order] != placed).any(axis=1))
    if differs.size:
        raise VerificationError(f"{split}: row {differs[0]} is not where the order of seed {manifest.seed} puts it")


def _window_text(window: np.ndarray, genome: ReferenceGenome) -> str:
    contig, start, num_tokens = window.tolist()
    return f"{genome.names[contig]}:{start} of {num_tokens} tokens"


def _expect(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise VerificationError(f"{what} is {str(found)[:200]}, not {str(wanted)[:200]}")
