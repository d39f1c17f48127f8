"""Sharding as idempotent steps: plan, encode part i, finalise.

`plan_only` reads the FASTA once and writes everything that the parts need to ``OUT/_work``. `encode_part` writes one
shard, on any machine that sees the folder and in any order. `finalise` checks that no part is missing and publishes the
manifest. Every file is published by rename, so a run that is killed at any point can be continued. `shard` does all
three steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from gemsdata.files.progress import Progress, no_progress
from gemsdata.shards.encode import encode_part, encode_parts, finished_part
from gemsdata.shards.manifest import SPLITS, Manifest
from gemsdata.shards.manifest_fields import Shard
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.parallel_encoding import encode_on
from gemsdata.shards.plan import Plan, make_plan, open_plan
from gemsdata.shards.resume import check_complete
from gemsdata.shards.work_folder import (
    check_writable,
    clear_work,
    finish_publishing,
    interrupted,
    is_complete,
    is_planned,
    locked,
    publish_set,
    work_of,
)

__all__ = ["complete_set", "encode_part", "encode_parts", "finalise", "open_plan", "plan_only", "shard"]


def shard(
    paths: Iterable[str | Path],
    out: str | Path,
    options: ShardOptions | None = None,
    *,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> tuple[Manifest, dict[str, Any]]:
    """Shard a genome into the folder ``out``; return the manifest and the summary of the genome.

    ``workers`` threads encode: the kernels, the hashes and the writes release the GIL. 0 and 1 both encode in the
    calling thread. With an ``executor``, its workers read the files and encode, ``workers`` at a time; they must see
    the files and ``out`` under the same paths (docs/scale.md). The resulting set is the same. A complete set in ``out``
    that is to be overwritten stays until the new one is complete. Raises ValueError or FileNotFoundError for invalid
    input, OSError if the disk is full (finished parts are kept).
    """
    if workers < 0:
        raise ValueError(f"workers = {workers}; 0 or more are needed")
    folder, inputs, options = Path(out), [str(path) for path in paths], options or ShardOptions()
    if resume:
        check_writable(folder, resume=resume, overwrite=overwrite)
        manifest = complete_set(folder)
        if manifest is not None:
            check_complete(folder, manifest, inputs, options, progress)
            return manifest, _summary_of_complete(manifest)
    with _writing(folder, resume=resume, overwrite=overwrite):
        plan = _plan(inputs, folder, options, resume=resume, executor=executor, progress=progress)
        if executor is None:
            encode_parts(plan, plan.parts, workers=workers, progress=progress)
        else:
            encode_on(executor, plan, plan.parts, workers=workers, progress=progress)
        return finalise(plan, check_hashes=False), plan.summary  # each part was just written, or just hashed


def plan_only(
    paths: Iterable[str | Path],
    out: str | Path,
    options: ShardOptions | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> Plan:
    """Plan a shard set in the folder ``out`` without encoding; after an error the folder is unchanged.

    A complete set in ``out`` that is to be overwritten stays as it is until the new one is finalised.
    """
    folder, inputs = Path(out), [str(path) for path in paths]
    with _writing(folder, resume=resume, overwrite=overwrite):
        return _plan(inputs, folder, options or ShardOptions(), resume=resume, executor=executor, progress=progress)


def finalise(plan: Plan, *, check_hashes: bool = True) -> Manifest:
    """Move the parts to their final names, write the manifest and remove ``_work``.

    ``check_hashes`` reads every part and compares it with the hash computed when it was written. Raises ValueError that
    names missing or damaged parts, or if the plan was removed in the meantime.
    """
    splits: dict[str, list[Shard]] = {split: [] for split in SPLITS}
    missing: list[str] = []
    with locked(plan.folder):
        if not plan.part_file("").is_dir():
            raise ValueError(f"{plan.folder} was completed or planned anew meanwhile; nothing was changed")
        for part in plan.parts:
            shard = finished_part(plan, part, check_hashes=check_hashes)
            if shard is None:
                missing.append(part.name)
            else:
                splits[part.split].append(shard)
        if missing:
            raise ValueError(
                f"{plan.folder} lacks {len(missing)} of {len(plan.parts)} parts: {', '.join(missing)}; "
                "encode them, then finalise again"
            )
        manifest = dataclasses.replace(plan.draft, splits=splits).with_hashes()
        publish_set(plan.folder, manifest, plan.parts_folder)
    return manifest


def complete_set(folder: Path) -> Manifest | None:
    """Return the manifest of a complete set; None if there is none, or if parts of a plan are left to encode.

    If a run was killed while it published the set, that is completed first, and its leftover files are removed.
    """
    if interrupted(folder) or (is_complete(folder) and not is_planned(folder) and work_of(folder).exists()):
        with locked(folder):
            finish_publishing(folder)
            if is_complete(folder) and not is_planned(folder):
                clear_work(folder)
    return Manifest.load(folder) if is_complete(folder) and not is_planned(folder) else None


@contextlib.contextmanager
def _writing(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Lock ``folder`` for a new set; raise ValueError if it has files that do not belong to a shard set."""
    existed = folder.exists()
    check_writable(folder, resume=resume, overwrite=overwrite)
    complete_set(folder)
    try:
        with locked(folder):
            check_writable(folder, resume=resume, overwrite=overwrite)  # check again, now that the folder is locked
            if resume and is_complete(folder) and not is_planned(folder):
                raise ValueError(f"{folder} is complete: nothing is left to do; --overwrite replaces it")
            yield
    except BaseException:
        if not existed:
            with contextlib.suppress(OSError):  # not empty: finished work is kept
                folder.rmdir()
        raise


def _plan(
    inputs: list[str],
    folder: Path,
    options: ShardOptions,
    *,
    resume: bool,
    executor: Executor | None,
    progress: Progress,
) -> Plan:
    """Make the plan, or reopen it; after an error nothing of a new plan is left."""
    try:
        return make_plan(inputs, folder, options, resume=resume, executor=executor, progress=progress)
    except BaseException:
        if not resume:
            clear_work(folder)
        raise


def _summary_of_complete(manifest: Manifest) -> dict[str, Any]:
    """Return the summary that a resumed run gives for a set that was already complete."""
    genome = manifest.genome
    return {
        "contigs": len(manifest.contigs),
        "bases": genome.num_bases,
        "soft_masked": genome.num_soft_masked,
        "skipped": {"not ACGT": genome.num_not_acgt},
        "notes": ["the set was complete before; nothing was written"],
    }
