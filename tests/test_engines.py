"""Sharding on executors: the same bytes from every engine, also where workers are killed."""

from __future__ import annotations

import functools
import gzip
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemsdata.cli import main
from gemsdata.shards.engines import open_engine
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import shard
from tests.genomes import awkward_genome, random_dna, write_fasta, write_twobit

pytestmark = pytest.mark.once

OPTIONS = {
    "arrow": ShardOptions(row_tokens=8, min_count=2, rows_per_shard=1024),
    "packed": ShardOptions(format="packed", min_count=2, valid_fraction=0.3),
    "given table": ShardOptions(format="both", row_tokens=8, rows_per_shard=1024, npmi="table.parquet"),
}


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> list[str]:
    """Files of every kind; the second has no ACGT at all, which is no error beside others."""
    folder = tmp_path_factory.mktemp("genome")
    compressed = folder / "c.fa.gz"
    compressed.write_bytes(gzip.compress(b">c1\n" + random_dna(30_000, 1, "ACGTacgtn").encode() + b"\n>c2\n\n"))
    return [
        str(write_fasta(folder / "a.fa", awkward_genome(), newline="\r\n")),
        str(write_fasta(folder / "b.fa", {"unknown": "NNNRYN"})),
        str(compressed),
        str(write_twobit(folder / "d.2bit", {"d": random_dna(9000, 2, "ACGTacgt")})),
    ]


@pytest.fixture(scope="module")
def on_one_machine(genome, tmp_path_factory) -> Callable[[str], tuple[dict[str, bytes], dict[str, Any]]]:
    """Return what `shard` writes and reports without an executor, by the name of the options."""

    @functools.cache
    def made(name: str) -> tuple[dict[str, bytes], dict[str, Any]]:
        out = tmp_path_factory.mktemp("sets") / "set"
        _, summary = shard(genome, out, options_of(name, genome))
        return contents(out), summary

    return made


@functools.cache
def table_beside(folder: Path) -> str:
    from gemsdata.npmi.table import NpmiTable

    counts = np.random.default_rng(0).integers(1, 500, 4**6)
    path = folder / "table.parquet"
    NpmiTable.from_counts({6: counts}, min_count=2).to_parquet(path)
    return str(path)


def options_of(name: str, genome: list[str]) -> ShardOptions:
    options = OPTIONS[name]
    if options.npmi:
        import dataclasses

        return dataclasses.replace(options, npmi=table_beside(Path(genome[0]).parent))
    return options


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class KillingWorkers(Executor):
    """Kills the process of the first call of each function when it is run for the first time."""

    def __init__(self, executor: Executor, folder: Path) -> None:
        self._executor = executor
        self._folder = folder
        self._killed: set[str] = set()
        folder.mkdir()

    def submit(self, fn, /, *args, **kwargs) -> Future:
        if fn.__name__ in self._killed:
            return self._executor.submit(fn, *args)
        self._killed.add(fn.__name__)
        return self._executor.submit(die_once, str(self._folder / fn.__name__), fn, args)


def die_once(marker: str, fn, args):
    if not os.path.exists(marker):
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return fn(*args)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("workers", [1, 3])
def test_threads_give_the_bytes_of_one_machine(genome, on_one_machine, tmp_path, name, workers):
    with ThreadPoolExecutor(workers) as pool:
        _, summary = shard(genome, tmp_path / "set", options_of(name, genome), workers=workers, executor=pool)
    assert contents(tmp_path / "set") == on_one_machine(name)[0]
    assert summary == on_one_machine(name)[1]


@pytest.mark.compiled
def test_processes_give_the_bytes_of_one_machine_and_resume_after_a_lost_one(genome, on_one_machine, tmp_path):
    options = options_of("arrow", genome)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        shard(genome, tmp_path / "set", options, workers=2, executor=pool)
    assert contents(tmp_path / "set") == on_one_machine("arrow")[0]
    with ProcessPoolExecutor(1, mp_context=context) as pool, pytest.raises(Exception, match="process"):
        shard(genome, tmp_path / "lost", options, executor=KillingWorkers(pool, tmp_path / "markers"))
    shard(genome, tmp_path / "lost", options, resume=True)
    assert contents(tmp_path / "lost") == on_one_machine("arrow")[0]


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore")  # of the engines' own
@pytest.mark.parametrize(
    ("engine", "package", "settings"),
    [
        ("dask", "distributed", {}),
        pytest.param("ray", "ray", {}, marks=pytest.mark.slow),
        pytest.param("slurm", "submitit", {"cluster": "local", "timeout_min": "5"}, marks=pytest.mark.slow),
    ],
)
def test_engines_give_the_bytes_of_one_machine(
    genome, on_one_machine, tmp_path, monkeypatch, engine, package, settings
):
    pytest.importorskip(package)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    with open_engine(engine, 2, settings, tmp_path / "logs") as executor:
        if engine == "slurm":  # starts a process for each task, so few of them
            shard(genome[2:3], tmp_path / "set", options_of("packed", genome), workers=1, executor=executor)
            shard(genome[2:3], tmp_path / "one", options_of("packed", genome))
            assert contents(tmp_path / "set") == contents(tmp_path / "one")
            return
        executor = KillingWorkers(executor, tmp_path / "markers")
        shard(genome, tmp_path / "set", options_of("arrow", genome), workers=2, executor=executor)
    assert contents(tmp_path / "set") == on_one_machine("arrow")[0]
    assert len(list((tmp_path / "markers").iterdir())) == 2  # one that read, one that encoded


def test_a_bad_file_is_one_error_and_leaves_nothing(genome, tmp_path):
    (tmp_path / "bad.fa").write_text("no header")
    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match=r"bad\.fa does not begin with a FASTA header"):
        shard([*genome, str(tmp_path / "bad.fa")], tmp_path / "set", executor=pool)
    assert not (tmp_path / "set").exists()
    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="contig name 'd' occurs twice"):
        shard([*genome, genome[-1]], tmp_path / "set", executor=pool)
    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="no A, C, G or T in 1 records"):
        shard([genome[1]], tmp_path / "set", executor=pool)
    assert not (tmp_path / "set").exists()


@pytest.mark.compiled
def test_bad_input_of_a_slurm_job_is_its_error_and_not_tried_again(tmp_path):
    pytest.importorskip("submitit")
    (tmp_path / "bad.fa").write_text("no header")
    logs = tmp_path / "logs"
    with (
        open_engine("slurm", 1, {"cluster": "local", "timeout_min": "5"}, logs) as executor,
        pytest.raises(ValueError, match=r"^\S*bad\.fa does not begin with a FASTA header"),
    ):
        shard([tmp_path / "bad.fa"], tmp_path / "set", executor=executor)
    assert len(list(logs.glob("[0-9]*"))) == 1
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "local", "--engine-option", "address=auto"], "engine local has no option 'address'"),
        (["--engine", "ray", "--engine-option", "address"], "--engine-option 'address' is not KEY=VALUE"),
        (["--engine", "ray", "--engine-option", "adress=auto"], "engine ray has no option 'adress'"),
        (["--engine", "slurm", "--engine-option", "timeout_minutes=5"], "engine slurm: "),
        (["--engine", "spark"], "'spark' is not one of 'local', 'ray', 'dask', 'slurm'"),
    ],
)
def test_wrong_engine_options_are_one_line(genome, tmp_path, capsys, words, said):
    if "ray" in words:
        pytest.importorskip("ray")
    if "slurm" in words:
        pytest.importorskip("submitit")
    assert main(["shard", *genome, "-o", str(tmp_path / "set"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "set").exists()
