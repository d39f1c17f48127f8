"""The plan of a shard set in an object store: `gemsdata.shards.plan` with its files at a URL.

Objects below ``URL/_work``: ``plan.json``, written last, so that a plan is complete or absent; and in a folder that is
named after the plan, its other files, ``store.json`` with their hashes, and the entry of each finished part. A set
whose URL held no set before has its shards under their final names from the start; the shards of a set that replaces
another one stay in ``_work`` until the manifest of the old set is removed, and are copied inside the store then.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import weakref
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemsdata.files.cache import FileCache, Pin
from gemsdata.files.checked_json import parse_checked
from gemsdata.files.hashing import sha256_of
from gemsdata.files.output_folder import OutputFolder
from gemsdata.files.progress import Progress, no_progress
from gemsdata.files.shared_folder import RemoteShared
from gemsdata.shards.manifest import MANIFEST_FILE, SPLITS, WORK_FOLDER, Manifest
from gemsdata.shards.manifest_fields import Shard
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.plan import PLANNED_FILES, Part, Plan, make_plan, open_plan, parts_folder_of, plan_identity
from gemsdata.shards.resume import check_plan
from gemsdata.shards.storage import default_cache_bytes, default_cache_dir
from gemsdata.shards.work_folder import FILES_FOLDER, PLAN_FILE, is_set_file, work_of

PLAN_NAME = f"{WORK_FOLDER}/{PLAN_FILE}"
_SHARED = f"{WORK_FOLDER}/{FILES_FOLDER}"
_STORE_FILE = "store.json"
_WORK = re.compile(rf"{re.escape(PLAN_NAME)}|{_SHARED}/.+|{WORK_FOLDER}/parts-[0-9a-f]{{16}}/.+")


class _Scratch:
    """A temporary folder that is removed with the object."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="gemsdata-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass
