"""Servers in processes of their own."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pyarrow.flight as fl

REPOSITORY = str(Path(__file__).parents[1])
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(["gemsdata.service.run_server", "gemsdata.cli.serve"])


@dataclass
class Served:
    """A server process that answers."""

    process: multiprocessing.process.BaseProcess | subprocess.Popen
    output: TextIO
    """what it prints, errors too"""
    address: str = ""
    said: str = ""
    """what it printed until it answered"""

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    @property
    def client(self) -> fl.FlightClient:
        return fl.FlightClient(self.address, generic_options=[("grpc.use_local_subchannel_pool", 1)])

    def wait(self) -> Served:
        """Wait until it answers."""
        for line in self.output:
            self.said += line
            if line.startswith("serving "):
                self.address = line.split()[-1]
                return self
        raise AssertionError(f"the server ended: {self.said}")

    def terminate(self) -> None:
        os.kill(self.process.pid, signal.SIGTERM)

    def end(self) -> None:
        """Kill it (again), and free what it has here."""
        self.process.kill()
        (self.process.wait if isinstance(self.process, subprocess.Popen) else self.process.join)(30)
        self.output.close()

    def counters(self) -> dict[str, float]:
        [answer] = self.client.do_action(fl.Action("counters", b""))
        return json.loads(answer.body.to_pybytes())

    def anonymous_bytes(self) -> int:
        """Its memory without the pages of mapped files, which the system takes back when it likes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) << 10


def command_line(*arguments: str | Path, **variables: str) -> Served:
    """Start ``gemsdata serve`` as a user does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gemsdata.cli", "serve", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": REPOSITORY, **variables},
    )
    return Served(process, process.stdout)


def forked(*arguments: str | Path) -> Served:
    """Start it from a process that has imported everything: the same, three seconds earlier."""
    reading, writing = os.pipe()
    with open(writing, "wb") as pipe:
        process = _FORKSERVER.Process(target=_serve, args=(Descriptor(pipe.fileno()), list(map(str, arguments))))
        process.start()
    return Served(process, open(reading))


class Descriptor:
    """An open file that travels to another process."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self):
        from multiprocessing.reduction import DupFd

        return _descriptor, (DupFd(self.number),)


def _descriptor(duplicate) -> Descriptor:
    return Descriptor(duplicate.detach())


def _serve(output: Descriptor, arguments: list[str]) -> None:
    from gemsdata.cli import main

    for standard in (1, 2):
        os.dup2(output.number, standard)
    os.close(output.number)
    sys.exit(main(["serve", *arguments]))


@contextlib.contextmanager
def served(*folders: Path, count: int = 1, options: tuple[str, ...] = (), start=forked) -> Iterator[list[Served]]:
    """Start ``count`` servers of the same folders at once; kill them afterwards."""
    servers = [start(*folders, "--port", "0", *options) for _ in range(count)]
    try:
        yield [server.wait() for server in servers]
    finally:
        for server in servers:
            server.end()
