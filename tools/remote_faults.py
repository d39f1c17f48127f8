"""Test reading of a shard set at a URL while its server fails: ``python -m tools.remote_faults --markdown FILE``.

Each case is tried over HTTP and over S3, against a server with injected faults, with a cold cache. `tests/
test_remote_faults.py` runs the same cases.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench.table import commit
from gemsdata.files import remote_folder
from gemsdata.shards.manifest_fields import ShardFile
from gemsdata.shards.storage import RemoteStore
from tools.fault_server import Fault, FaultServer, no_fault, serving

RETRY_S = 3.0
_AT_ONCE = 4
"""tries of one case; most of them wait"""
READ_TIMEOUT_S = 1.0
NUM_BYTES = 3 << 20
NAME = "train/000000.arrow"
STORAGE_OPTIONS = {"region": "us-east-1", "access_key_id": "key", "secret_access_key": "secret"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault and the expected error; None: the shard is read."""

    fault: Fault
    error: str | None = None
    only: str | None = None
    """URL scheme, if the case is for one only"""


def first(number: int, what: str | bytes) -> Fault:
    """Return a fault that affects the first requests only."""
    return lambda name, before: what if before < number else None


_GIVEN_UP = r"ConnectionError: .*/train/000000.arrow cannot be read: .*retried for up to 3 s"
_DENIED = "PermissionError: .*/train/000000.arrow: access denied .*check the credentials"
_DAMAGED = "ValueError: shard .*/train/000000.arrow: what was fetched has sha256"
CASES = {
    "none": Case(fault=no_fault),
    "status 500, twice": Case(fault=first(2, "500")),
    "status 503, once": Case(fault=first(1, "503")),
    "status 429, once": Case(fault=first(1, "429")),
    "no answer, twice": Case(fault=first(2, "reset")),
    "answer cut in the middle, once": Case(fault=first(1, "cut")),
    "answer cut in the middle, 5 times": Case(fault=first(5, "cut")),
    "answer stalls in the middle, once": Case(fault=first(1, "stall")),
    "half an answer, said to be whole, once": Case(fault=first(1, "short")),
    "an old file from a proxy, once": Case(fault=first(1, b"old" * (NUM_BYTES // 3))),
    "status 500, always": Case(fault=first(10**9, "500"), error=_GIVEN_UP),
    "no answer, always": Case(fault=first(10**9, "reset"), error=_GIVEN_UP),
    "answer stalls in the middle, always": Case(fault=first(10**9, "stall"), error="ConnectionError: .*cannot be read"),
    "half an answer, said to be whole, always": Case(fault=first(10**9, "short"), error=_DAMAGED),
    "an old file from a proxy, always": Case(fault=first(10**9, b"old" * (NUM_BYTES // 3)), error=_DAMAGED),
    "more bytes than the manifest says": Case(
        fault=first(10**9, bytes(2 * NUM_BYTES)), error=r"ValueError: .*more than the 3,145,728 bytes of the manifest"
    ),
    "status 403": Case(fault=first(10**9, "403"), error=_DENIED),
    "status 401": Case(fault=first(10**9, "401"), error=_DENIED),
    "expired credentials": Case(
        fault=first(10**9, "400"), error="PermissionError: .*the credentials have expired; check", only="s3"
    ),
    "status 404": Case(
        fault=first(10**9, "404"), error="FileNotFoundError: shard .*000000.arrow is missing; restore it"
    ),
}


def make_file(folder: Path) -> ShardFile:
    """Write a file of random bytes; return its manifest entry."""
    import random

    content = random.Random(0).randbytes(NUM_BYTES)
    (folder / NAME).parent.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(content)
    return ShardFile(path=NAME, num_bytes=NUM_BYTES, xxh3_64="0" * 16, sha256=hashlib.sha256(content).hexdigest())


def place_of(server: FaultServer, scheme: str) -> tuple[str, dict[str, Any]]:
    """Return the URL of a server's folder, and its storage options."""
    if scheme == "http":
        return server.url, {}
    return "s3://bucket", {**STORAGE_OPTIONS, "endpoint": server.url}


def fetch(folder: Path, file: ShardFile, case: Case, scheme: str) -> tuple[str, int]:
    """Fetch a file into a cold cache; return the error ("" if the content is correct) and the number of requests.

    Raises AssertionError if the content is wrong, or files are left in the cache after an error.
    """
    with serving(folder, case.fault) as server, tempfile.TemporaryDirectory() as cache:
        url, options = place_of(server, scheme)
        store = RemoteStore(url, cache_dir=cache, storage_options=options, retry_s=RETRY_S)
        try:
            path, pin = store.path(file)
        except (OSError, ValueError) as error:
            assert not [path for path in Path(cache).iterdir() if path.name != "lock"]
            return f"{type(error).__name__}: {error}", server.requests[NAME]
        assert path.read_bytes() == (folder / NAME).read_bytes()
        pin.release()
        return "", server.requests[NAME]


def _timed(folder: Path, file: ShardFile, case: Case, scheme: str) -> tuple[str, int, float]:
    """Return the error and the requests of `fetch`, and the seconds that it took."""
    began = time.monotonic()
    return (*fetch(folder, file, case, scheme), time.monotonic() - began)


@click.command()
@click.option("--times", type=int, default=5, show_default=True, help="Tries of each case and scheme.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the table to this file.")
def main(times: int, markdown: Path | None) -> None:
    """Try every case; exit with 1 if one does not end as expected."""
    remote_folder.READ_TIMEOUT_S = READ_TIMEOUT_S
    lines = ["| fault | scheme | tries | read | one clear error | other | requests | seconds, most |", "|" + "---|" * 8]
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        file = make_file(Path(scratch))
        for name, case in CASES.items():
            for scheme in ("http", "s3"):
                if case.only not in (None, scheme):
                    continue
                counts = {"read": 0, "error": 0, "other": 0}
                with ThreadPoolExecutor(_AT_ONCE) as pool:
                    tries = [pool.submit(_timed, Path(scratch), file, case, scheme) for _ in range(times)]
                    found = [one.result() for one in tries]
                for error, _, _ in found:
                    expected = error == "" if case.error is None else re.match(case.error, error)
                    counts[("error" if error else "read") if expected else "other"] += 1
                wrong += counts["other"]
                requests, seconds = {one[1] for one in found}, max(one[2] for one in found)
                cells = [name, scheme, times, *counts.values(), _range_text(requests), f"{seconds:.1f}"]
                lines.append("| " + " | ".join(map(str, cells)) + " |")
                print(lines[-1], flush=True)
    settings = {"times": times, "commit": commit(), "at_once": _AT_ONCE}
    text = _HEAD.format(**settings, retry_s=RETRY_S, read_timeout_s=READ_TIMEOUT_S) + "\n".join(lines) + "\n"
    if markdown:
        markdown.write_text(text)
    sys.exit(wrong > 0)


def _range_text(numbers: set[int]) -> str:
    return str(min(numbers)) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


_HEAD = """# Faults of servers

Made by `python -m tools.remote_faults --times {times}` (`make remote-faults`) at commit {commit}; nothing is random. A
shard of 3 MiB is fetched into an empty cache from a server on the same machine that fails as stated, {at_once} tries
at a time, with `retry_s={retry_s}` and a limit of {read_timeout_s} s without a byte (defaults: 120 and 60). "Read"
means that the content has the hash of the manifest. An error is one line with the URL; nothing stays in the cache
after it. Files are read by name and nothing is listed, so no listing can expire. [remote.md](remote.md) describes the
settings.

"""

if __name__ == "__main__":
    main()
