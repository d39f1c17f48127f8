"""Files of a folder at a URL: ``s3://``, ``gs://``, ``az://`` and ``http(s)://`` by obstore, others by fsspec.

A request that fails (no connection, a 5xx or 429 status, no byte for `READ_TIMEOUT_S`) is repeated by obstore, with
exponential back-off, for ``retry_s``. A response that breaks off is continued from the same byte, until no byte has
arrived for ``retry_s``.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from gemsdata.files.extras import missing_module
from gemsdata.files.partial_file import RangesUnsupportedError

RETRY_S = 120.0
RETRY_VARIABLE = "GEMSDATA_RETRY_S"
READ_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 20.0
_MOST_RETRIES = 1000  # the time limit comes first
_PIECE_BYTES = 1 << 18  # bytes that a broken response may lose
_PAUSE_S = 0.1
_BROKE_OFF = "response body error"
"""obstore's message for a response that broke off"""
_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "http", "https")
"""URL schemes that obstore opens"""
_ENDPOINT_VARIABLES = (
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AZURE_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "GOOGLE_BASE_URL",
)
_METADATA_ADDRESSES = ("169.254.169.254", "/latest/api/token", "/latest/meta-data/")
"""of the service of a cloud's machines that is asked for credentials last"""
_used_by: int | None = None
"""id of the process that first used obstore"""


class MissingBucketError(FileNotFoundError):
    """The bucket does not exist."""


class RemoteFolder(Protocol):
    """A folder whose files are read whole, or ranges of them."""

    survives_fork: bool
    """whether a forked process can continue to use the client of its parent"""

    def copy(self, name: str, target: BinaryIO) -> None:
        """Append the content of a file to ``target``.

        Raises FileNotFoundError, PermissionError (also for expired credentials) or ConnectionError, with the URL.
        """

    def size_and_version(self, name: str) -> tuple[int, str | None]:
        """Return the size of a file in bytes and its entity tag, if it has one; errors as those of `copy`."""

    def identity(self, name: str) -> tuple[int, str]:
        """Return the size of a file in bytes and a text that changes with its content; errors as those of `copy`."""

    def read_range(self, name: str, begin: int, end: int, version: str | None) -> bytes:
        """Return bytes begin .. end - 1 of a file.

        Raises RangesUnsupportedError if the server sends only whole files, ValueError if the file has another entity
        tag than ``version``, and what `copy` raises.
        """


def is_url(place: object) -> bool:
    """Return whether a place is a URL and not the path of a file or folder."""
    return "://" in str(place)


@contextlib.contextmanager
def downloaded(url: str) -> Iterator[Path]:
    """Hold a copy of the file at a URL in a temporary folder; raises what `RemoteFolder.copy` does."""
    folder, _, name = url.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="gemsdata-") as scratch:
        path = Path(scratch) / (name or "file")
        with open(path, "wb") as stream:
            remote_folder(folder, {}).copy(name, stream)
        yield path


def url_identity(url: str) -> tuple[int, str]:
    """Return the size in bytes of the file at a URL, and a text that changes with its content.

    The text is the entity tag, or else the time of the last change. Raises what `RemoteFolder.copy` does.
    """
    folder, _, name = url.rpartition("/")
    return remote_folder(folder, {}).identity(name)


def remote_folder(url: str, storage_options: dict[str, Any], retry_s: float | None = None) -> RemoteFolder:
    """Return the folder at a URL; no connection is opened and no package imported before the first read.

    ``storage_options`` are settings of the store (`obstore.store.S3Store` and so on) or of the fsspec file system;
    ``retry_s`` is by default $GEMSDATA_RETRY_S or `RETRY_S`.
    """
    if url.partition("://")[0] in _SCHEMES:
        return ObjectStore(url, storage_options, default_retry_s() if retry_s is None else retry_s)
    return _FileSystem(url, storage_options)


def default_retry_s() -> float:
    """Return $GEMSDATA_RETRY_S or `RETRY_S`; raise ValueError when it is not a number of seconds."""
    given = os.environ.get(RETRY_VARIABLE, "")
    try:
        return float(given) if given else RETRY_S
    except ValueError:
        raise ValueError(f"{RETRY_VARIABLE} = {given!r}; give a number of seconds, such as 120") from None


