"""Output folders at URLs, with obstore: objects are written as a whole, listed, copied within the store and removed.

Writing an object is atomic: it has its complete content or is unchanged. Failed requests are repeated as in
`gemsdata.files.remote_folder`; an object that is written twice has the same content.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from gemsdata.files.remote_folder import ObjectStore, default_retry_s

WRITABLE_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")
_NUM_REQUESTS = 16
"""maximum number of concurrent requests"""
_PIECE_BYTES = 16 << 20
"""size of the parts of a large object that is written in several requests"""
_PIECES_AT_ONCE = 4
_DELETED_AT_ONCE = 1000
_PAUSE_S = 0.2
Result = TypeVar("Result")
Item = TypeVar("Item")


class OutputFolder(ObjectStore):
    """A folder of an object store. Errors are those of `RemoteFolder.copy`; a process that unpickles it reconnects.

    Raises ValueError for a URL that cannot be written.
    """

    def __init__(self, url: str, storage_options: dict[str, Any] | None = None, retry_s: float | None = None) -> None:
        if url.partition("://")[0] not in WRITABLE_SCHEMES:
            raise ValueError(f"{url} cannot be written; give a folder, or a URL that begins with s3://, gs:// or az://")
        super().__init__(url, storage_options or {}, default_retry_s() if retry_s is None else retry_s)

    def put(self, name: str, content: bytes | Path, *, only_new: bool = False) -> None:
        """Write an object from its content or from a file.

        ``only_new`` raises FileExistsError if there is another object of that name; stores without conditional puts
        replace it.
        """
        obstore = self._api()
        stream = content if isinstance(content, Path) else io.BytesIO(content)
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        pieces = {"chunk_size": _PIECE_BYTES, "max_concurrency": _PIECES_AT_ONCE}
        if not only_new:
            with self._failing(name, "written"):
                obstore.put(self.opened(), name, stream, use_multipart=size > _PIECE_BYTES, **pieces)
            return
        self._put_new(name, content if isinstance(content, bytes) else content.read_bytes())

    def get(self, name: str) -> bytes:
        """Return the content of an object."""
        content = io.BytesIO()
        self.copy(name, content)
        return content.getvalue()

    def get_or_none(self, name: str) -> bytes | None:
        """Return the content of an object; None if there is none, or if the bucket is missing."""
        try:
            return self.get(name)
        except FileNotFoundError:
            return None

    def version(self, name: str) -> str | None:
        """Return a value that changes if an object is written again with other content; None if there is no object."""
        with self._failing(name, "read"):
            try:
                found = self._api().head(self.opened(), name)
            except FileNotFoundError:
                return None
        return f"{found['e_tag']} {found['size']}"

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the size in bytes of every object in a folder below this one, or of all, by name."""
        found: dict[str, int] = {}
        with self._failing(prefix, "listed"):
            for batch in self._api().list(self.opened(), prefix=prefix or None):
                found |= {entry["path"]: entry["size"] for entry in batch}
        return found

    def copy_within(self, names: Iterable[tuple[str, str]]) -> None:
        """Copy objects, each given by its name and the name of the copy, inside the store."""

        def copy_one(pair: tuple[str, str]) -> None:
            with self._failing(pair[1], "written"):
                self._api().copy(self.opened(), *pair)

        self.for_each(copy_one, names)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; missing ones are ignored."""
        wanted = list(names)
        for first in range(0, len(wanted), _DELETED_AT_ONCE):
            some = wanted[first : first + _DELETED_AT_ONCE]
            with self._failing(some[0], "removed"), contextlib.suppress(FileNotFoundError):
                self._api().delete(self.opened(), some)

    def for_each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return the results of a function that sends a request for each item, several at a time, in order."""
        with ThreadPoolExecutor(_NUM_REQUESTS, thread_name_prefix="requests") as pool:
            return list(pool.map(function, items))

    def _put_new(self, name: str, content: bytes) -> None:
        """Write an object unless there is another one; retried here, as obstore retries no conditional put."""
        obstore = self._api()
        end_s = time.monotonic() + self.retry_s
        while True:
            try:
                obstore.put(self.opened(), name, content, mode="create", use_multipart=False)
                return
            except obstore.exceptions.NotSupportedError:
                self.put(name, content)
                return
            except obstore.exceptions.AlreadyExistsError:
                if self.get_or_none(name) == content:  # written by a request whose response was lost
                    return
                raise FileExistsError(f"{self.url}/{name} exists already") from None
            except (FileNotFoundError, obstore.exceptions.BaseError) as error:
                failure = self.failure(name, error, "written")
                if not isinstance(failure, ConnectionError) or time.monotonic() > end_s:
                    raise failure from None
                time.sleep(_PAUSE_S)

    def _api(self) -> Any:
        """Return the functions of obstore; raise ImportError with advice if it is missing."""
        self.opened()
        import obstore
        import obstore.exceptions

        return obstore

    @contextlib.contextmanager
    def _failing(self, name: str, done: str) -> Iterator[None]:
        """Convert errors of obstore to those of `RemoteFolder.copy`."""
        failures = self._api().exceptions
        try:
            yield
        except failures.BaseError as error:
            raise self.failure(name, error, done) from None
        except FileNotFoundError as error:
            raise (self.failure(name, error, done) if "Object at location" in str(error) else error) from None
