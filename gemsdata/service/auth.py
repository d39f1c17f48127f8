"""Who may ask, and where a server may stand: loopback is open, everything else takes a token and TLS."""

from __future__ import annotations

import hmac
import ipaddress
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.flight as fl

SCHEMES = ("grpc", "grpc+tcp", "grpc+tls")
MIN_TOKEN = 16
_HEADER = "authorization"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server stands."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``grpc://host:port`` or ``grpc+tls://host:port``; raise ValueError for something else."""
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or port is None or parts.scheme not in SCHEMES or parts.path.strip("/") or parts.query:
            raise ValueError(f"{text!r} is not the address of a server; give grpc://HOST:PORT or grpc+tls://HOST:PORT")
        return cls(host=host, port=port, tls=parts.scheme == "grpc+tls")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"grpc{'+tls' if self.tls else ''}://{host}:{self.port}"


def check_binding(address: Address, token: bytes | None) -> None:
    """Raise ValueError unless a server may stand at ``address``."""
    missing = [
        name for name, there in (("--token-file", token), ("--tls-cert and --tls-key", address.tls)) if not there
    ]
    if missing and not address.is_loopback:
        raise ValueError(
            f"host {address.host} can be reached from other machines; give {' and '.join(missing)}, or --host 127.0.0.1"
        )


def read_token(path: str | Path) -> bytes:
    """Return the token that stands in a file, without white space around it; raise FileNotFoundError or ValueError."""
    token = read_file(path, "token").strip()
    allowed = set((string.ascii_letters + string.digits + string.punctuation).encode())
    if len(token) < MIN_TOKEN or set(token) - allowed:
        raise ValueError(
            f"{path} holds no token: wanted are {MIN_TOKEN} or more printable characters without spaces; make one with"
            f" `openssl rand -hex 32 > {path}`"
        )
    return token


def read_file(path: str | Path, what: str) -> bytes:
    """Return the content of a file; raise FileNotFoundError that says what it was to hold."""
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(f"{path}: no such file (it should hold the {what})") from None


def headers(token: bytes | None) -> list[tuple[bytes, bytes]]:
    """Return the headers with which a client shows its token."""
    return [] if token is None else [(_HEADER.encode(), b"Bearer " + token)]


class TokenCheck(fl.ServerMiddlewareFactory):
    """Lets a call pass if it shows the token. Compared in constant time; neither token is ever written anywhere."""

    def __init__(self, token: bytes) -> None:
        super().__init__()
        self._wanted = b"Bearer " + token

    def start_call(self, info: Any, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        """Raise FlightUnauthenticatedError unless the token is shown."""
        shown = headers.get(_HEADER, [])
        given = shown[0] if len(shown) == 1 else b""
        if isinstance(given, str):
            given = given.encode("utf-8", "replace")
        if not hmac.compare_digest(given, self._wanted):
            raise fl.FlightUnauthenticatedError("no token or a wrong one was shown")
