"""Sharding to an object store: plan, encode and finalise a set at a URL.

A part is encoded to a temporary folder of the machine and uploaded, first its shards, then its manifest entry. The
manifest of the set is written last. Nothing is renamed, so a run that is killed at any point can be continued.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

from gemsdata.files.output_folder import OutputFolder
from gemsdata.files.progress import Progress, no_progress
from gemsdata.shards.encode import complete_manifest, encode_parts, entry_path, parse_entry
from gemsdata.shards.manifest import INTERVALS_FILE, MANIFEST_FILE, NPMI_FILE, Manifest
from gemsdata.shards.manifest_fields import Shard
from gemsdata.shards.options import FORMATS, ShardOptions
from gemsdata.shards.parallel_encoding import part_groups
from gemsdata.shards.plan import Part
from gemsdata.shards.plan_at_url import (
    PLAN_NAME,
    PlanAtUrl,
    check_writable_url,
    clear_url,
    make_plan_at,
    open_plan_at,
    reopen_plan_at,
)
from gemsdata.shards.tasks import run_tasks


def plan_at(
    inputs: list[str],
    output: OutputFolder,
    options: ShardOptions,
    *,
    resume: bool,
    overwrite: bool,
    executor: Executor | None,
    progress: Progress = no_progress,
) -> PlanAtUrl:
    """Plan a set at a URL, or open an existing plan; a complete set stays until the new one is finalised."""
    old = check_writable_url(output, resume=resume, overwrite=overwrite)
    if resume and output.version(PLAN_NAME) is not None:
        return reopen_plan_at(output, inputs, options)
    if resume and old is not None:
        raise ValueError(f"{output.url} is complete: nothing is left to do; --overwrite replaces it")
    clear_url(output, old)
    return make_plan_at(inputs, output, options, direct=old is None, executor=executor, progress=progress)


def encode_at(planned: PlanAtUrl, parts: list[Part], *, workers: int = 1, progress: Progress = no_progress) -> None:
    """Encode the parts that are not in the store yet, ``workers`` at a time, and upload each."""
    total = sum(part.num_rows for part in parts)
    left = []
    for part, shard in zip(parts, _shards_in_store(planned, parts), strict=True):
        if shard is None:
            left.append(part)
        else:
            progress("writing", part.num_rows, total)
    encode_parts(
        planned.plan,
        left,
        workers=workers,
        progress=lambda name, done, _: progress(name, done, total),
        after=functools.partial(_put_part, planned),
    )


def encode_at_on(executor: Executor, planned: PlanAtUrl, *, workers: int, progress: Progress = no_progress) -> None:
    """Encode the parts that are not in the store yet with tasks of an executor, whose workers open the plan by URL."""
    parts = planned.plan.parts
    groups = part_groups(parts, workers)
    total = sum(part.num_rows for part in parts)
    folder = planned.plan.parts_folder
    calls = [(_encode_group, (planned.output, folder, [part.name for part in group])) for group in groups]
    run_tasks(
        executor,
        calls,
        lambda index: progress("writing", sum(part.num_rows for part in groups[index]), total),
    )


def finalise_at(planned: PlanAtUrl) -> Manifest:
    """Write the manifest of a set whose parts are all in the store, by name and size, and remove ``_work``.

    An earlier set is replaced in this order: its manifest is removed, the shards are copied to their final names, the
    new manifest is written, the rest of the old set is removed. Each step can be repeated. Raises ValueError that names
    the missing parts.
    """
    output = planned.output
    manifest = complete_manifest(planned.plan, _shards_in_store(planned, planned.plan.parts), output.url)
    planned.check_current()
    copies = [(f"{planned.own}/{name}", name) for name in (NPMI_FILE, INTERVALS_FILE)]
    if not planned.direct:
        output.remove([MANIFEST_FILE])
        copies += [(planned.shard_name(path), path) for path in manifest.files() if "/" in path]
    output.copy_within(copies)
    output.put(MANIFEST_FILE, manifest.to_json().encode())
    clear_url(output, manifest)
    return manifest


def complete_set_at(output: OutputFolder) -> Manifest | None:
    """Return the manifest of a complete set; None if there is none, or if parts of a plan are left to encode.

    Leftover objects of a run that was killed at its end are removed.
    """
    text = output.get_or_none(MANIFEST_FILE)
    if text is None or output.version(PLAN_NAME) is not None:
        return None
    manifest = Manifest.parse(text, f"{output.url}/{MANIFEST_FILE}")
    clear_url(output, manifest)
    return manifest


def put_set(folder: Path, output: OutputFolder, manifest: Manifest) -> None:
    """Upload a complete local set; the manifest of an earlier set is removed first, the new one is written last."""
    output.remove([MANIFEST_FILE])
    output.for_each(lambda path: output.put(path, folder / path), manifest.files())
    output.put(MANIFEST_FILE, folder / MANIFEST_FILE)
    clear_url(output, manifest)


def _shards_in_store(planned: PlanAtUrl, parts: list[Part]) -> Iterator[Shard | None]:
    """Yield the entries of parts whose files are complete in the store, by size, else None."""
    sizes = planned.sizes()

    def read(part: Part) -> Shard | None:
        if planned.entry_name(part) not in sizes:
            return None
        shard = parse_entry(planned.plan, part, planned.output.get(planned.entry_name(part)))
        return shard if shard is not None and planned.is_whole(shard, sizes) else None

    yield from planned.output.for_each(read, parts)


def _put_part(planned: PlanAtUrl, part: Part) -> None:
    """Upload a part that was encoded on this machine, its entry last, and remove the local files."""
    planned.check_current()
    paths = [part.path(name) for name in FORMATS[planned.plan.options.format]]
    for path in paths:
        planned.output.put(planned.shard_name(path), planned.plan.part_file(path))
    planned.output.put(planned.entry_name(part), entry_path(planned.plan, part))
    for path in paths:
        planned.plan.part_file(path).unlink()
    entry_path(planned.plan, part).unlink()


def _encode_group(output: OutputFolder, parts_folder: str, names: list[str]) -> None:
    planned = _Opened.get(output, parts_folder)
    wanted = set(names)
    encode_at(planned, [part for part in planned.plan.parts if part.name in wanted])


class _Opened:
    """Cache of the plan that this process opened last, for all its tasks."""

    lock = threading.Lock()
    plan: PlanAtUrl | None = None

    @classmethod
    def get(cls, output: OutputFolder, parts_folder: str) -> PlanAtUrl:
        """Open the plan at a URL; raise ValueError if it is another one."""
        with cls.lock:
            opened = cls.plan
            if opened is None or (opened.output.url, opened.plan.parts_folder) != (output.url, parts_folder):
                opened = cls.plan = open_plan_at(output)
        if opened.plan.parts_folder != parts_folder:
            raise ValueError(f"{output.url} holds another plan: it was planned again")
        return opened
