"""Progress: every stage of a long-running function reports a total, and reaches it."""

from __future__ import annotations

import gzip
import io
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from gemsdata.inspect.audit import audit
from gemsdata.inspect.shuffle import shuffle_quality
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.verify.shard_set import verify
from gemsdata.shards.write import shard
from tests.genomes import random_dna, write_fasta

pytestmark = pytest.mark.once

OPTIONS = ShardOptions(k=3, row_tokens=40, min_count=2)


class Stages:
    """Records what a function reports."""

    def __init__(self) -> None:
        self.done: defaultdict[str, int] = defaultdict(int)
        self.totals: defaultdict[str, set[int | None]] = defaultdict(set)

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        self.done[stage] += done
        self.totals[stage].add(total)


def stages_of(call, *arguments, **options) -> dict[str, tuple[int, int | None]]:
    """Return (done, total) of each stage; the total never changes."""
    stages = Stages()
    call(*arguments, progress=stages, **options)
    assert all(len(totals) == 1 for totals in stages.totals.values())
    return {stage: (done, next(iter(stages.totals[stage]))) for stage, done in stages.done.items()}


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("genome")
    one = write_fasta(folder / "one.fa", {f"a{i}": random_dna(3000, i) for i in range(5)})
    two = folder / "two.fa.gz"
    two.write_bytes(gzip.compress(f">b\n{random_dna(5000, 9)}\n".encode()))
    return [one, two]


@pytest.fixture(scope="module")
def shards(genome: list[Path]) -> Path:
    out = genome[0].parent / "set"
    shard(genome, out, OPTIONS)
    return out


def test_reading_counts_the_bytes_of_the_files(genome: list[Path], tmp_path: Path) -> None:
    num_bytes = sum(path.stat().st_size for path in genome)
    found = stages_of(shard, genome, tmp_path / "set", OPTIONS)
    assert found.pop("reading") == (num_bytes, num_bytes)
    assert {stage for stage, (done, total) in found.items() if done != total} == set()
    assert set(found) == {"writing"}
    assert stages_of(NpmiTable.from_fasta, *genome, max_k=3) == {"reading": (num_bytes, num_bytes)}


def test_standard_input_has_no_total(monkeypatch) -> None:
    stream = io.BytesIO(f">a\n{random_dna(500, 1)}\n".encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
    assert stages_of(NpmiTable.from_fasta, "-", max_k=2) == {"reading bases": (500, None)}


def test_verifying_has_totals(genome: list[Path], shards: Path) -> None:
    num_rows = sum(ShardSet.open(shards).num_rows(split) for split in ("train", "valid"))
    found = stages_of(lambda progress: verify(shards, [str(path) for path in genome], progress))
    assert found == {"reading bases": (20_000, 20_000), "checking": (num_rows, num_rows)}


def test_looking_has_totals(shards: Path) -> None:
    opened = ShardSet.open(shards)
    num_rows = opened.num_rows("train")
    assert stages_of(shuffle_quality, opened) == {"reading rows": (num_rows, num_rows)}
    assert stages_of(audit, opened, "random-token", num_rows=100) == {"auditing": (100, 100)}


def test_plotting_has_a_total(shards: Path) -> None:
    plot = pytest.importorskip("gemsdata.inspect.plot", reason="the figures need gemsdata[plot]")
    found = stages_of(lambda progress: list(plot.make_figures(plot.open_source(shards), progress=progress)))
    assert found == {"plotting": (5, 5)}
