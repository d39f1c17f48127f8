"""Runs pieces one after the other until the time of a slice, or of the whole campaign, is used up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from gemsdata.files.publish import write_text
from tools.gpu_campaign.plan import Piece

COMPLETE, FAILED, UNFINISHED = "complete", "failed", "unfinished"
_MAX_FAILURES = 2
_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known about a piece, in OUT/pieces/NAME.json."""

    status: str
    seconds: float
    """of all its runs together"""
    num_failures: int = 0
    message: str = ""
    """last line that a failed run printed"""


def read_record(out: Path, piece: Piece) -> Record:
    """Return the record of a piece; unfinished after 0 seconds if it was not started."""
    path = out / "pieces" / f"{piece.name}.json"
    return Record(**json.loads(path.read_text())) if path.exists() else Record(status=UNFINISHED, seconds=0.0)


def remaining(pieces: Sequence[Piece], out: Path) -> list[Piece]:
    """Return the pieces that are neither complete nor failed for good."""
    records = {piece.name: read_record(out, piece) for piece in pieces}
    return [
        piece
        for piece in pieces
        if records[piece.name].status != COMPLETE and records[piece.name].num_failures < _MAX_FAILURES
    ]


def used_s(pieces: Sequence[Piece], out: Path) -> float:
    """Return the seconds that all pieces have taken so far."""
    return sum(read_record(out, piece).seconds for piece in pieces)


def run_slice(pieces: Sequence[Piece], out: Path, *, minutes: float, slice_minutes: float, grace_s: float) -> None:
    """Run the remaining pieces, as far as the time allows.

    A piece starts if its `Piece.minutes` are left both of the campaign's ``minutes`` and of this slice. At the end of
    the slice it gets SIGINT, upon which resumable ones save, and SIGKILL ``grace_s`` seconds later. A piece that failed
    is tried once more in another slice.
    """
    ends = time.monotonic() + slice_minutes * 60
    for piece in remaining(pieces, out):
        left_s = min(ends - time.monotonic(), minutes * 60 - used_s(pieces, out)) - grace_s
        if left_s < piece.minutes * 60:
            continue
        click.echo(f"{piece.name}: at most {left_s / 60:.1f} minutes", err=True)
        record = _run(piece, out, left_s, grace_s)
        click.echo(f"{piece.name}: {record.status} after {record.seconds:.0f} s {record.message}".rstrip(), err=True)


def _run(piece: Piece, out: Path, limit_s: float, grace_s: float) -> Record:
    """Run a piece for at most ``limit_s`` seconds, and record how it ended."""
    before = read_record(out, piece)
    log = out / "logs" / f"{piece.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with open(log, "ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", piece.module, *piece.arguments],
            cwd=_REPOSITORY,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, so that its worker processes are interrupted too
        )
        interrupted = True
        try:
            status = process.wait(limit_s)
            interrupted = False
        except subprocess.TimeoutExpired:
            status = _stop(process, grace_s)
        except BaseException:
            _stop(process, grace_s)
            raise
        finally:
            seconds = before.seconds + time.monotonic() - began
            _write(out, piece, Record(status=UNFINISHED, seconds=seconds, num_failures=before.num_failures))
    if status == 0:
        record = Record(status=COMPLETE, seconds=seconds)
    elif interrupted and piece.resumable:
        record = Record(status=UNFINISHED, seconds=seconds, num_failures=before.num_failures)
    else:
        why = f"no end after {limit_s:.0f} s" if interrupted else _last_line(log)
        failures = before.num_failures + 1
        record = Record(status=FAILED, seconds=seconds, num_failures=failures, message=why)
    _write(out, piece, record)
    return record


def _stop(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """Interrupt a process and its children; kill what is left after ``grace_s`` seconds; return the exit status."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.wait(grace_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _write(out: Path, piece: Piece, record: Record) -> None:
    (out / "pieces").mkdir(parents=True, exist_ok=True)
    write_text(out / "pieces" / f"{piece.name}.json", json.dumps(asdict(record)) + "\n")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it printed nothing")
