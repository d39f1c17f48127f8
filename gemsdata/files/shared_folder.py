"""Folders for the results of tasks on other machines: on a shared file system, or at a URL."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from gemsdata.files.output_folder import OutputFolder


class SharedFolder(Protocol):
    """Folders of results by name; it can be pickled."""

    def writing(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Context manager: an empty folder whose files are shared under ``name`` if no error is raised."""

    def reading(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Context manager: the folder that was shared under ``name``."""

    def remove(self, name: str) -> None:
        """Remove the files that are shared under ``name``."""

    def clear(self) -> None:
        """Remove everything that is shared."""


class LocalShared:
    """A folder that all machines see under the same path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:  # noqa: D102
        own = self._folder / name
        shutil.rmtree(own, ignore_errors=True)  # from an interrupted task
        own.mkdir(parents=True)
        yield own

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Path]:  # noqa: D102
        yield self._folder / name

    def remove(self, name: str) -> None:  # noqa: D102
        shutil.rmtree(self._folder / name)

    def clear(self) -> None:  # noqa: D102
        shutil.rmtree(self._folder, ignore_errors=True)


class RemoteShared:
    """A folder of an object store."""

    def __init__(self, output: OutputFolder, prefix: str) -> None:
        self._output = output
        self._prefix = prefix

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:  # noqa: D102
        with tempfile.TemporaryDirectory(prefix="gemsdata-") as scratch:
            yield Path(scratch)
            for path in sorted(Path(scratch).iterdir()):
                self._output.put(f"{self._prefix}/{name}/{path.name}", path)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Path]:  # noqa: D102
        names = list(self._output.sizes(f"{self._prefix}/{name}"))
        with tempfile.TemporaryDirectory(prefix="gemsdata-") as scratch:
            for found in names:
                with open(Path(scratch, found.rpartition("/")[2]), "wb") as stream:
                    self._output.copy(found, stream)
            yield Path(scratch)

    def remove(self, name: str) -> None:  # noqa: D102
        self._output.remove(self._output.sizes(f"{self._prefix}/{name}"))

    def clear(self) -> None:  # noqa: D102
        with contextlib.suppress(OSError):  # an earlier error is more informative
            self._output.remove(self._output.sizes(self._prefix))
