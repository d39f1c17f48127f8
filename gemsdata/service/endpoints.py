"""Resolve addresses to servers: a name that resolves to several IP addresses means a server at each."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from gemsdata.service.auth import Address

LOOK_UP_S = 30.0
"""seconds after which names are resolved again, to find new servers and forget removed ones"""
_AFTER_FAILURE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One server."""

    address: Address
    name: str | None = None
    """the host name in its certificate, if ``address`` has an IP address instead"""


class Endpoints:
    """The servers of resolved addresses, as of the last look-up; thread-safe."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._found = {address: [Endpoint(address=address)] for address in addresses}
        self._names = [address for address in self._found if _is_name(address.host)]
        self._look_up_at = 0.0 if self._names else float("inf")
        self._lock = threading.Lock()

    def current(self) -> list[Endpoint]:
        """Return the servers, in the same order for all clients; resolves names again when they are due."""
        with self._lock:
            if time.monotonic() >= self._look_up_at:
                for address in self._names:
                    self._found[address] = _look_up(address) or self._found[address]
                self._look_up_at = time.monotonic() + LOOK_UP_S
            return [endpoint for found in self._found.values() for endpoint in found]

    def failed(self) -> None:
        """Resolve names again soon: a server did not answer and may have been replaced."""
        with self._lock:
            if self._names:
                self._look_up_at = min(self._look_up_at, time.monotonic() + _AFTER_FAILURE_S)


def _look_up(address: Address) -> list[Endpoint]:
    """Return the servers of a name; none if it cannot be resolved now.

    A host with an IPv4 and an IPv6 address is one server: only addresses of the family of the first one count.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    hosts = sorted({str(place[0]) for family, _, _, _, place in found if family == found[0][0]})
    if len(hosts) < 2:
        return [Endpoint(address=address)]
    return [Endpoint(address=dataclasses.replace(address, host=host), name=address.host) for host in hosts]


def _is_name(host: str) -> bool:
    """Return whether a host can resolve to several servers: not an IP address, and not this machine."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host != "localhost"
    return False