class ObjectStore:
    """A folder of an object store, or of a web server, by obstore."""

    survives_fork = False

    def __init__(self, url: str, storage_options: dict[str, Any], retry_s: float) -> None:
        self.url, self.retry_s = url.rstrip("/"), retry_s
        self.storage_options = storage_options
        self._store: Any = None

    def copy(self, name: str, target: BinaryIO) -> None:
        """See `RemoteFolder`."""
        self._copy(name, target, {})

    def size_and_version(self, name: str) -> tuple[int, str | None]:
        """See `RemoteFolder`."""
        found = self._head(name)
        tag = found["e_tag"]
        return found["size"], None if tag is None or tag.startswith("W/") else tag  # a weak tag matches nothing

    def identity(self, name: str) -> tuple[int, str]:
        """See `RemoteFolder`."""
        found = self._head(name)
        return found["size"], str(found["e_tag"] or found["last_modified"])

    def _head(self, name: str) -> Any:
        store = self.opened()
        import obstore

        try:
            return obstore.head(store, name)
        except (FileNotFoundError, obstore.exceptions.BaseError) as error:
            raise self.failure(name, error, "read") from None

    def read_range(self, name: str, begin: int, end: int, version: str | None) -> bytes:
        """See `RemoteFolder`."""
        content = io.BytesIO()
        self._copy(name, content, {} if version is None else {"if_match": version}, (begin, end))
        return content.getvalue()

    def _copy(self, name: str, target: BinaryIO, options: dict[str, Any], span: tuple[int, int] | None = None) -> None:
        """Append a file, or bytes span[0] .. span[1] - 1 of it, to ``target``; ``options`` are those of a request."""
        store = self.opened()
        import obstore.exceptions as failures

        progress_s = time.monotonic()
        while True:
            begin = target.tell()
            try:
                self._append(store, name, target, options, span)
                return
            except failures.PreconditionError:
                raise ValueError(f"{self.url}/{name} was replaced while it was read; open the set again") from None
            except failures.NotSupportedError:
                raise RangesUnsupportedError(f"{self.url}/{name}: the server sends only whole files") from None
            except (FileNotFoundError, failures.BaseError) as error:
                if target.tell() > begin:
                    progress_s = time.monotonic()
                if _BROKE_OFF in str(error) and time.monotonic() < progress_s + self.retry_s:
                    time.sleep(_PAUSE_S)
                    continue
                raise self.failure(name, error, "read") from None

    def failure(self, name: str, error: Exception, done: str) -> OSError:
        """Return the exception for an error of obstore; ``done`` names the failed operation, such as "read"."""
        import obstore.exceptions as failures

        place = f"{self.url}/{name}" if name else self.url
        text = str(error)
        if "NoSuchBucket" in text:
            return MissingBucketError(f"{self.url}: there is no such bucket; create it, or check its name")
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(f"{place}: no such file")
        if isinstance(error, (failures.PermissionDeniedError, failures.UnauthenticatedError)):
            return PermissionError(f"{place}: access denied ({_reason(error)}); {_CREDENTIALS}")
        if any(address in text for address in _METADATA_ADDRESSES):
            return PermissionError(f"{place}: no credentials were found; {_CREDENTIALS}")
        if "ExpiredToken" in text:
            return PermissionError(f"{place}: the credentials have expired; {_CREDENTIALS}")
        return ConnectionError(
            f"{place} cannot be {done}: {_reason(error)}; retried for up to {self.retry_s:g} s: check address and"
            f" server, or set {RETRY_VARIABLE} to more seconds"
        )

    @staticmethod
    def _append(store: Any, name: str, target: BinaryIO, options: dict[str, Any], span: tuple[int, int] | None) -> None:
        import obstore

        begin = target.tell()
        if span is not None:
            options = {**options, "range": (span[0] + begin, span[1])}
        elif begin:
            options = {**options, "range": {"offset": begin}}
        for piece in obstore.get(store, name, options=options).stream(min_chunk_size=_PIECE_BYTES):
            target.write(piece)

    def opened(self) -> Any:
        """Return the store of obstore; raise ValueError for settings that it does not accept."""
        global _used_by
        if _used_by is not None and _used_by != os.getpid():
            raise RuntimeError(
                f"{self.url} cannot be read in a process that was forked from one that has read from a URL; start"
                ' processes with the start method "spawn"'
            )
        if self._store is None:
            try:
                from obstore.store import HTTPStore, from_url
            except ModuleNotFoundError as error:
                raise missing_module(error, f"the URL {self.url}") from None
            _used_by = os.getpid()
            config = dict(self.storage_options)
            client = {
                "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT_S),
                "read_timeout": timedelta(seconds=READ_TIMEOUT_S),
                "timeout": timedelta(days=1),
                **({"allow_http": True} if _is_plain_http(self.url, config) else {}),
                **config.pop("client_options", {}),
            }
            retry = {"max_retries": _MOST_RETRIES, "retry_timeout": timedelta(seconds=self.retry_s)}
            try:
                if self.url.startswith("http"):
                    self._store = HTTPStore(self.url, client_options=client, retry_config=retry, **config)
                else:
                    self._store = from_url(self.url, client_options=client, retry_config=retry, **config)
            except Exception as error:
                raise ValueError(f"{self.url} cannot be opened: {_reason(error)}; check storage_options") from None
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}