class PlanAtUrl:
    """An open plan: its files are in a temporary folder, as links to the cache or as they were made."""

    output: OutputFolder
    plan: Plan
    direct: bool
    """whether shards are written under their final names"""
    version: str
    """version of ``plan.json`` in the store"""
    scratch: _Scratch
    pins: list[Pin]
    """keep the files that ``scratch`` links to in the cache"""

    @property
    def own(self) -> str:
        """Name of the folder of this plan in the store."""
        return f"{WORK_FOLDER}/{self.plan.parts_folder}"

    def shard_name(self, path: str) -> str:
        """Return the name of the object that holds the shard file ``path`` until the set is complete."""
        return path if self.direct else f"{self.own}/{path}"

    def entry_name(self, part: Part) -> str:
        """Return the name of the object that holds the manifest entry of a finished part."""
        return f"{self.own}/{part.name}.json"

    def check_current(self) -> None:
        """Raise ValueError if the set was completed, or another plan made, since this one was opened."""
        if self.output.version(PLAN_NAME) != self.version:
            raise ValueError(f"{self.output.url} was completed or planned again meanwhile; nothing more was written")

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each entry and shard that is in the store, by name."""
        found = self.output.sizes(self.own)
        if self.direct:
            for split in SPLITS:
                found |= self.output.sizes(split)
        return found

    def is_whole(self, shard: Shard, sizes: dict[str, int]) -> bool:
        """Return whether all files of a part are in the store, by their sizes."""
        return all(sizes.get(self.shard_name(file.path)) == file.num_bytes for file in shard.files.values())


def check_writable_url(output: OutputFolder, *, resume: bool, overwrite: bool) -> Manifest | None:
    """Return the manifest of the set at a URL, None if there is none.

    Raises ValueError if writing there would affect other objects, or needs a flag that is not given.
    """
    if resume and overwrite:
        raise ValueError("--resume keeps the finished parts and --overwrite removes them; give one of the two")
    text = output.get_or_none(MANIFEST_FILE)
    manifest = None if text is None else Manifest.parse(text, f"{output.url}/{MANIFEST_FILE}")
    names = output.sizes()
    ours = {MANIFEST_FILE, "README.md"} | set(() if manifest is None else manifest.files())
    unfinished = any(_WORK.fullmatch(name) for name in names)
    for name in names:
        if name not in ours and not _WORK.fullmatch(name) and not (unfinished and is_set_file(name)):
            raise ValueError(
                f"{output.url} contains {name}, which does not belong to a shard set; remove it, or give another URL"
            )
    if not (resume or overwrite) and (unfinished or manifest is not None):
        state = "unfinished" if manifest is None else "complete"
        finish = "--resume to finish it or " if unfinished else ""
        raise ValueError(f"{output.url} already holds a shard set ({state}); pass {finish}--overwrite to replace it")
    return manifest


def make_plan_at(
    inputs: list[str],
    output: OutputFolder,
    options: ShardOptions,
    *,
    direct: bool,
    executor: Executor | None,
    progress: Progress = no_progress,
) -> PlanAtUrl:
    """Read the genome on this machine, or on an executor, and write the plan; after an error nothing is in the store.

    ``direct`` writes shards under their final names. Raises as `make_plan` does, and ValueError if there is another
    plan.
    """
    scratch = _Scratch()
    folder = scratch.path
    plan = make_plan(
        inputs, folder, options, executor=executor, shared=RemoteShared(output, _SHARED), progress=progress
    )
    work, own = work_of(folder), f"{WORK_FOLDER}/{plan.parts_folder}"
    files = {
        name: {"sha256": sha256_of(work / name), "num_bytes": (work / name).stat().st_size} for name in PLANNED_FILES
    }
    store = json.dumps({"direct": direct, "files": files}).encode()
    try:
        output.for_each(lambda name: output.put(f"{own}/{name}", work / name), files)
        output.put(f"{own}/{_STORE_FILE}", store)
        output.put(PLAN_NAME, work / PLAN_FILE, only_new=True)
    except FileExistsError:
        raise ValueError(
            f"{output.url} is being written by another gemsdata process; wait for it, or give another URL"
        ) from None
    version = output.version(PLAN_NAME)
    return PlanAtUrl(output, plan, direct, version or "", scratch, [])


def open_plan_at(output: OutputFolder) -> PlanAtUrl:
    """Open the plan at a URL, its files fetched through the cache.

    Raises FileNotFoundError if there is none, ValueError if a file is damaged or larger than the cache.
    """
    version, text = output.version(PLAN_NAME), output.get_or_none(PLAN_NAME)
    if version is None or text is None:
        raise FileNotFoundError(
            f"{output.url} holds no plan of a shard set; make one with `gemsdata shard GENOME.fa -o {output.url}`"
        )
    own = f"{WORK_FOLDER}/{parts_folder_of(parse_checked(text, PLAN_NAME)['identity'])}"
    store: dict[str, Any] = json.loads(output.get(f"{own}/{_STORE_FILE}"))
    cache = FileCache(default_cache_dir(), default_cache_bytes())
    scratch = _Scratch()
    work = work_of(scratch.path)
    pins: list[Pin] = []
    for name in PLANNED_FILES:
        file = store["files"][name]

        def download(stream: Any, name: str = name) -> None:
            output.copy(f"{own}/{name}", stream)

        pins.append(cache.fetch(file["sha256"], file["num_bytes"], download))
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).symlink_to(pins[-1].path.absolute())
    (work / PLAN_FILE).write_bytes(text)
    plan = open_plan(scratch.path)
    for split in SPLITS:
        plan.part_file(split).mkdir(parents=True)
    return PlanAtUrl(output, plan, bool(store["direct"]), version, scratch, pins)


def reopen_plan_at(output: OutputFolder, inputs: list[str], options: ShardOptions) -> PlanAtUrl:
    """Open the plan at a URL; raise ValueError unless it is for these inputs and options."""
    opened = open_plan_at(output)
    check_plan(output.url, plan_identity(opened.plan.folder), inputs, options)
    return opened


def clear_url(output: OutputFolder, manifest: Manifest | None) -> None:
    """Remove unfinished objects, the plan first, and shards that do not belong to the complete set, if there is one."""
    kept = set() if manifest is None else set(manifest.files())
    names = output.sizes()
    if PLAN_NAME in names:
        output.remove([PLAN_NAME])
    output.remove(name for name in names if _WORK.fullmatch(name) or (is_set_file(name) and name not in kept))
