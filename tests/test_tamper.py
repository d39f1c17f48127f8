"""A sample of `make tamper`, `make chaos` and `make soak`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gemsdata.npmi.table import NpmiTable
from tests.stream_support import make_set
from tools.chaos import faults
from tools.chaos.kills import SIGNALS, kill
from tools.chaos.subjects import subjects
from tools.chaos.tamper import campaign
from tools.soak.orphans import kill_parent
from tools.synthesize import GenomeRecipe, write_fasta

pytestmark = [pytest.mark.once, pytest.mark.compiled]


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("name", ["arrow", "webdataset, zstd", "packed"])
def test_no_change_of_a_set_is_missed(tmp_path: Path, name: str) -> None:
    outcomes = campaign(tmp_path / "sets", 12, 5, [name], cuts=1)
    assert sum(outcome.tries for outcome in outcomes) > 25
    assert {outcome.change: outcome.missed for outcome in outcomes if outcome.missed} == {}
    assert {outcome.change: outcome.wrong for outcome in outcomes if outcome.wrong} == {}


@pytest.mark.usefixtures("unsynced")
def test_killed_commands_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    for subject in subjects(tmp_path):
        if subject.name in ("shard --overwrite", "npmi", "finalise"):
            outcome = kill(subject, tmp_path / "kills", 3, random.Random(1), said.append)
            assert outcome.failures == [], said
            assert outcome.by_signal == dict.fromkeys(SIGNALS, 1)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> faults.Example:
    folder = tmp_path_factory.mktemp("faults")
    fasta, table = folder / "genome.fa", folder / "table.parquet"
    with open(fasta, "wb") as stream:
        write_fasta(GenomeRecipe(num_bases=40_000, seed=3), stream)
    NpmiTable.from_fasta(fasta, max_k=3, min_count=2).to_parquet(table)
    return faults.make_example(folder / "example", fasta, table)


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize(
    "fault", [faults.largest_file, faults.changed_genome, faults.changed_under_a_reader, faults.clocks_that_jump]
)
def test_faults_that_need_no_mount(example: faults.Example, fault: faults.Fault) -> None:
    assert fault(example, random.Random(1)) > 2


@pytest.mark.parametrize("way", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_workers_end_with_their_parent(tmp_path: Path, way: str) -> None:
    ended = kill_parent(make_set(tmp_path / "set"), way, tmp_path)
    assert ended.num_workers >= 2  # a fork server counts
    assert ended.left == 0
