"""Which servers an address stands for: a name that resolves to several IP addresses stands for a server at each."""

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
"""seconds after which names are looked up again, so that new servers are found and removed ones forgotten"""
_AFTER_FAILURE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One server."""

    address: Address
    name: str | None = None
    """the host name that its certificate has, where ``address`` has an IP address instead of it"""


class Endpoints:
    """The servers that addresses stand for, as of the last look-up; may be used by several threads."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._found = {address: [Endpoint(address=address)] for address in addresses}
        self._names = [address for address in self._found if _is_name(address.host)]
        self._look_up_at = 0.0 if self._names else float("inf")
        self._lock = threading.Lock()

    def current(self) -> list[Endpoint]:
        """Return the servers, in an order that is the same for all clients; looks names up when it is time to."""
        with self._lock:
            if time.monotonic() >= self._look_up_at:
                for address in self._names:
                    self._found[address] = _look_up(address) or self._found[address]
                self._look_up_at = time.monotonic() + LOOK_UP_S
            return [endpoint for found in self._found.values() for endpoint in found]

    def failed(self) -> None:
        """Look names up soon: a server did not answer, and another one may have taken its place."""
        with self._lock:
            if self._names:
                self._look_up_at = min(self._look_up_at, time.monotonic() + _AFTER_FAILURE_S)


def _look_up(address: Address) -> list[Endpoint]:
    """Return the servers behind a name; none where it cannot be resolved now.

    A host with an IPv4 and an IPv6 address is one server: addresses count that are of the family of the first one.
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
    """Return whether a host can stand for several servers: not an IP address, and not this machine."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host != "localhost"
    return False
