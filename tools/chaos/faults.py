"""Faults other than kills: full disks, read-only folders, concurrent writers, changing files, clocks.

Each fault is a function that returns the number of tries, and raises FaultError if gemsdata misbehaves.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import gemsdata as gd
from gemsdata.cli import main
from gemsdata.genome import packed
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.verify.shard_set import verify
from tools.chaos.kills import content
from tools.chaos.victim import Ended, run_command, run_forked

_OPTIONS = ["-k", "3", "--row-tokens", "30", "--rows-per-shard", "1024", "--format", "both"]
_NOBODY = 65534
"""a user without rights"""


class FaultError(Exception):
    """Misbehaviour of gemsdata under a fault."""


@dataclass(frozen=True)
class Example:
    """A genome, its shard set, and a folder for other sets."""

    folder: Path
    fasta: Path
    table: Path
    shards: Path

    def command(self, out: Path, *flags: str) -> list[str]:
        """Return the command that makes the set in ``out``."""
        return ["shard", str(self.fasta), "-o", str(out), *_OPTIONS, "--npmi", str(self.table), *flags]

    @property
    def log(self) -> Path:
        """File for the output of processes."""
        return self.folder / "log"


def make_example(folder: Path, fasta: Path, table: Path) -> Example:
    """Make a set of the genome in ``folder``."""
    folder.mkdir()
    example = Example(folder, fasta, table, folder / "shards")
    if main([*example.command(example.shards), "--quiet"]):
        raise RuntimeError("the set of the example could not be made")
    return example


def disk_full(example: Example, rng: random.Random) -> int:
    """A file system that becomes full during the run: one error line; the run continues once there is space."""
    needed = sum(path.stat().st_size for path in example.shards.rglob("*") if path.is_file())
    for share in (0.02, 0.2, 0.4, 0.6, 0.8, 1.0):
        with _tmpfs(example.folder / "disk", int(needed * share)) as disk:
            _expect_line(run_command(example.command(disk / "set"), example.log), "the disk is full")
            _remount(disk, f"size={needed * 20}")
            _expect_success(run_command(example.command(disk / "set", "--resume"), example.log))
            _expect_same(example, disk / "set")
    return 6


def disk_full_while_overwriting(example: Example, rng: random.Random) -> int:
    """A file system that becomes full with --overwrite: one error line, and the old set stays complete."""
    needed = sum(path.stat().st_size for path in example.shards.rglob("*") if path.is_file())
    for share in (0.1, 0.5, 0.9):
        with _tmpfs(example.folder / "disk", needed * 20) as disk:
            shutil.copytree(example.shards, disk / "set")
            used = sum(path.stat().st_blocks for path in disk.rglob("*")) * 512
            _remount(disk, f"size={used + int(needed * share)}")
            command = example.command(disk / "set", "--overwrite", "--seed", "9")
            _expect_line(run_command(command, example.log), "the disk is full")
            _check(Manifest.load(disk / "set") == Manifest.load(example.shards), "the old set was replaced")
            verify(disk / "set")
    return 3


def largest_file(example: Example, rng: random.Random) -> int:
    """A file-size limit (RLIMIT_FSIZE) that a shard or a table exceeds: one error line, nothing published."""
    for limit in (1000, 20_000, 60_000):

        def limited(limit: int = limit) -> int:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return main(example.command(example.folder / "limited"))

        _expect_line(run_forked(limited, example.log), "the disk is full")
        _check(not (example.folder / "limited" / "_index.json").exists(), "an incomplete set has a manifest")
        shutil.rmtree(example.folder / "limited", ignore_errors=True)
    return 3


def read_only_folder(example: Example, rng: random.Random) -> int:
    """A read-only file system: one error line from writers; readers do not write."""
    with _tmpfs(example.folder / "disk", 64 << 20) as disk:
        shutil.copytree(example.shards, disk / "set")
        _remount(disk, "ro")
        for command in (
            example.command(disk / "new"), example.command(disk / "set", "--overwrite"),
            ["npmi", str(example.fasta), "-o", str(disk / "t.parquet"), "--max-k", "2"],
        ):  # fmt: skip
            _expect_line(run_command(command, example.log), "")
        for command in (
            ["verify", str(disk / "set")], ["info", str(disk / "set")], ["finalise", str(disk / "set")],
            example.command(disk / "set", "--resume"),
        ):  # fmt: skip
            _expect_success(run_command(command, example.log))
        _check(len(_batches(disk / "set", 5)) == 5, "a loader read other than 5 batches")
    return 7


def folder_of_another_user(example: Example, rng: random.Random) -> int:
    """A process that cannot write to the folder and has no home: one error line from writers; readers do not write."""
    new, before = example.folder / "new", content(example.shards)

    def as_nobody(command: list[str]) -> Ended:
        words = [sys.executable, "-m", "gemsdata", *command]
        environment = {**os.environ, "HOME": "/nonexistent"}
        ended = subprocess.run(
            words, user=_NOBODY, group=_NOBODY, extra_groups=[], env=environment, capture_output=True
        )
        return Ended(ended.returncode, False, (ended.stdout + ended.stderr).decode(), 0.0)

    for command in (
        example.command(new), example.command(example.shards, "--overwrite"),
        ["npmi", str(example.fasta), "-o", str(new), "--max-k", "2"],
    ):  # fmt: skip
        _expect_line(as_nobody(command), "")
        _check(not new.exists() and content(example.shards) == before, "something was written")
    for command in (["verify", str(example.shards)], ["info", str(example.shards)]):
        _expect_success(as_nobody(command))
    return 5


def two_writers(example: Example, rng: random.Random) -> int:
    """Two simultaneous runs of one command: one makes the set, the other ends with one error line."""
    for number in range(10):
        out = example.folder / f"two-{number}"
        pid = os.fork()
        if pid == 0:
            time.sleep(rng.uniform(0, 0.2))
            os._exit(run_command(example.command(out), example.folder / "other-log").status)
        ended = run_command(example.command(out), example.log)
        other = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _check(sorted((ended.status, other)) == [0, 2], f"exit statuses {ended.status} and {other}")
        _expect_same(example, out)
        shutil.rmtree(out)
    return 10


def changed_under_a_reader(example: Example, rng: random.Random) -> int:
    """A shard is removed or truncated, or the set is replaced, while a loader reads: correct batches, or an error.

    A shard that is replaced by one of another set before it is read is found by ``check="hash"``.
    """
    right = _batches(example.shards, None)
    other = example.folder / "other"
    _expect_success(run_command(example.command(other, "--seed", "9"), example.log))
    tries = 0
    for change in ("vanish", "cut", "replace", "replace the set"):
        for number in range(5):
            copy = example.folder / "changing"
            shutil.copytree(example.shards, copy)
            if change == "replace":
                _change(copy, other, change, rng)
            check = "hash" if change == "replace" else "size"
            loader = gd.build_loader(copy, batch_size=16, num_workers=number % 3, threads=True, check=check)
            iterator = iter(loader)
            got = []
            try:
                for step in range(len(right)):
                    if step == number and change != "replace":
                        _change(copy, other, change, rng)
                    got.append(next(iterator))
            except (ValueError, OSError, RuntimeError) as error:
                _check(any(name in str(error) for name in (".arrow", "_index.json", "set")), repr(error))
            finally:
                loader.close()
            for step, batch in enumerate(got):
                same = all(np.array_equal(batch[name], right[step][name]) for name in ("input_ids", "sample_ids"))
                _check(same, f"{change}: batch {step} of {len(got)} is wrong, without an error")
            shutil.rmtree(copy)
            tries += 1
    return tries


def changed_genome(example: Example, rng: random.Random) -> int:
    """A genome is truncated, appended to or overwritten while it is read: one error line, and no set."""
    text = example.fasta.read_bytes()
    tries = 0
    for change in (text[: len(text) // 2], text + b">more\nACGT\n", text.replace(b"A", b"C", 1)):
        for contig in range(2):
            genome, out = example.folder / "changing.fa", example.folder / "of-changing"
            genome.write_bytes(text)
            os.utime(genome, ns=(0, 0))  # the clock of a file system may be coarse

            def changing(genome: Path = genome, out: Path = out, change: bytes = change, contig: int = contig) -> int:
                pack, calls = packed.pack_record, iter(range(1000))

                def pack_and_change(*arguments: object, **options: object) -> packed.Contig:
                    if next(calls) == contig:
                        genome.write_bytes(change)
                    return pack(*arguments, **options)

                packed.pack_record = pack_and_change
                return main(["shard", str(genome), "-o", str(out), *_OPTIONS])

            _expect_line(run_forked(changing, example.log), "was changed while it was read")
            _check(not (out / "_index.json").exists(), "a set of a genome that was changed")
            shutil.rmtree(out, ignore_errors=True)
            tries += 1
    return tries


def full_cache(example: Example, rng: random.Random) -> int:
    """A cache of a remote set on a full file system: one error line, or correct batches."""
    right = _batches(example.shards, 20)
    needed = sum(path.stat().st_size for path in example.shards.rglob("*.arrow"))
    tries = 0
    for share in (0.01, 0.3, 0.6, 0.9):
        with _tmpfs(example.folder / "disk", int(needed * share)) as disk:
            try:
                got = _batches(ShardSet.open(f"file://{example.shards}", cache_dir=disk / "cache"), 20)
            except (ValueError, OSError) as error:
                _check("\n" not in str(error), repr(error))
                got = []
            for one, other in zip(got, right, strict=False):
                _check(np.array_equal(one["input_ids"], other["input_ids"]), "a wrong batch")
            tries += 1
    return tries


def clocks_that_jump(example: Example, rng: random.Random) -> int:
    """A clock that jumps by days in both directions, and input from the future: the same bytes."""
    real = time.time
    for number in range(5):
        out = example.folder / "jump"

        command = example.command(out, *(["--resume"] if out.exists() else []))

        def jumping(command: list[str] = command) -> int:
            time.time = lambda: real() + rng.uniform(-1e6, 1e6)
            return main(command)

        when = real() + rng.uniform(-1e8, 1e9)
        os.utime(example.fasta, (when, when))
        _expect_success(run_forked(jumping, example.log))
        _expect_same(example, out)
        if number % 2:
            shutil.rmtree(out)
    return 5


Fault = Callable[[Example, random.Random], int]
"""makes a fault several times; returns how often, raises FaultError on misbehaviour"""
FAULTS: dict[str, Fault] = {
    "disk full": disk_full,
    "disk full with --overwrite": disk_full_while_overwriting,
    "limit of the size of a file": largest_file,
    "read-only folder": read_only_folder,
    "folder of another user": folder_of_another_user,
    "two writers": two_writers,
    "shard changed under a loader": changed_under_a_reader,
    "genome changed while it is read": changed_genome,
    "cache on a full disk": full_cache,
    "clock that jumps": clocks_that_jump,
}


def _batches(shards: Path | ShardSet, limit: int | None) -> list[dict[str, np.ndarray]]:
    loader = gd.build_loader(shards, batch_size=16, num_steps=limit or 60)
    try:
        return [{name: batch[name].numpy().copy() for name in ("input_ids", "sample_ids")} for batch in loader]
    finally:
        loader.close()


def _change(copy: Path, other: Path, change: str, rng: random.Random) -> None:
    victim = rng.choice(sorted((copy / "train").glob("*.arrow")))
    if change == "vanish":
        victim.unlink()
    elif change == "cut":
        os.truncate(victim, victim.stat().st_size // 2)
    elif change == "replace":
        shutil.copy(other / "train" / victim.name, victim)
    else:
        shutil.rmtree(copy)
        shutil.copytree(other, copy)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise FaultError(otherwise)


def _expect_success(ended: Ended) -> None:
    _check(ended.status == 0, f"exit status {ended.status}: {ended.printed[-500:]}")


def _expect_line(ended: Ended, text: str) -> None:
    _check(ended.status == 2, f"exit status {ended.status}: {ended.printed[-500:]}")
    errors = [line for line in ended.printed.splitlines() if line.startswith("error: ")]
    _check(len(errors) == 1 and text in errors[0] and "Traceback" not in ended.printed, ended.printed[-500:])


def _expect_same(example: Example, out: Path) -> None:
    _check(content(out) == content(example.shards), f"{out} differs from an undisturbed run")
    _check(not (out / "_work").exists(), "_work was left")


@contextlib.contextmanager
def _tmpfs(folder: Path, num_bytes: int) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(num_bytes, 4096)}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def _remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)
