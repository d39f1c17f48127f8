"""The folder of a shard set during writing: the lock, the files that belong to gemsdata, and publishing.

Unfinished files are in ``OUT/_work``; a complete set that is being replaced stays readable beside it. When every part
is encoded, a journal in ``_work`` lists the files of the new set and the files of the old set that it does not replace.
Then the folder of the parts is renamed, so that no process adds to it, the old manifest is removed, the files are
renamed to their final names, and the new manifest is written last. All these steps can be repeated: if a run is killed
during them, the next run that writes to the folder completes them, without the input. A reader sees the old set, no
set, or the new set.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import filelock

from gemsdata.files.checked_json import read_checked, write_checked
from gemsdata.files.publish import is_temporary, sync_folder, write_text
from gemsdata.shards.manifest import (
    INTERVALS_FILE,
    JOURNAL_FILE,
    MANIFEST_FILE,
    NPMI_FILE,
    SPLITS,
    TOKENIZER_FILES,
    WORK_FOLDER,
    Manifest,
)

PLAN_FILE = "plan.json"
GENOME_FOLDER = "genome"
FILES_FOLDER = "files"
"""folder of the genome files that tasks have read, each in its own subfolder"""
RANKS_FILE = "ranks.npy"
_LOCK_FILE = "lock"
_TOKENIZER = "|".join(re.escape(name) for name in TOKENIZER_FILES)
_PUBLISHING_FOLDER = "publishing"
"""the folder of the parts once the journal is written"""
_PARTS = rf"(parts-[0-9a-f]+|{_PUBLISHING_FOLDER})"
_OURS = re.compile(
    rf"{_LOCK_FILE}|{re.escape(PLAN_FILE)}|{re.escape(JOURNAL_FILE)}|{re.escape(MANIFEST_FILE)}|{re.escape(RANKS_FILE)}"
    rf"|{re.escape(NPMI_FILE)}|{re.escape(INTERVALS_FILE)}|{_TOKENIZER}|({'|'.join(SPLITS)})\.([a-z_]+\.npy|npz)"
    rf"|({GENOME_FOLDER}|{FILES_FOLDER}/[0-9]{{6,}})/[a-z_]+\.(bin|npy|npz|json)"
    rf"|{_PARTS}/({'|'.join(SPLITS)})/[0-9]{{6,}}\.[a-z]+"
)
"""pattern of all files that gemsdata writes below ``_work``, besides temporary files in the same folders"""
_SET_FILE = re.compile(
    rf"{re.escape(NPMI_FILE)}|{re.escape(INTERVALS_FILE)}|{_TOKENIZER}|({'|'.join(SPLITS)})/[0-9]{{6,}}\.[a-z]+"
)
_OUR_FOLDER = re.compile(rf"{GENOME_FOLDER}|{FILES_FOLDER}(/[0-9]{{6,}})?|{_PARTS}|{_PARTS}/({'|'.join(SPLITS)})")


def work_of(folder: Path) -> Path:
    """Return the subfolder of ``folder`` for unfinished files."""
    return folder / WORK_FOLDER


def is_planned(folder: Path) -> bool:
    """Return whether ``folder`` contains the plan of an unfinished set."""
    return (work_of(folder) / PLAN_FILE).exists()


def holds_work(folder: Path) -> bool:
    """Return whether ``folder`` contains unfinished files; the lock of a killed writer does not count."""
    work = work_of(folder)
    return work.is_dir() and any(name != _LOCK_FILE for name in os.listdir(work))


def is_complete(folder: Path) -> bool:
    """Return whether ``folder`` contains a complete set."""
    return (folder / MANIFEST_FILE).exists()


def interrupted(folder: Path) -> bool:
    """Return whether the writer of the set in ``folder`` was stopped while it published the set."""
    return (work_of(folder) / JOURNAL_FILE).exists()


def all_encoded(folder: Path) -> bool:
    """Return whether no part is left to encode: the set is complete, or is being published."""
    return interrupted(folder) or (is_complete(folder) and not is_planned(folder))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder against other writers; the same thread may enter again.

    The operating system releases the lock if the process dies. Raises ValueError if another process or thread holds it,
    or if the folder is not writable. An empty ``_work`` is removed at the end.
    """
    lock = filelock.FileLock(work_of(folder) / _LOCK_FILE, is_singleton=True)
    try:
        work_of(folder).mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"{folder} is being written by another gemsdata process; wait for it, or give another folder"
        ) from None
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror}; give another folder") from None
    try:
        yield
    finally:
        if lock.lock_counter == 1 and not holds_work(folder):
            (work_of(folder) / _LOCK_FILE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                work_of(folder).rmdir()
        lock.release()


def check_writable(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise ValueError if writing to ``folder`` would affect other files, or needs a flag that is not given."""
    if resume and overwrite:
        raise ValueError("--resume keeps the finished parts and --overwrite removes them; give one of the two")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder for the shard set")
    foreign = first_foreign_file(folder)
    if foreign is not None:
        raise ValueError(
            f"{folder} contains {foreign}, which does not belong to a shard set; remove it, or give another folder"
        )
    if resume or overwrite or not (is_complete(folder) or holds_work(folder)):
        return
    state = "complete" if is_complete(folder) else "unfinished"
    finish = "--resume to finish it or " if holds_work(folder) else ""
    raise ValueError(f"{folder} already holds a shard set ({state}); pass {finish}--overwrite to replace it")


def first_foreign_file(folder: Path) -> str | None:
    """Return a file below ``folder``, relative to it, that no manifest, journal or plan lists; None if there is none.

    Names that begin with a dot, which belong to systems and tools, and README.md are ignored.
    """
    ours = {"README.md"}
    if is_complete(folder):
        ours |= {MANIFEST_FILE, *Manifest.load(folder).files()}
    journal = _read_journal(folder)
    if journal is not None:
        ours |= {*journal[0].files(), *journal[1]}
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in sorted(files + links):
            path = Path(parent, name).relative_to(folder).as_posix()
            if path not in ours and not name.startswith(".") and not is_work(path):
                return path
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in links)
    return None


def clear_work(folder: Path) -> None:
    """Remove the unfinished files except the lock; the plan goes first, so that the rest is never taken for a plan."""
    (work_of(folder) / PLAN_FILE).unlink(missing_ok=True)
    _remove_ours(folder)
    (work_of(folder) / JOURNAL_FILE).unlink(missing_ok=True)


def publish_set(folder: Path, manifest: Manifest, parts_folder: str) -> None:
    """Publish a set whose files are in ``_work`` and ``_work/parts_folder``, replacing an earlier set.

    Raises ValueError if a file that does not belong to a shard set has one of their names.
    """
    old = Manifest.load(folder).files() if is_complete(folder) else []
    for path in manifest.files():
        if path not in old and os.path.lexists(folder / path):
            raise ValueError(f"{folder / path} belongs to no shard set and is in the way; remove it, then finalise")
    journal = {
        "manifest": manifest.to_json(),
        "parts_folder": parts_folder,
        "remove": sorted(set(old) - set(manifest.files())),
    }
    write_checked(work_of(folder) / JOURNAL_FILE, journal)
    finish_publishing(folder)


def finish_publishing(folder: Path) -> None:
    """Complete an interrupted `publish_set`, if there is one; the folder must be locked."""
    journal = _read_journal(folder)
    if journal is None:
        return
    manifest, remove, parts_folder = journal
    text = manifest.to_json()
    published = folder / MANIFEST_FILE
    if not (published.exists() and published.read_text(errors="replace") == text):
        parts = work_of(folder) / _PUBLISHING_FOLDER
        with contextlib.suppress(FileNotFoundError):  # already renamed
            os.rename(work_of(folder) / parts_folder, parts)
        published.unlink(missing_ok=True)
        sync_folder(folder)
        for path in remove:
            (folder / path).unlink(missing_ok=True)
        for path in manifest.files():
            _move((parts if "/" in path else work_of(folder)) / path, folder / path)
        for split in SPLITS:
            with contextlib.suppress(OSError):
                (folder / split).rmdir()  # the old set had rows of a split and the new one has none
            if (folder / split).exists():
                sync_folder(folder / split)
        write_text(work_of(folder) / MANIFEST_FILE, text)
        os.replace(work_of(folder) / MANIFEST_FILE, published)
        sync_folder(folder)
    clear_work(folder)


def _move(source: Path, target: Path) -> None:
    """Rename ``source`` to ``target``, unless an earlier run did."""
    target.parent.mkdir(exist_ok=True)
    try:
        os.replace(source, target)
    except FileNotFoundError:
        if not target.exists():
            raise ValueError(f"{source} is missing; make the set again with --overwrite") from None


def _read_journal(folder: Path) -> tuple[Manifest, list[str], str] | None:
    """Return the new manifest, the files of the old set to remove, and the folder of the new shards; None if none."""
    path = work_of(folder) / JOURNAL_FILE
    if not path.exists():
        return None
    try:
        stored = read_checked(path)
        manifest = Manifest.parse(stored["manifest"].encode(), str(path))
        if not all(is_set_file(name) for name in stored["remove"]):
            raise ValueError
        return manifest, stored["remove"], str(stored["parts_folder"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged; restore it, or remove {work_of(folder)} and begin anew") from None


def is_set_file(path: str) -> bool:
    """Return whether a path, relative to the set's folder, may be that of a file of a set other than its manifest."""
    return _SET_FILE.fullmatch(path) is not None


def is_work(path: str) -> bool:
    """Return whether a path, relative to the set's folder, is that of a file that gemsdata writes below ``_work``."""
    top, _, inside = path.partition("/")
    if top != WORK_FOLDER:
        return False
    parent, _, name = inside.rpartition("/")
    return _OURS.fullmatch(inside) is not None or (
        is_temporary(name) and (parent == "" or _OUR_FOLDER.fullmatch(parent) is not None)
    )


def _remove_ours(folder: Path) -> None:
    """Remove gemsdata's files below ``_work`` except the lock and the journal, and the folders that are then empty."""
    work = work_of(folder)
    for parent, _, files in os.walk(work, topdown=False):
        for name in files:
            path = Path(parent, name)
            inside = path.relative_to(work).as_posix()
            if inside not in (_LOCK_FILE, JOURNAL_FILE) and is_work(f"{WORK_FOLDER}/{inside}"):
                path.unlink(missing_ok=True)
        if Path(parent) != work:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(parent)
