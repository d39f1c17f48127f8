"""What --overwrite and --resume may touch: a good set stays until the new one is complete; other files never go."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from gemsdata.shards import write
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import encode_parts, finalise, open_plan, plan_only, shard
from tests.genomes import random_dna, write_fasta

pytestmark = pytest.mark.once

SMALL = ShardOptions(k=4, row_tokens=50, min_count=5, block_rows=16, rows_per_shard=16)
OTHER = ShardOptions(k=4, row_tokens=50, min_count=5, block_rows=16, rows_per_shard=64, seed=7)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("genome")
    return str(write_fasta(folder / "g.fa", {"one": random_dna(6000, 1), "two": random_dna(1500, 2)}))


@pytest.fixture(scope="module")
def other_fasta(tmp_path_factory) -> str:
    return str(write_fasta(tmp_path_factory.mktemp("other") / "h.fa", {"one": random_dna(4000, 3)}))


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "_work" not in path.parts
    }


@pytest.mark.parametrize("mistake", ["missing", "empty", "contig", "table"])
def test_a_mistake_with_overwrite_leaves_the_set_as_it_was(tmp_path: Path, fasta: str, mistake: str) -> None:
    out = tmp_path / "out"
    shard([fasta], out, SMALL)
    before = content(out)
    (tmp_path / "empty.fa").write_text("")
    source = {"missing": str(tmp_path / "typo.fa"), "empty": str(tmp_path / "empty.fa")}.get(mistake, fasta)
    options = {
        "contig": ShardOptions(k=4, row_tokens=50, valid_contigs=("three",)),
        "table": ShardOptions(k=4, row_tokens=50, npmi=str(tmp_path / "no.parquet")),
    }.get(mistake, OTHER)
    with pytest.raises((ValueError, FileNotFoundError)):
        shard([source], out, options, overwrite=True)
    assert content(out) == before
    assert not (out / "_work").exists()


def test_the_old_set_is_readable_until_the_new_one_is_complete(tmp_path: Path, fasta: str) -> None:
    out = tmp_path / "out"
    shard([fasta], out, SMALL)
    before = content(out)
    plan_only([fasta], out, OTHER, overwrite=True)
    assert content(out) == before
    plan = open_plan(out)
    encode_parts(plan, plan.parts)
    assert content(out) == before
    finalise(plan)
    assert Manifest.load(out).seed == OTHER.seed
    assert set(content(out)) == {"_index.json", *Manifest.load(out).files()}


@pytest.mark.parametrize("name", ["train/mydata.csv", "_work/thesis.txt", "notes.txt"])
@pytest.mark.parametrize("flag", ["overwrite", "resume"])
def test_files_of_the_user_are_named_and_never_removed(tmp_path: Path, fasta: str, name: str, flag: str) -> None:
    out = tmp_path / "out"
    shard([fasta], out, SMALL)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(ValueError, match=f"contains {name}, which does not belong to a shard set"):
        shard([fasta], out, SMALL, **{flag: True})
    assert (out / name).read_text() == "mine"
    assert Manifest.load(out).seed == SMALL.seed


def test_a_folder_with_a_foreign_index_is_no_shard_set(tmp_path: Path, fasta: str) -> None:
    (tmp_path / "_index.json").write_text('{"mine": 1}')
    for flag in ("overwrite", "resume"):
        with pytest.raises(ValueError, match="not the manifest of a gemsdata shard set"):
            shard([fasta], tmp_path, SMALL, **{flag: True})
    assert (tmp_path / "_index.json").read_text() == '{"mine": 1}'


def test_planning_a_complete_set_again_changes_nothing(tmp_path: Path, fasta: str, other_fasta: str) -> None:
    out = tmp_path / "out"
    shard([fasta], out, SMALL)
    before = content(out)
    with pytest.raises(ValueError, match="is complete: nothing is left to do"):
        plan_only([other_fasta], out, SMALL, resume=True)
    assert content(out) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed = 0, not 1"),
        ({"valid_fraction": 0.3}, "valid-fraction = 0.02, not 0.3"),
        ({"valid_contigs": ("two",)}, "valid-contigs = none, not two"),
        ({"estimator": "naive"}, "estimator = published, not naive"),
        ({"min_count": 6}, "min-count = 5, not 6"),
        ({"canonical": True}, "canonical = False, not True"),
        ({"exclude_soft_masked": True}, "exclude-soft-masked = False, not True"),
    ],
)
def test_resume_of_a_complete_set_names_the_first_other_option(tmp_path: Path, fasta: str, change, message) -> None:
    out = tmp_path / "out"
    shard([fasta], out, SMALL)
    given = {"k": 4, "row_tokens": 50, "min_count": 5, "block_rows": 16, "rows_per_shard": 16, **change}
    with pytest.raises(ValueError, match=message):
        shard([fasta], out, ShardOptions(**given), resume=True)


def test_resume_of_a_complete_set_refuses_another_genome(tmp_path: Path, fasta: str, other_fasta: str) -> None:
    out = tmp_path / "out"
    shard([fasta], out, SMALL)
    with pytest.raises(ValueError, match="another genome: contig 0 was one of 6,000 bases, is one of 4,000"):
        shard([other_fasta], out, SMALL, resume=True)
    changed = Path(fasta).read_text().replace("ACG", "AGG", 1)
    (tmp_path / "g.fa").write_text(changed)
    with pytest.raises(ValueError, match="other bases or soft-masking"):
        shard([str(tmp_path / "g.fa")], out, SMALL, resume=True)


def test_standard_input_cannot_resume(
    tmp_path: Path, fasta: str, other_fasta: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stdin_of(path: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(path).read_bytes())))

    stdin_of(fasta)
    plan_only(["-"], tmp_path / "out", SMALL)
    stdin_of(other_fasta)
    with pytest.raises(ValueError, match="standard input cannot be compared"):
        shard(["-"], tmp_path / "out", SMALL, resume=True)


def test_finalise_finds_a_part_that_was_changed(tmp_path: Path, fasta: str) -> None:
    plan_only([fasta], tmp_path / "out", SMALL)
    plan = open_plan(tmp_path / "out")
    encode_parts(plan, plan.parts)
    first, second = (plan.part_file(part.path("arrow")) for part in plan.parts[:2])
    first.write_bytes(first.read_bytes()[:-100])
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 1
    second.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"lacks 2 of \d+ parts: train/000000, train/000001"):
        finalise(plan)
    encode_parts(plan, plan.parts)
    assert write.finalise(plan).num_rows("train") > 0
