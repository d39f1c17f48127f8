"""A folder at a URL with a limited transfer rate that all connections share, like a network link."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_CHUNK_BYTES = 1 << 18


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, bytes_per_second: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.bytes_per_second = folder, bytes_per_second
        self.lock, self.free_at = threading.Lock(), 0.0

    def wait_for(self, num_bytes: int) -> None:
        """Wait until the link has carried ``num_bytes`` more."""
        with self.lock:
            self.free_at = max(self.free_at, time.monotonic()) + num_bytes / self.bytes_per_second
            until = self.free_at
        time.sleep(max(0.0, until - time.monotonic()))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        path = self.server.folder / unquote(urlsplit(self.path).path).strip("/")
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        first, end = 0, size
        if "Range" in self.headers:
            begin, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            first, end = int(begin), min(int(last or size - 1) + 1, size)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(end - first))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{size}-{path.stat().st_mtime_ns}"')
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        if not with_body:
            return
        with open(path, "rb") as stream, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stream.seek(first)
            while first < end and (chunk := stream.read(min(_CHUNK_BYTES, end - first))):
                self.server.wait_for(len(chunk))
                self.wfile.write(chunk)
                first += len(chunk)


@contextlib.contextmanager
def slow_link(folder: Path, bytes_per_second: float) -> Iterator[str]:
    """Context manager: serve a folder; yield its URL."""
    server = _Server(folder, bytes_per_second)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
