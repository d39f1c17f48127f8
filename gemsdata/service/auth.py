"""Access control: a server on a loopback address is open; on any other address it requires a token and TLS."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import stat
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.flight as fl

SCHEMES = ("grpc", "grpc+tcp", "grpc+tls")
MIN_TOKEN_BYTES = 16
_HEADER = "authorization"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Address:
    """Host, port and transport of a server."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse ``grpc://HOST:PORT`` or ``grpc+tls://HOST:PORT``; raise ValueError for anything else."""
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or port is None or parts.scheme not in SCHEMES or parts.path.strip("/") or parts.query:
            raise ValueError(f"{text!r} is not a server address; give grpc://HOST:PORT or grpc+tls://HOST:PORT")
        return cls(host=host, port=port, tls=parts.scheme == "grpc+tls")

    @property
    def is_loopback(self) -> bool:
        """Whether the address can only be reached from the same machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"grpc{'+tls' if self.tls else ''}://{host}:{self.port}"


def check_binding(address: Address, token: bytes | None) -> None:
    """Raise ValueError if ``address`` is reachable from other machines and lacks a token or TLS."""
    missing = [
        name for name, given in (("--token-file", token), ("--tls-cert and --tls-key", address.tls)) if not given
    ]
    if missing and not address.is_loopback:
        raise ValueError(
            f"host {address.host} can be reached from other machines; give {' and '.join(missing)}, or --host 127.0.0.1"
        )


def read_token(path: str | Path) -> bytes:
    """Return the token in a file, stripped of surrounding white space; raise FileNotFoundError or ValueError.

    A file that every user of the machine can read is reported as a warning in the log.
    """
    token = read_file(path, "token").strip()
    allowed = set((string.ascii_letters + string.digits + string.punctuation).encode())
    if len(token) < MIN_TOKEN_BYTES or set(token) - allowed:
        raise ValueError(
            f"{path} contains no token: expected {MIN_TOKEN_BYTES} or more printable characters without spaces; make"
            f" one with `openssl rand -hex 32 > {path}`"
        )
    _warn_if_public(path, "token")
    return token


def read_key(path: str | Path) -> bytes:
    """Return the content of a private key file; warn in the log if every user of the machine can read it."""
    key = read_file(path, "key")
    _warn_if_public(path, "key")
    return key


def read_file(path: str | Path, purpose: str) -> bytes:
    """Return the content of a file; raise FileNotFoundError that names its purpose."""
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(f"{path}: no such file (it should contain the {purpose})") from None


def headers(token: bytes | None) -> list[tuple[bytes, bytes]]:
    """Return the headers that authenticate a client."""
    return [] if token is None else [(_HEADER.encode(), b"Bearer " + token)]


class TokenCheck(fl.ServerMiddlewareFactory):
    """Rejects calls without the token; compares in constant time and never logs either token."""

    def __init__(self, token: bytes) -> None:
        super().__init__()
        self._expected = b"Bearer " + token

    def start_call(self, info: Any, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        """Raise FlightUnauthenticatedError unless exactly one header with the token is present."""
        values = headers.get(_HEADER, [])
        given = values[0] if len(values) == 1 else b""
        if isinstance(given, str):
            given = given.encode("utf-8", "replace")
        if not hmac.compare_digest(given, self._expected):
            raise fl.FlightUnauthenticatedError("missing or wrong token")


def _warn_if_public(path: str | Path, purpose: str) -> None:
    if os.stat(path).st_mode & stat.S_IROTH:
        _log.warning("every user of this machine can read the %s in %s; run `chmod 600 %s`", purpose, path, path)
