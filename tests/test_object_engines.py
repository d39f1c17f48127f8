"""Sharding to an object store on engines whose workers are killed: the bytes of one machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

import gemsdata as gd
from gemsdata.shards import parallel_reading
from gemsdata.shards.engines import open_engine
from gemsdata.shards.options import ShardOptions
from tests.genomes import random_dna, write_fasta
from tests.s3_support import s3_server
from tests.slurm_support import missing_program, slurm_cluster
from tests.test_engines import KillingWorkers, contents

pytest.importorskip("obstore")
pysam = pytest.importorskip("pysam")
pytestmark = [pytest.mark.compiled, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
OPTIONS = ShardOptions(row_tokens=8, min_count=2, rows_per_shard=1024)
KILLED = ("dask", "ray", "slurm")
"""engines that run the tasks of a killed worker again"""
FAULTS = {
    "none": None,
    "status 500": lambda method, name, before: "500" if before == 0 and name.endswith((".arrow", ".json")) else None,
    "cut and lost": lambda method, name, before: (
        {"GET": "cut", "PUT": "lost"}.get(method) if before == 0 and name.endswith((".bin", "0.arrow")) else None
    ),
    "slow": lambda method, name, before: 0.3 if name.endswith(".npz") else None,
}


@contextlib.contextmanager
def engine_of(name: str, folder: Path) -> Iterator[Executor]:
    """Open an engine with two workers."""
    if name == "threads":
        with ThreadPoolExecutor(2) as pool:
            yield pool
    elif name == "processes":
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    elif name == "slurm":
        with slurm_cluster(folder / "slurm") as config, pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(config))
            with open_engine(name, 2, {"timeout_min": "5"}, folder / "logs") as executor:
                yield executor
    else:
        with open_engine(name, 2, {}, folder / "logs") as executor:
            yield executor


@pytest.mark.parametrize("portion_bases", [4000, 1 << 27])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("engine", ["threads", "processes", "dask", "ray", "slurm"])
def test_the_bytes_are_those_of_one_machine(tmp_path, monkeypatch, engine, fault, portion_bases):
    pytest.importorskip({"dask": "distributed", "ray": "ray", "slurm": "submitit"}.get(engine, "gemsdata"))
    if engine == "slurm" and missing_program() is not None:
        pytest.skip(str(missing_program()))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(gd.__file__).parents[1]))
    monkeypatch.setenv("GEMSDATA_CACHE", str(tmp_path / "cache"))
    files = [
        str(write_fasta(tmp_path / f"{n}.fa", {n: random_dna(15_000, i, "ACGTacgtn")})) for i, n in enumerate("ab")
    ]
    pysam.faidx(files[0])
    monkeypatch.setattr(parallel_reading, "PORTION_BASES", portion_bases)
    gd.shard(files, tmp_path / "one", OPTIONS)
    with s3_server() as server, engine_of(engine, tmp_path) as executor:
        server.fault = FAULTS[fault]
        if engine in KILLED:
            executor = KillingWorkers(executor, tmp_path / "markers")
        began = time.perf_counter()
        gd.shard(
            files,
            f"s3://data/{tmp_path.name}",
            OPTIONS,
            workers=2,
            executor=executor,
            storage_options=server.storage_options,
        )
        seconds = time.perf_counter() - began
        print(f"\n{engine}, {fault}, {portion_bases}: {seconds:.1f} s, {len(server.requests)} requests")
        server.fault = None
        assert server.objects(tmp_path.name) == contents(tmp_path / "one")
    if engine in KILLED:
        assert len(list((tmp_path / "markers").iterdir())) >= 2  # one that read, one that encoded
