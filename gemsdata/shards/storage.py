"""Access to the files of a shard set: in a local folder, or at a URL through a local cache."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from gemsdata.files.cache import WAIT_S, ContentError, FileCache, Pin
from gemsdata.files.partial_file import PartialFile, partial_bytes
from gemsdata.files.remote_folder import MissingBucketError, is_url, remote_folder
from gemsdata.shards.manifest import MANIFEST_FILE, Manifest
from gemsdata.shards.manifest_fields import ShardFile

CACHE_BYTES = 64 << 30
CACHE_VARIABLE = "GEMSDATA_CACHE"
CACHE_BYTES_VARIABLE = "GEMSDATA_CACHE_BYTES"
_CHECKED_FILES = "checked_files"


class Store(Protocol):
    """Interface to the location of a shard set's files."""

    max_bytes: int | None
    """limit for the bytes of the set on this machine; None: all of it is local"""
    survives_fork: bool
    """whether a forked process can read the set"""

    def manifest(self) -> Manifest:
        """Read the manifest."""

    def manifest_status(self) -> tuple[int, ...] | None:
        """Return a value that changes if the manifest is rewritten; None: unknown, or there is no manifest."""

    def path(self, file: ShardFile) -> tuple[Path, Pin | None]:
        """Return the local path of a file and the object that keeps it there; a local file may not exist."""

    def partial(self, file: ShardFile) -> tuple[PartialFile, Pin] | None:
        """Return a copy of a file of which ranges are fetched, and the object that keeps it; None: it is whole here.

        Raises RangesUnsupportedError on the first fetch if the server sends only whole files.
        """

    def fetch_ahead(self, file: ShardFile) -> bool:
        """Fetch a file that will be needed; return False if another process is fetching it. Errors are ignored."""

    def file(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Context manager: the path of the current file, never from a cache."""

    def on_full(self, release: Callable[[], None]) -> None:
        """Call the method ``release`` of a reader when there is no room for a file here; see `FileCache.on_full`."""

    def fetching_together(self) -> contextlib.AbstractContextManager[None]:
        """Enter while `path` gets files that are needed at a time; see `FileCache.fetching_together`."""


class LocalStore:
    """A folder on this machine."""

    max_bytes: int | None = None
    survives_fork = True

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

    def partial(self, file: ShardFile) -> None:
        """Return None: all files are on this machine."""

    def fetch_ahead(self, file: ShardFile) -> bool:
        """Return True: all files are on this machine."""
        return True

    def file(self, name: str) -> contextlib.AbstractContextManager[Path]:  # noqa: D102
        return contextlib.nullcontext(self.folder / name)

    def on_full(self, release: Callable[[], None]) -> None:
        """Do nothing: the whole set is here."""

    def fetching_together(self) -> contextlib.AbstractContextManager[None]:  # noqa: D102
        return contextlib.nullcontext()

    def __str__(self) -> str:
        return str(self.folder)


class RemoteStore:
    """A folder at a URL. Shards are fetched as whole files on first access and kept in a `FileCache`."""

    def __init__(
        self,
        url: str,
        *,
        cache_dir: str | Path | None = None,
        cache_bytes: int | None = None,
        storage_options: dict[str, Any] | None = None,
        retry_s: float | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        limit = default_cache_bytes() if cache_bytes is None else cache_bytes
        self.max_bytes: int | None = limit
        self.cache = FileCache(default_cache_dir() if cache_dir is None else cache_dir, limit)
        self._folder = remote_folder(self.url, storage_options or {}, retry_s)
        self.survives_fork = self._folder.survives_fork

    def manifest(self) -> Manifest:  # noqa: D102
        content = io.BytesIO()
        try:
            self._folder.copy(MANIFEST_FILE, content)
        except MissingBucketError:
            raise
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.url} is not a shard set (no {MANIFEST_FILE} there)") from None
        return Manifest.parse(content.getvalue(), f"{self.url}/{MANIFEST_FILE}")

    def manifest_status(self) -> None:
        """Return None: shards are fetched by the hash of their content, so those of another set are never used."""

    def path(self, file: ShardFile) -> tuple[Path, Pin]:
        """Return a pinned file of the cache; fetch it if it is not cached.

        Content that does not match the manifest, such as an old copy in a proxy, is fetched once more.
        """

        def fetch() -> Pin:
            return self.cache.fetch(file.sha256, file.num_bytes, lambda stream: self._folder.copy(file.path, stream))

        try:
            try:
                pin = fetch()
            except ContentError:
                pin = fetch()
        except ValueError as error:
            raise ValueError(f"shard {self.url}/{file.path}: {error}") from None
        except FileNotFoundError:
            raise FileNotFoundError(f"shard {self.url}/{file.path} is missing; restore it") from None
        return pin.path, pin

    def partial(self, file: ShardFile) -> tuple[PartialFile, Pin] | None:  # noqa: D102
        if (self.cache.folder / file.sha256).exists():
            return None
        num_bytes, version = self._folder.size_and_version(file.path)
        if num_bytes != file.num_bytes:
            raise ValueError(
                f"shard {self.url}/{file.path} has {num_bytes} bytes, its manifest says {file.num_bytes}: it is"
                " truncated or was replaced; restore it, or make the set again"
            )
        pin = self.cache.reserve(f"{file.sha256}.ranges", partial_bytes(num_bytes))
        return PartialFile(
            pin.path, num_bytes, lambda begin, end: self._folder.read_range(file.path, begin, end, version)
        ), pin

    def on_full(self, release: Callable[[], None]) -> None:  # noqa: D102
        self.cache.on_full(release)

    def fetching_together(self) -> contextlib.AbstractContextManager[None]:  # noqa: D102
        return self.cache.fetching_together()

    def fetch_ahead(self, file: ShardFile) -> bool:  # noqa: D102
        cache = FileCache(self.cache.folder, self.cache.max_bytes, wait_s=0)
        try:
            cache.fetch(file.sha256, file.num_bytes, lambda stream: self._folder.copy(file.path, stream)).release()
        except TimeoutError:
            return False
        except (OSError, ValueError, RuntimeError):
            pass
        return True

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:  # noqa: D102
        with tempfile.TemporaryDirectory(prefix="gemsdata-") as folder:
            yield self.download(name, Path(folder))

    def download(self, name: str, folder: Path) -> Path:
        """Copy a file of the set to the same place in ``folder``, bypassing the cache; return its path."""
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as stream:
            self._folder.copy(name, stream)
        return path

    def __str__(self) -> str:
        return self.url


def open_together(
    store: Store,
    wanted: dict[int, int],
    missing: Callable[[], Sequence[int]],
    open_shard: Callable[[int], None],
    request: Callable[[Sequence[int]], None],
) -> None:
    """Open the shards that a batch needs at a time, although a full cache closes those that are open.

    ``wanted`` are {shard: bytes}, ``missing`` returns which of them are not open, ``open_shard`` opens one,
    ``request`` starts to fetch some. Raises OSError when all of them do not fit the cache together, or have not been
    there together for `WAIT_S`.
    """
    num_bytes, end = sum(wanted.values()), time.monotonic() + WAIT_S
    with store.fetching_together():
        while shards := missing():
            if store.max_bytes is not None and (num_bytes > store.max_bytes or time.monotonic() > end):
                raise OSError(
                    f"a batch needs {len(wanted)} shards of {store} at a time, {num_bytes:,} bytes, and the cache has"
                    f" room for {store.max_bytes:,}, which other jobs may use, too; raise cache_bytes, or use a smaller"
                    " shuffle window or smaller batches"
                )
            request(shards)
            open_shard(shards[0])


def place_name(place: str | Path) -> str:
    """Return the last component of a folder, file or URL."""
    return str(place).rstrip("/").rpartition("/")[2] if is_url(place) else Path(place).resolve().name


def store_of(place: str | Path, **options: Any) -> LocalStore | RemoteStore:
    """Return the store of a folder, or of a URL with the options of `RemoteStore`; nothing is read yet."""
    return RemoteStore(str(place), **options) if is_url(place) else LocalStore(Path(place))


def default_cache_dir() -> Path:
    """Return $GEMSDATA_CACHE, or ``gemsdata`` in the user's cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gemsdata"


def checked_files_record() -> Path | None:
    """Return the file that records which shards have their hashes; None if the user has no home folder."""
    try:
        return default_cache_dir() / _CHECKED_FILES
    except RuntimeError:
        return None


def default_cache_bytes() -> int:
    """Return $GEMSDATA_CACHE_BYTES or `CACHE_BYTES`; raise ValueError if it is not a number of bytes."""
    given = os.environ.get(CACHE_BYTES_VARIABLE, "")
    if given and not (given.isascii() and given.isdecimal()):
        raise ValueError(f"{CACHE_BYTES_VARIABLE} = {given!r}; give a number of bytes, such as 50000000000")
    return int(given) if given else CACHE_BYTES
