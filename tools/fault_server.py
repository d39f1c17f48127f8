"""An HTTP and S3 server of one folder with injected faults, for tests of remote reading."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Fault = Callable[[str, int], "str | bytes | None"]
"""(name of the file, how many requests for its content came before) -> what goes wrong; None: nothing.

A number is that status; "reset" closes the connection without an answer, "cut" in the middle of one, "stall" sends half
and then nothing, or nothing of a range; "short" sends half as if it were all; bytes stand in the place of the content.
"""
_EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_LISTING = b"""<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name>
<KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"""


def no_fault(name: str, before: int) -> None:
    """Answer every request."""


class FaultServer(ThreadingHTTPServer):
    """Serves a folder at ``http://...`` and, as a bucket's content, at ``s3://bucket``."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path, fault: Fault = no_fault) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.fault = folder, fault
        self.requests: Counter[str] = Counter()
        self.ranges: list[tuple[str, int]] = []
        """name and first byte of every request for content"""
        self.ranges_allowed = True
        """whether ranges are sent, or whole files for them"""
        self.num_bytes_sent: Counter[str] = Counter()
        """of every file"""
        self.released = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """URL of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients close the connection after truncated responses."""


class _Handler(BaseHTTPRequestHandler):
    server: FaultServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        url = urlsplit(self.path)
        name = unquote(url.path).strip("/").removeprefix("bucket").strip("/")
        if "list-type" in url.query:
            self._send(200, _LISTING)
            return
        path = self.server.folder / name
        fault = None
        first_byte = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if with_body:
            with self.server.lock:
                before = self.server.requests[name]
                self.server.requests[name] += 1
                self.server.ranges.append((name, first_byte))
            fault = self.server.fault(name, before)
        if fault == "reset":
            self.close_connection = True
            return
        if isinstance(fault, str) and fault.isdecimal():
            self._send(int(fault), {"400": _EXPIRED, "403": _DENIED}.get(fault, b"<Error><Code>E</Code></Error>"))
            return
        if not path.is_file():
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>", with_body=with_body)
            return
        content = fault if isinstance(fault, bytes) else path.read_bytes()
        tag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if self.headers.get("If-Match", f'"{tag}"') != f'"{tag}"':
            self._send(412, b"")
            return
        status, headers = 200, {"ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        if "Range" in self.headers and self.server.ranges_allowed:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(content)}"
            content, status = content[begin : end + 1], 206
        if fault == "short":
            content = content[: len(content) // 2]
        sent = len(content)
        if fault in ("cut", "stall"):
            sent = 0 if fault == "stall" and status == 206 else len(content) // 2
        if with_body:
            with self.server.lock:
                self.server.num_bytes_sent[name] += sent
        self._send(status, content, headers, with_body=with_body, sent=sent)
        if fault == "stall":
            self.server.released.wait(60)
        if fault in ("cut", "stall"):
            self.close_connection = True

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        *,
        with_body: bool = True,
        sent: int | None = None,
    ) -> None:
        self.send_response(status)
        given = {"Content-Length": str(len(content)), "Last-Modified": formatdate(0, usegmt=True)}
        for key, value in {**given, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content[:sent])
            self.wfile.flush()


@contextlib.contextmanager
def serving(folder: Path, fault: Fault = no_fault) -> Iterator[FaultServer]:
    """Context manager: serve a folder."""
    server = FaultServer(folder, fault)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
