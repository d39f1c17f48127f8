"""Sharding on a Ray cluster of two nodes on this machine, one of which is lost while it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from gemsdata.shards.engines import open_engine
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import shard
from tests.genomes import random_dna, write_fasta
from tests.test_engines import contents

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [pytest.mark.once, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
WAIT_S = 120


def never_ends_on(lost_node: str, marker: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a task; on the node that will be lost, say that it has begun and wait."""
    if ray.get_runtime_context().get_node_id() == lost_node:
        marker.touch()
        time.sleep(10 * WAIT_S)
    return function(*arguments)


class OnTwoNodes(Executor):
    """Runs tasks on ``executor``; those on one of its nodes never end."""

    def __init__(self, executor: Executor, lost_node: str, marker: Path) -> None:
        self.executor, self.lost_node, self.marker = executor, lost_node, marker

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future:
        return self.executor.submit(never_ends_on, self.lost_node, self.marker, function, *arguments, **options)


def test_the_bytes_are_those_of_one_machine_after_a_node_is_lost(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    genome = [write_fasta(tmp_path / f"{i}.fa", {f"contig{i}": random_dna(20_000, i)}) for i in range(4)]
    options = ShardOptions(min_count=1, rows_per_shard=1024)
    shard(genome, tmp_path / "one", options)
    marker = tmp_path / "begun"
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        lost = threading.Event()

        def lose_the_node() -> None:
            end = time.monotonic() + WAIT_S
            while not marker.exists() and time.monotonic() < end:
                time.sleep(0.05)
            cluster.remove_node(node, allow_graceful=False)
            lost.set()

        thread = threading.Thread(target=lose_the_node)
        with open_engine("ray", 2, {"address": cluster.address}, tmp_path / "logs") as executor:
            thread.start()
            shard(genome, tmp_path / "set", options, workers=2, executor=OnTwoNodes(executor, node.node_id, marker))
        thread.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert marker.exists(), "no task ran on the second node"
    assert lost.is_set()
    assert contents(tmp_path / "set") == contents(tmp_path / "one")