class _FileSystem:
    survives_fork = True

    def __init__(self, url: str, storage_options: dict[str, Any]) -> None:
        self.url = url.rstrip("/")
        self._storage_options = storage_options
        self._opened_by = -1
        self._filesystem: Any = None
        self._root = ""

    def copy(self, name: str, target: BinaryIO) -> None:
        """See `RemoteFolder.copy`; retries are those of the fsspec file system."""
        self._open()
        try:
            with self._filesystem.open(f"{self._root}/{name}", "rb") as source:
                shutil.copyfileobj(source, target, _PIECE_BYTES)
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.url}/{name}: no such file") from None

    def size_and_version(self, name: str) -> tuple[int, str | None]:
        """See `RemoteFolder`; there are no entity tags."""
        return self.identity(name)[0], None

    def identity(self, name: str) -> tuple[int, str]:
        """See `RemoteFolder`."""
        self._open()
        path = f"{self._root}/{name}"
        try:
            return int(self._filesystem.size(path)), str(self._filesystem.ukey(path))
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.url}/{name}: no such file") from None

    def read_range(self, name: str, begin: int, end: int, version: str | None) -> bytes:
        """See `RemoteFolder`."""
        self._open()
        return bytes(self._filesystem.cat_file(f"{self._root}/{name}", start=begin, end=end))

    def _open(self) -> None:
        """Make a file system that belongs to this process: clients do not survive a fork."""
        if self._opened_by == os.getpid():
            return
        try:
            import fsspec
            import fsspec.asyn
        except ModuleNotFoundError as error:
            raise missing_module(error, f"the URL {self.url}") from None
        if self._opened_by != -1:
            fsspec.asyn.reset_lock()
        try:
            opened = fsspec.core.url_to_fs(self.url, skip_instance_cache=True, **self._storage_options)
        except ImportError as error:  # fsspec's message names the package
            raise ImportError(f"the URL {self.url} needs another package: {error}") from None
        self._filesystem, self._root = opened
        self._opened_by = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_filesystem": None, "_opened_by": -1}


_CREDENTIALS = "check the credentials in the environment or in storage_options (docs/remote.md)"


def _is_plain_http(url: str, config: dict[str, Any]) -> bool:
    """Return whether the URL or the configured endpoint (``base_url`` at Google) is a server without TLS."""
    endpoints = [str(value) for key, value in config.items() if "endpoint" in key.lower() or "base_url" in key.lower()]
    endpoints += [os.environ.get(name, "") for name in _ENDPOINT_VARIABLES]
    return any(place.startswith("http://") for place in (url, *endpoints))


def _reason(error: Exception) -> str:
    """Return an error of obstore as one line, without its debugging details."""
    text = str(error).split("Debug source:")[0]
    return " ".join(text.split()).removesuffix(":")[:300]
