"""Folders in which tasks on other machines leave their results: of a file system that all share, or at a URL."""

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
        """Return an empty folder whose files are shared under ``name`` once the context is left without an error."""

    def reading(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Return the folder of what was shared under ``name``, for as long as it is entered."""

    def remove(self, name: str) -> None:
        """Remove what is shared under ``name``."""

    def clear(self) -> None:
        """Remove everything that is shared."""


class LocalShared:
    """A folder that all machines see under the same path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:  # noqa: D102
        own = self._folder / name
        shutil.rmtree(own, ignore_errors=True)  # of a task that was interrupted
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
    """A folder below one of an object store."""

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
        with contextlib.suppress(OSError):  # an error of before says more
            self._output.remove(self._output.sizes(self._prefix))
