"""An S3 server of this machine: moto's, whose answers fail as a test says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Fault = Callable[[str, str, int], "str | float | None"]
"""(method, name of the object, number of the request for them) -> what goes wrong; None: nothing.

"500" is answered with that status; "lost" carries the request out and closes the connection without an answer; "cut"
closes it in the middle of the answer; a number of seconds is waited.
"""
BUCKET = "data"
OPTIONS = {"region": "us-east-1", "access_key_id": "testing", "secret_access_key": "testing"}


class S3Server:
    """The server, what it was asked and what its objects are."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.fault: Fault | None = None
        self.requests: list[tuple[str, str]] = []
        """method and name of the object"""
        self._lock = threading.Lock()

    @property
    def storage_options(self) -> dict[str, Any]:
        """What `gemsdata` needs to reach it."""
        return {**OPTIONS, "endpoint": self.endpoint}

    @property
    def environment(self) -> dict[str, str]:
        """The same as variables of the environment."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Return the content of every object below a folder, by its name in it."""
        from moto.s3.models import s3_backends

        backend = s3_backends["123456789012"]["aws"]
        keys = backend.buckets[BUCKET].keys
        return {
            name.removeprefix(f"{prefix}/"): key.value for name, key in keys.items() if name.startswith(f"{prefix}/")
        }

    def note(self, method: str, name: str) -> str | float | None:
        """Note a request; return what is to go wrong with it."""
        with self._lock:
            before = self.requests.count((method, name))
            self.requests.append((method, name))
        return None if self.fault is None else self.fault(method, name, before)


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server with an empty bucket ``data``."""
    moto_server = pytest.importorskip("moto.server")
    serving = pytest.importorskip("werkzeug.serving")
    import logging

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    application = moto_server.DomainDispatcherApplication(moto_server.create_backend_app)
    server: S3Server | None = None

    def failing(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        assert server is not None
        what = server.note(environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(f"/{BUCKET}").strip("/"))
        if isinstance(what, float):
            time.sleep(what)
        if what == "500":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        answer = application(environ, start_response)
        if what in ("lost", "cut"):
            content = b"".join(answer)
            return _broken(content[: len(content) // 2] if what == "cut" else b"", environ["werkzeug.socket"])
        return answer

    running = serving.make_server("127.0.0.1", 0, failing, threaded=True, request_handler=_quiet(serving))
    server = S3Server(f"http://127.0.0.1:{running.server_port}")
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        _put_bucket(server.endpoint)
        yield server
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def _broken(first: bytes, connection: socket.socket) -> Iterator[bytes]:
    """Send the first bytes of an answer, if any, and close the connection."""
    if first:
        yield first
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


def _quiet(serving: Any) -> Any:
    class Quiet(serving.WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: object) -> None:
            pass

    return Quiet


def _put_bucket(endpoint: str) -> None:
    import urllib.request

    request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT", headers={"Host": endpoint[7:]})
    request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request")
    urllib.request.urlopen(request, timeout=20).close()
