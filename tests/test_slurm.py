"""Sharding by the jobs of a real Slurm cluster of one node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import shard
from tests.genomes import random_dna, write_fasta
from tests.slurm_support import missing_program, slurm_cluster

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.skipif(missing_program() is not None, reason=str(missing_program())),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    pytest.importorskip("submitit")
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as config:
        yield config


def test_slurm_jobs_give_the_bytes_of_one_machine(config, tmp_path, monkeypatch):
    files = [str(write_fasta(tmp_path / f"{name}.fa", {name: random_dna(20_000, 1)})) for name in "ab"]
    shard(files, tmp_path / "one", ShardOptions(row_tokens=8, min_count=2, rows_per_shard=1024))
    monkeypatch.setenv("SLURM_CONF", str(config))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    words = ["--row-tokens", "8", "--min-count", "2", "--rows-per-shard", "1024", "--workers", "1"]
    words += ["--engine", "slurm", "--engine-option", "timeout_min=5"]
    command = [sys.executable, "-m", "gemsdata", "shard", *files, "-o", str(tmp_path / "set"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "one").rglob("*.*"):
        assert (tmp_path / "set" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()
    assert list((tmp_path / "set.jobs").iterdir())
