"""Sharding as idempotent steps: plan, encode part i, finalise.

`plan_only` reads the FASTA once and writes everything that the parts need to ``OUT/_work``. `encode_part` writes one
shard, on any machine that sees the folder and in any order. `finalise` checks that no part is missing and publishes the
manifest. Every file is published by rename, so a run that is killed at any point can be continued. `shard` does all
three steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from gemsdata.files.output_folder import OutputFolder
from gemsdata.files.progress import Progress, no_progress
from gemsdata.files.remote_folder import is_url
from gemsdata.shards.encode import complete_manifest, encode_part, encode_parts, finished_part
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.parallel_encoding import encode_on
from gemsdata.shards.plan import Plan, make_plan, open_plan
from gemsdata.shards.plan_at_url import open_plan_at
from gemsdata.shards.resume import check_complete
from gemsdata.shards.storage import LocalStore, RemoteStore
from gemsdata.shards.work_folder import (
    all_encoded,
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
from gemsdata.shards.write_at_url import complete_set_at, encode_at, encode_at_on, finalise_at, plan_at

__all__ = [
    "complete_set",
    "encode_part",
    "encode_parts",
    "encode_slice",
    "finalise",
    "finalise_place",
    "open_plan",
    "plan_only",
    "shard",
]


def shard(
    paths: Iterable[str | Path],
    out: str | Path,
    options: ShardOptions | None = None,
    *,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    executor: Executor | None = None,
    storage_options: dict[str, Any] | None = None,
    progress: Progress = no_progress,
) -> tuple[Manifest, dict[str, Any]]:
    """Shard a genome into the folder or URL ``out``; return the manifest and the summary of the genome.

    ``workers`` threads encode: the kernels, the hashes and the writes release the GIL. 0 and 1 both encode in the
    calling thread. With an ``executor``, its workers read the files and encode, ``workers`` at a time; they must see
    the files and ``out`` under the same paths (docs/scale.md). The resulting set is the same. A complete set in ``out``
    that is to be overwritten stays until the new one is complete. ``storage_options`` are settings of the object store
    (docs/remote.md). Raises ValueError or FileNotFoundError for invalid input, OSError if the disk is full or the store
    does not answer (finished parts are kept).
    """
    if workers < 0:
        raise ValueError(f"workers = {workers}; 0 or more are needed")
    inputs, options = [str(path) for path in paths], options or ShardOptions()
    if is_url(out):
        output = OutputFolder(str(out), storage_options)
        return _shard_at(inputs, output, options, workers, executor, progress, resume=resume, overwrite=overwrite)
    folder = Path(out)
    if resume:
        check_writable(folder, resume=resume, overwrite=overwrite)
        manifest = complete_set(folder)
        if manifest is not None:
            check_complete(LocalStore(folder), manifest, inputs, options, progress)
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
    storage_options: dict[str, Any] | None = None,
    progress: Progress = no_progress,
) -> Plan:
    """Plan a shard set in the folder or at the URL ``out`` and do not encode; after an error it is unchanged.

    A complete set in ``out`` that is to be overwritten stays as it is until the new one is finalised.
    """
    inputs = [str(path) for path in paths]
    if is_url(out):
        output, flags = OutputFolder(str(out), storage_options), {"resume": resume, "overwrite": overwrite}
        return plan_at(inputs, output, options or ShardOptions(), **flags, executor=executor, progress=progress).plan
    folder = Path(out)
    with _writing(folder, resume=resume, overwrite=overwrite):
        return _plan(inputs, folder, options or ShardOptions(), resume=resume, executor=executor, progress=progress)


def finalise(plan: Plan, *, check_hashes: bool = True) -> Manifest:
    """Move the parts to their final names, write the manifest and remove ``_work``.

    ``check_hashes`` reads every part and compares it with the hash computed when it was written. Raises ValueError that
    names missing or damaged parts, or if the plan was removed in the meantime.
    """
    with locked(plan.folder):
        if not plan.part_file("").is_dir():
            raise ValueError(f"{plan.folder} was completed or planned again meanwhile; nothing was changed")
        shards = [finished_part(plan, part, check_hashes=check_hashes) for part in plan.parts]
        manifest = complete_manifest(plan, shards, plan.folder)
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


def encode_slice(
    out: str | Path, index: int, count: int, *, workers: int = 1, progress: Progress = no_progress
) -> tuple[int, int] | None:
    """Encode every ``count``-th part of a planned set from part ``index`` on; return how many, and of how many.

    None: every part was encoded before. Raises as `open_plan` does.
    """
    if is_url(out):
        output = OutputFolder(str(out))
        if complete_set_at(output) is not None:
            return None
        planned = open_plan_at(output)
        plan, parts = planned.plan, planned.plan.parts[index::count]
        encode_at(planned, parts, workers=workers, progress=progress)
    else:
        if all_encoded(Path(out)):
            return None
        plan = open_plan(Path(out))
        parts = plan.parts[index::count]
        encode_parts(plan, parts, workers=workers, progress=progress)
    return len(parts), len(plan.parts)


def finalise_place(out: str | Path) -> tuple[Manifest, dict[str, Any] | None]:
    """Finalise the planned set in a folder or at a URL; return its manifest, and the summary of the genome.

    The summary is None if the set was already complete. Raises as `finalise` and `open_plan` do.
    """
    if is_url(out):
        output = OutputFolder(str(out))
        found = complete_set_at(output)
        if found is not None:
            return found, None
        planned = open_plan_at(output)
        return finalise_at(planned), planned.plan.summary
    found = complete_set(Path(out))
    if found is not None:
        return found, None
    plan = open_plan(Path(out))
    return finalise(plan), plan.summary


def _shard_at(
    inputs: list[str],
    output: OutputFolder,
    options: ShardOptions,
    workers: int,
    executor: Executor | None,
    progress: Progress,
    *,
    resume: bool,
    overwrite: bool,
) -> tuple[Manifest, dict[str, Any]]:
    """Shard a genome into an object store; see `shard`."""
    if resume and not overwrite:
        manifest = complete_set_at(output)
        if manifest is not None:
            store = RemoteStore(output.url, storage_options=output.storage_options)
            check_complete(store, manifest, inputs, options, progress)
            return manifest, _summary_of_complete(manifest)
    planned = plan_at(inputs, output, options, resume=resume, overwrite=overwrite, executor=executor, progress=progress)
    if executor is None:
        encode_at(planned, planned.plan.parts, workers=workers, progress=progress)
    else:
        encode_at_on(executor, planned, workers=workers, progress=progress)
    return finalise_at(planned), planned.plan.summary


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
