"""Writers killed before every single change that they make: nothing is lost, and the next run completes the set."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gemsdata.files.hashing import xxh3_of
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.verify.shard_set import verify
from gemsdata.shards.work_folder import interrupted, is_planned
from gemsdata.shards.write import complete_set, encode_parts, finalise, open_plan, plan_only, shard
from tests.genomes import random_dna, write_fasta
from tests.killed import killed_before
from tests.test_sharding import hashes

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("unsynced")]


@dataclass
class Example:
    """A set, and another one that is to replace it."""

    fasta: str
    new: ShardOptions
    old_set: Path
    new_set: Path
    encoded: Path
    """the old set, and the new one encoded beside it"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    folder = tmp_path_factory.mktemp("killed")
    fasta = str(write_fasta(folder / "g.fa", {"one": random_dna(1500, 1), "two": random_dna(400, 2)}))
    table = folder / "table.parquet"
    NpmiTable.from_fasta(fasta, max_k=2, min_count=2).to_parquet(table)
    common = {"k": 2, "row_tokens": 50, "npmi": str(table), "block_rows": 8}
    old = ShardOptions(**common, rows_per_shard=8)
    new = ShardOptions(**common, rows_per_shard=16, seed=7, format="both", valid_fraction=0.0)
    shard([fasta], folder / "old", old)
    shard([fasta], folder / "new", new)
    shutil.copytree(folder / "old", folder / "encoded")
    plan = plan_only([fasta], folder / "encoded", new, overwrite=True)
    encode_parts(plan, plan.parts)
    return Example(fasta, new, folder / "old", folder / "new", folder / "encoded")


def assert_absent_or_complete(out: Path, example: Example) -> None:
    """Check that the folder holds no manifest, or one of the two sets whole."""
    if not (out / "_index.json").exists():
        return
    found = {path: digest for path, digest in hashes(out).items() if not path.startswith("_work")}
    assert found in (hashes(example.old_set), hashes(example.new_set))
    for shards in Manifest.load(out).splits.values():
        for file in (file for entry in shards for file in entry.files.values()):
            assert xxh3_of(out / file.path) == file.xxh3_64


def folders(parent: Path, limit: int, step: int = 1) -> Iterator[tuple[int, Path]]:
    """Yield (change, folder) for every ``step``-th change; the test ends the loop, well before ``limit``."""
    for change in range(0, limit, step):
        yield change, parent / str(change)
    raise AssertionError(f"more than {limit} changes")


@pytest.mark.parametrize("again", ["finalise", "shard --resume"])
def test_finalise_killed_before_any_change_is_completed(tmp_path: Path, example: Example, again: str) -> None:
    for change, out in folders(tmp_path, 200, 1 if again == "finalise" else 5):
        shutil.copytree(example.encoded, out)
        killed = killed_before(change, lambda out=out: finalise(open_plan(out)), out)
        assert_absent_or_complete(out, example)
        if again == "finalise":
            assert complete_set(out) or finalise(open_plan(out))
        else:
            shard([example.fasta], out, example.new, resume=True)
        assert hashes(out) == hashes(example.new_set)
        assert not (out / "_work").exists()
        shutil.rmtree(out)
        if not killed:
            break
    assert change > 25  # the kills did hit the steps


@pytest.mark.parametrize("overwrite", [False, True])
def test_shard_killed_before_a_change_is_resumed(tmp_path: Path, example: Example, overwrite: bool) -> None:
    for change, out in folders(tmp_path, 400, 7):
        if overwrite:
            shutil.copytree(example.old_set, out)
        killed = killed_before(
            change, lambda out=out: shard([example.fasta], out, example.new, overwrite=overwrite), out
        )
        assert_absent_or_complete(out, example)
        replaced = not overwrite or is_planned(out) or interrupted(out) or Manifest.load(out).seed == example.new.seed
        if not replaced:  # nothing of the new set is there, and the old one is as it was
            verify(out)
        shard([example.fasta], out, example.new, resume=replaced, overwrite=not replaced)
        assert hashes(out) == hashes(example.new_set)
        shutil.rmtree(out)
        if not killed:
            break
    assert change > 40
