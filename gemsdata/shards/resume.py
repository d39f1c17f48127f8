"""Check that a command with ``--resume`` has the input and options of the set in its folder."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemsdata.files.progress import Progress, no_progress
from gemsdata.files.remote_folder import is_url, url_identity
from gemsdata.genome import fasta
from gemsdata.genome.packed import GenomeDigest, GenomeReport, read_contigs
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.manifest import NPMI_FILE, Manifest
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_table import column_of
from gemsdata.shards.storage import Store

_NO_INPUT = "`gemsdata encode {0}` and then `gemsdata finalise {0}` complete an unfinished set without any input"


def input_identity(inputs: list[str]) -> list[list[Any]]:
    """Return path, size and modification time of every input file; only the name if it is not a regular file.

    Of a URL, its size and entity tag, or time of change; raises what `RemoteFolder.copy` does.
    """
    identity: list[list[Any]] = []
    for path in inputs:
        if _is_file(path):
            status = os.stat(path)
            identity.append([os.path.abspath(path), status.st_size, status.st_mtime_ns])
        elif is_url(path):
            identity.append([path, *url_identity(path)])
        else:
            identity.append([path])
    return identity


def check_plan(folder: str | Path, stored: Mapping[str, Any], inputs: list[str], options: ShardOptions) -> None:
    """Raise ValueError, with the first difference, unless the plan in ``folder`` is for these inputs and options.

    ``stored`` has the `input_identity` and the options of the time when the plan was made.
    """
    given = json.loads(json.dumps(dataclasses.asdict(options)))
    for name, value in given.items():
        if stored["options"].get(name) != value:
            raise ValueError(
                f"{folder} was begun with {_flag(name)} = {stored['options'].get(name)}, not {value}; "
                "--resume takes the same options, --overwrite begins anew"
            )
    _check_comparable(folder, inputs)
    if stored["inputs"] != input_identity(inputs):
        raise ValueError(f"{folder} was begun with other input files, or these have changed; --overwrite begins anew")


def check_complete(
    store: Store, manifest: Manifest, inputs: list[str], options: ShardOptions, progress: Progress = no_progress
) -> None:
    """Raise ValueError, with the first difference, unless these inputs and options would give the complete set.

    Options are compared with the manifest, a given NPMI table with that of the set, and the genome by its content, for
    which it is read; its file name and format may differ.
    """
    folder = str(store)
    table = NpmiTable.from_parquet(options.npmi, options.estimator) if options.npmi else None
    for name, made, given in _settings(manifest, options, table):
        if made != given:
            raise ValueError(
                f"{folder} is complete and was made with {_flag(name)} = {_text(made)}, not {_text(given)}; "
                "--overwrite replaces it"
            )
    if table is not None:
        _check_counts(store, table, options)
    _check_comparable(folder, inputs)
    _check_genome(folder, manifest, inputs, progress)


def _settings(manifest: Manifest, options: ShardOptions, table: NpmiTable | None) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, value of the set, given value) of all settings except the genome and the counts."""
    fields = options.manifest_fields()
    for name in ("formats", "k", "seed", "compression", "rank_column"):
        yield name, getattr(manifest, name), fields[name]
    if not options.packed:  # in a packed set, they depend on the genome
        yield "row_tokens", manifest.row_tokens, fields["row_tokens"]
        yield "block_rows", manifest.block_rows, fields["block_rows"]
        yield "windows", manifest.windows.scheme, options.scheme
        yield "windows", manifest.windows, fields["windows"]
    yield "valid_contigs", manifest.validation.contigs, sorted(set(options.valid_contigs))
    yield "valid_fraction", manifest.validation.fraction, None if options.valid_contigs else options.valid_fraction
    for shards in manifest.splits.values():
        if shards:
            num_rows = sum(column_of(shards, "num_rows"))
            size = options.num_rows_of_shard(num_rows, manifest.block_rows, manifest.row_tokens)
            yield "rows_per_shard", shards[0].num_rows, min(size, num_rows)
    npmi = manifest.npmi
    yield "npmi", "the counts of its genome" if npmi.from_this_genome else "a table", _source(table)
    expected = options if table is None else table
    yield "estimator", npmi.estimator, expected.estimator or "published"
    for name in ("min_count", "canonical", "exclude_soft_masked"):
        yield name, getattr(npmi, name), getattr(expected, name)


def _source(table: NpmiTable | None) -> str:
    return "the counts of its genome" if table is None else "a table"


def _check_counts(store: Store, table: NpmiTable, options: ShardOptions) -> None:
    with store.file(NPMI_FILE) as path:
        made = NpmiTable.from_parquet(path)
    for n in sorted({*table.counts, *made.counts}):
        if not np.array_equal(table.counts.get(n, ()), made.counts.get(n, ())):
            raise ValueError(
                f"{store} is complete and was made with another table than {options.npmi}: the counts of {n}-mers "
                "differ; --overwrite replaces it"
            )


def _check_comparable(folder: str | Path, inputs: list[str]) -> None:
    """Raise ValueError for an input that can be read only once and so cannot be compared beforehand."""
    for path in inputs:
        if path == fasta.STDIN or (os.path.exists(path) and not _is_file(path)):
            shown = "standard input" if path == fasta.STDIN else path
            raise ValueError(
                f"{folder}: {shown} cannot be compared with the genome that the set was begun with; give --resume a "
                f"file, or: {_NO_INPUT.format(folder)}"
            )


def _check_genome(folder: str | Path, manifest: Manifest, inputs: list[str], progress: Progress) -> None:
    """Read the genome and compare it with that of the set: contigs first, then the digest of everything."""
    digest = GenomeDigest()
    num_contigs = 0
    for contig in read_contigs(inputs, GenomeReport()):
        made = manifest.contigs[num_contigs] if num_contigs < len(manifest.contigs) else None
        if made is None or (made.name, made.num_bases) != (contig.name, contig.num_bases):
            was = f"{made.name} of {made.num_bases:,} bases" if made else "absent"
            raise ValueError(
                f"{folder} is complete and was made from another genome: contig {num_contigs} was {was}, is "
                f"{contig.name} of {contig.num_bases:,} bases; --overwrite replaces it"
            )
        digest.add(contig)
        num_contigs += 1
        progress("reading", contig.num_bases, None)
    if num_contigs < len(manifest.contigs):
        raise ValueError(
            f"{folder} is complete and was made from another genome: contig {manifest.contigs[num_contigs].name} is "
            "not in the input; --overwrite replaces it"
        )
    if digest.hexdigest() != manifest.genome.sha256:
        raise ValueError(
            f"{folder} is complete and was made from another genome: the contigs have the same names and lengths, but "
            "other bases or soft-masking; --overwrite replaces it"
        )


def _is_file(path: str) -> bool:
    return path != fasta.STDIN and os.path.isfile(path)


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _text(value: Any) -> str:
    return ",".join(value) or "none" if isinstance(value, list) else str(value)
