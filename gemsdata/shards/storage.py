"""Where the files of a shard set come from: a local folder, or any URL that fsspec opens, through a local cache."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from gemsdata.files.cache import FileCache, Pin, copy_stream
from gemsdata.files.extras import missing_module
from gemsdata.shards.manifest import MANIFEST_FILE, Manifest
from gemsdata.shards.manifest_fields import ShardFile

CACHE_BYTES = 64 << 30
CACHE_VARIABLE = "GEMSDATA_CACHE"


class Store(Protocol):
    """Interface to the location of a shard set's files."""

    max_bytes: int | None
    """how much of the set may be on this machine at a time; None: all of it is"""

    def manifest(self) -> Manifest:
        """Read the manifest."""

    def manifest_status(self) -> tuple[int, ...] | None:
        """Return what changes when the manifest is written again; None: not known, or there is none."""

    def path(self, file: ShardFile) -> tuple[Path, Pin | None]:
        """Return the path of a file here, and what keeps it there; the path of a local file may not exist."""

    def small_file(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Return the path of a file that is no shard, for as long as it is entered."""


class LocalStore:
    """A folder of this machine."""

    max_bytes: int | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def manifest(self) -> Manifest:  # noqa: D102
        return Manifest.load(self.folder)

    def manifest_status(self) -> tuple[int, ...] | None:  # noqa: D102
        try:
            status = os.stat(self.folder / MANIFEST_FILE)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def path(self, file: ShardFile) -> tuple[Path, None]:  # noqa: D102
        return self.folder / file.path, None

    def small_file(self, name: str) -> contextlib.AbstractContextManager[Path]:  # noqa: D102
        return contextlib.nullcontext(self.folder / name)

    def __str__(self) -> str:
        return str(self.folder)


class RemoteStore:
    """A folder at a URL. Shards are fetched whole, when they are first touched, and kept in a `FileCache`."""

    def __init__(
        self,
        url: str,
        *,
        cache_dir: str | Path | None = None,
        cache_bytes: int = CACHE_BYTES,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.max_bytes: int | None = cache_bytes
        self.cache = FileCache(default_cache_dir() if cache_dir is None else cache_dir, cache_bytes)
        self._options = storage_options or {}
        self._opened_by = -1
        self._filesystem: Any = None
        self._root = ""

    def manifest(self) -> Manifest:  # noqa: D102
        try:
            return Manifest.parse(self._read(MANIFEST_FILE), f"{self.url}/{MANIFEST_FILE}")
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.url} is not a shard set (no {MANIFEST_FILE} there)") from None

    def manifest_status(self) -> None:
        """Return None: shards are fetched by the hash of their content, so another set's are never taken."""

    def path(self, file: ShardFile) -> tuple[Path, Pin]:  # noqa: D102
        def download(stream: BinaryIO) -> None:
            with self._open(file.path) as source:
                copy_stream(source, stream)

        try:
            pin = self.cache.fetch(file.sha256, file.num_bytes, download)
        except ValueError as error:
            raise ValueError(f"shard {self.url}/{file.path}: {error}") from None
        except FileNotFoundError:
            raise FileNotFoundError(f"shard {self.url}/{file.path} is missing; restore it") from None
        return pin.path, pin

    @contextlib.contextmanager
    def small_file(self, name: str) -> Iterator[Path]:  # noqa: D102
        with tempfile.NamedTemporaryFile(prefix="gemsdata-") as stream:
            stream.write(self._read(name))
            stream.flush()
            yield Path(stream.name)

    def _read(self, name: str) -> bytes:
        with self._open(name) as stream:
            content: bytes = stream.read()
        return content

    def _open(self, name: str) -> Any:
        """Open a file of the set with a file system that belongs to this process: clients do not survive a fork."""
        if self._opened_by != os.getpid():
            try:
                import fsspec
                import fsspec.asyn
            except ModuleNotFoundError as error:
                raise missing_module(error, f"the URL {self.url}") from None
            if self._opened_by != -1:
                fsspec.asyn.reset_lock()
            try:
                opened = fsspec.core.url_to_fs(self.url, skip_instance_cache=True, **self._options)
            except ImportError as error:  # fsspec's message names the package
                extra = "; install it with: pip install 'gemsdata[s3]'" if self.url.startswith("s3") else ""
                raise ImportError(f"the URL {self.url} needs another package: {error}{extra}") from None
            self._filesystem, self._root = opened
            self._opened_by = os.getpid()
        return self._filesystem.open(f"{self._root}/{name}", "rb")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_filesystem": None, "_opened_by": -1}

    def __str__(self) -> str:
        return self.url


def store_of(
    place: str | Path, *, cache_dir: str | Path | None, cache_bytes: int, storage_options: dict[str, Any] | None
) -> LocalStore | RemoteStore:
    """Return the store of a folder, or of a URL (anything with ``://``)."""
    if "://" not in str(place):
        return LocalStore(Path(place))
    return RemoteStore(str(place), cache_dir=cache_dir, cache_bytes=cache_bytes, storage_options=storage_options)


def default_cache_dir() -> Path:
    """Return $GEMSDATA_CACHE, or ``gemsdata`` in the user's cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gemsdata"
