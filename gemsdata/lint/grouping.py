"""Group files into sets by folder, and read the role of each file (train, dev, test) from its name."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gemsdata.lint.labelled_file import SUFFIXES

_ROLES = {"train": "train", "training": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev"}
_ROLES |= {"test": "test", "testing": "test", "eval": "test"}


@dataclass(frozen=True)
class FileSet:
    """Files that are meant to be used together, such as the splits of a task."""

    name: str
    paths: tuple[Path, ...]


def file_sets(paths: Sequence[Path]) -> list[FileSet]:
    """Group files into sets; a folder stands for all TSV and CSV files below it.

    Files given one by one are one set. Below a folder, the files of each folder are one set, with two exceptions. A
    folder joins the set of its parent if the parent has files of its own, or if all its files have the same role and
    its name is a number of shots (``10/train.tsv``) or a sibling folder has another role.

    Raises FileNotFoundError for a path that does not exist or a folder without such files.
    """
    named = sorted({path for path in paths if not path.is_dir()})
    for path in named:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give TSV or CSV files, or folders of them")
    sets = [FileSet(_common_name(named), tuple(named))] if named else []
    for folder in sorted({path for path in paths if path.is_dir()}):
        found = sorted(path for path in folder.rglob("*") if path.name.endswith(SUFFIXES) and path.is_file())
        if not found:
            raise FileNotFoundError(f"{folder} contains no {', '.join(SUFFIXES)} file")
        sets += _sets_of_tree(folder, found)
    return sets


def role_of(path: Path) -> str | None:
    """Return the role in the file's name, ``train``, ``dev`` or ``test``, or None."""
    words = re.split(r"[^a-z]+", path.name.split(".")[0].lower())
    return next((_ROLES[word] for word in words if word in _ROLES), None)


def _sets_of_tree(root: Path, files: list[Path]) -> list[FileSet]:
    by_folder: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in files:
        by_folder[path.parent].append(path)
    roles = {folder: {role_of(path) for path in members} for folder, members in by_folder.items()}
    leaves = [folder for folder in by_folder if not any(folder in other.parents for other in by_folder)]
    sets: defaultdict[Path, list[Path]] = defaultdict(list)
    for folder, members in by_folder.items():
        neighbours = [other for other in leaves if other.parent == folder.parent]
        is_part = folder in leaves and len(roles[folder]) == 1
        is_part &= folder.name.isdigit() or any(roles[other] != roles[folder] for other in neighbours)
        joins = folder != root and (folder.parent in by_folder or is_part)
        sets[folder.parent if joins else folder] += members
    return [FileSet(str(folder), tuple(sorted(sets[folder]))) for folder in sorted(sets)]


def _common_name(paths: list[Path]) -> str:
    """Return the common parent of all paths, or "files" if there is none."""
    try:
        return os.path.commonpath([path.parent for path in paths]) or "files"
    except ValueError:  # relative and absolute paths
        return "files"
