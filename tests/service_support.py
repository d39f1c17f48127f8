"""Servers in processes of their own, as ``gemsdata serve`` starts them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.flight as fl


@dataclass
class Served:
    """A server process that answers."""

    process: subprocess.Popen
    address: str

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    @property
    def client(self) -> fl.FlightClient:
        return fl.FlightClient(self.address, generic_options=[("grpc.use_local_subchannel_pool", 1)])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def anonymous_bytes(self) -> int:
        """Its memory without the pages of mapped files, which the system takes back when it likes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) << 10


def begin(*folders: Path, options: tuple[str, ...] = (), port: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-m", "gemsdata.cli", "serve", *map(str, folders), "--port", str(port), *options]
    repository = str(Path(__file__).parents[1])
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": repository, "GRPC_VERBOSITY": "ERROR"},
        cwd=repository,
    )


def answering(process: subprocess.Popen) -> Served:
    line = process.stdout.readline()
    assert line.startswith("serving "), line + process.stderr.read()
    return Served(process, line.split()[-1])


@contextlib.contextmanager
def served(*folders: Path, count: int = 1, options: tuple[str, ...] = (), port: int = 0) -> Iterator[list[Served]]:
    """Start ``count`` servers of the same folders at once; end them afterwards."""
    processes = [begin(*folders, options=options, port=port) for _ in range(count)]
    try:
        yield [answering(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=30)
