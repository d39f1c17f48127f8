"""A port for processes that are to find each other."""

from __future__ import annotations

import random
import socket

_BELOW_EPHEMERAL = range(15_000, 32_000)
"""the system hands out ports from 32768 on to whoever connects, so none of those is free for sure"""


def free_port() -> int:
    """Return a port that nobody listens on, and that no connection of another process is given by chance."""
    while True:
        port = random.SystemRandom().choice(_BELOW_EPHEMERAL)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
