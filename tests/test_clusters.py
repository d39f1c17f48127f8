"""The recipes of docs/clusters.md on Ray Train and on a real Slurm cluster, whose processes are killed on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import gemsdata as gd
from gemsdata.stream.loader import Loader
from tests.doc_blocks import REPOSITORY, blocks
from tests.ports import free_port
from tests.recorder.sitecustomize import digest, record
from tests.slurm_support import missing_program, slurm_cluster
from tests.stream_support import make_set

pytestmark = [pytest.mark.compiled, pytest.mark.filterwarnings("ignore")]  # of Ray's own

BLOCKS = blocks(REPOSITORY / "docs" / "clusters.md")
RAY, SCRIPT, SRUN, TORCHRUN = (block.text for block in BLOCKS[:4])
SMALLER = {
    "--nodes=2": "--nodes=1",
    "--ntasks-per-node=8": "--ntasks-per-node=2",
    "--nproc-per-node=8": "--nproc-per-node=2",
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_set(tmp_path_factory.mktemp("clusters") / "OUT", k=6)


def expected(shards: Path, num_ranks: int, batch: int) -> dict[int, list[str]]:
    """The digests of each rank's batches, from loaders in this process."""
    found = {}
    for rank in range(num_ranks):
        world = gd.World(rank=rank, num_ranks=num_ranks)
        loader = gd.build_loader(shards, masking="genemask", global_batch_size=batch, seed=0, num_steps=12, world=world)
        found[rank] = [digest(batch) for batch in loader]
    return found


def check_records(
    folder: Path, wanted: dict[int, list[str]], *, killed: tuple[int, int] | None, again_from: int
) -> None:
    """Every rank had every batch; those between the checkpoint and the kill twice, and the same ones both times."""
    assert (folder / "killed").exists() == (killed is not None)
    for rank, digests in wanted.items():
        had = defaultdict(list)
        for line in (folder / f"{rank}.jsonl").read_text().splitlines():
            step, found = json.loads(line)
            had[step].append(found)
        assert sorted(had) == list(range(12))
        for step, found in had.items():
            assert set(found) == {digests[step]}, f"rank {rank}, step {step}"
        if killed and rank == killed[0]:
            assert [step for step, found in had.items() if len(found) == 2] == list(range(again_from, killed[1] + 1))


def ray_recipe() -> dict:
    pytest.importorskip("ray.train.torch")
    space: dict = {"__name__": "recipe"}
    exec(compile(RAY, "docs/clusters.md", "exec"), space)
    return space


def test_the_ray_recipe_runs_in_one_process(shards, tmp_path, monkeypatch):
    """In the local mode of Ray Train, which starts no cluster."""
    recipe = ray_recipe()
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(Loader, "_iterate", Loader._iterate)
    record(tmp_path)
    result = recipe["trainer"](str(shards), str(tmp_path / "runs"), 0).fit()
    assert result.metrics["step"] == 12
    check_records(tmp_path, expected(shards, 1, 8), killed=None, again_from=0)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [2, 4])
def test_a_killed_worker_of_ray_train_changes_no_batch(shards, tmp_path, monkeypatch, num_workers):
    recipe = ray_recipe()
    import ray

    folder = tmp_path / "records"
    folder.mkdir()
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    path = os.pathsep.join([str(REPOSITORY / "tests" / "recorder"), str(REPOSITORY)])
    variables = {"PYTHONPATH": path, "RECORD_BATCHES": str(folder), "KILL_AT": "1:6", "OMP_NUM_THREADS": "1"}
    variables["KILL_DELAY_S"] = "10"  # Ray's controller notes a checkpoint some time after it was reported
    ray.init(num_cpus=num_workers + 1, include_dashboard=False, runtime_env={"env_vars": variables})
    try:
        result = recipe["trainer"](str(shards), str(tmp_path / "runs"), num_workers).fit()
    finally:
        ray.shutdown()
    assert result.error is None
    assert result.metrics["step"] == 12
    check_records(folder, expected(shards, num_workers, 8 * num_workers), killed=(1, 6), again_from=4)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    if missing_program() is not None:
        pytest.skip(str(missing_program()))
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as config:
        yield config


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["srun", "torchrun"])
def test_a_killed_task_of_a_slurm_job_changes_no_batch(config, shards, tmp_path, launcher):
    """Under srun the job ends and is submitted again; torchrun starts the processes again."""
    text = {"srun": SRUN, "torchrun": TORCHRUN}[launcher].replace("29500", str(free_port()))
    for before, after in SMALLER.items():
        text = text.replace(before, after)
    (tmp_path / "job.sh").write_text(text)
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "OUT").symlink_to(shards)
    folder = tmp_path / "records"
    folder.mkdir()
    environment = {
        **os.environ,
        "SLURM_CONF": str(config),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "tests" / "recorder"), str(REPOSITORY)]),
        "OMP_NUM_THREADS": "1",
        "RECORD_BATCHES": str(folder),
        "KILL_AT": "1:6",
    }
    command = ["sbatch", "--wait", "--output=log.txt", "job.sh"]
    first = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
    log = (tmp_path / "log.txt").read_text()
    if launcher == "srun":
        assert first.returncode != 0, log
        again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
        assert again.returncode == 0, (tmp_path / "log.txt").read_text()
    else:
        assert first.returncode == 0, log
    check_records(folder, expected(shards, 2, 16), killed=(1, 6), again_from=4)


@pytest.mark.slow
def test_servers_as_ray_actors_of_which_one_is_killed(shards, monkeypatch):
    """The actor that Ray starts again serves at the same address."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    [text] = [block.text for block in blocks(REPOSITORY / "docs" / "service.md") if "MaskingServer" in block.text]
    text = text.replace('"/data/OUT"', repr(str(shards)))
    for port in ("8815", "8816"):
        text = text.replace(port, str(free_port()))
    space: dict = {"__name__": "recipe"}
    ray.init(num_cpus=3, include_dashboard=False)
    try:
        exec(compile(text, "docs/service.md", "exec"), space)
        found = []
        for batch in space["loader"]:
            if batch["step"] == 20:
                ray.kill(space["servers"][0], no_restart=False)
            if batch["step"] == 200:  # waits until the actor is there again
                again = ray.get(space["servers"][0].address.remote(), timeout=100)
                assert again == space["addresses"][0]
            found.append(digest(batch))
    finally:
        ray.shutdown()
    local = gd.build_loader(shards, masking="genemask", batch_size=8, seed=0, num_steps=400)
    assert found == [digest(batch) for batch in local]
