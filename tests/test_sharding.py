"""Shard sets: the same bytes whoever writes them and in any order, and what a resumed run does."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gemsdata.shards.manifest import Manifest
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.verify.shard_set import verify
from gemsdata.shards.write import encode_part, finalise, open_plan, plan_only, shard
from tests.genomes import awkward_genome, random_dna, write_fasta

SMALL = ShardOptions(format="both", k=3, row_tokens=40, block_rows=4, rows_per_shard=8, valid_fraction=0.1, min_count=2)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_fasta(tmp_path_factory.mktemp("fasta") / "tiny.fa", awkward_genome()))


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_workers_do_not_change_a_byte(tmp_path: Path, fasta: str) -> None:
    for workers in (0, 1, 3):
        shard([fasta], tmp_path / str(workers), SMALL, workers=workers)
    assert hashes(tmp_path / "0") == hashes(tmp_path / "1") == hashes(tmp_path / "3")
    assert len(hashes(tmp_path / "0")) > 10


def test_parts_may_be_encoded_in_any_order(tmp_path: Path, fasta: str) -> None:
    shard([fasta], tmp_path / "straight", SMALL)
    plan_only([fasta], tmp_path / "mixed", SMALL)
    parts = open_plan(tmp_path / "mixed").parts
    random.Random(1).shuffle(parts)
    for part in parts:
        encode_part(open_plan(tmp_path / "mixed"), part)  # as another machine would
    finalise(open_plan(tmp_path / "mixed"))
    assert hashes(tmp_path / "mixed") == hashes(tmp_path / "straight")


def test_finalise_names_the_missing_parts(tmp_path: Path, fasta: str) -> None:
    plan = plan_only([fasta], tmp_path / "out", SMALL)
    for part in plan.parts:
        if part.name not in ("train/000002", "valid/000000"):
            encode_part(plan, part)
    with pytest.raises(ValueError, match=r"lacks 2 of .* train/000002, valid/000000; encode them"):
        finalise(plan)
    assert not (tmp_path / "out" / "_index.json").exists()


def test_golden_hash_of_a_tiny_genome(tmp_path: Path) -> None:
    """A change of these values is a change of the format: raise its version."""
    contigs = {"one": random_dna(5000, 1) + "NNN" + random_dna(500, 2).lower(), "two": random_dna(900, 3)}
    fasta = write_fasta(tmp_path / "golden.fa", contigs)
    manifest, _ = shard([str(fasta)], tmp_path / "out", ShardOptions(format="both", k=4, row_tokens=100, min_count=5))
    assert manifest.fingerprint == "04fdec5e3dbf9dea093a1946b6cb4ea92022432af7014038c7396d9c15b0117b"
    digests = hashes(tmp_path / "out")
    assert digests["train/000000.tar"] == "4e8eda1d072103ff7128fab232f48a363de41e3d2d19bcc06080add5147fb2e3"
    if pa.__version__.split(".")[0] == "26":  # another Arrow may lay out its metadata in another way
        assert digests["train/000000.arrow"] == "5056bcaa1f10b2c074b26c3b7d14dd5ecee8da78191d75de2c5542608101b501"


def test_format_compression_and_file_name_do_not_change_the_fingerprint(tmp_path: Path, fasta: str) -> None:
    renamed = tmp_path / "other name.fa"
    renamed.write_bytes(Path(fasta).read_bytes().replace(b"\n", b"\r\n"))
    one, _ = shard([fasta], tmp_path / "one", SMALL)
    two, _ = shard([str(renamed)], tmp_path / "two", dataclasses.replace(SMALL, format="arrow", compression="zstd"))
    assert one.fingerprint == two.fingerprint
    other, _ = shard([fasta], tmp_path / "three", dataclasses.replace(SMALL, seed=1))
    assert other.fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("k", "scheme"), [(1, "fixed"), (2, "dnabert"), (6, "fixed"), (7, "dnabert"), (8, "fixed"), (9, "dnabert")]
)
def test_every_k_and_scheme_verifies(tmp_path: Path, fasta: str, k: int, scheme: str) -> None:
    options = dataclasses.replace(SMALL, k=k, scheme=scheme, rank_column=True, seed=5)
    manifest, _ = shard([fasta], tmp_path / "out", options)
    assert manifest.token_dtype == ("uint16" if k < 8 else "uint32")
    assert verify(tmp_path / "out", [fasta]).num_rows == manifest.num_rows("train") + manifest.num_rows("valid")


def test_the_tokens_of_all_rows_are_the_counts(tmp_path: Path, fasta: str) -> None:
    """With fixed windows each k-mer of the genome is a token of exactly one row, but for those that span two splits."""
    shard([fasta], tmp_path / "out", dataclasses.replace(SMALL, valid_fraction=0.0))
    shards = ShardSet.open(tmp_path / "out")
    rows = shards.read("train", np.arange(shards.num_rows("train")))
    tokens = np.bincount(rows.input_ids.ravel(), minlength=4**3 + 5)[5:]
    assert np.array_equal(tokens, shards.npmi.counts[3])


def test_both_formats_read_alike_and_in_any_order(tmp_path: Path, fasta: str) -> None:
    shard([fasta], tmp_path / "arrow", dataclasses.replace(SMALL, format="arrow", compression="zstd"))
    shard([fasta], tmp_path / "tar", dataclasses.replace(SMALL, format="webdataset"))
    sets = [ShardSet.open(tmp_path / name) for name in ("arrow", "tar")]
    num_rows = sets[0].num_rows("train")
    wanted = np.random.default_rng(0).integers(0, num_rows, 3 * num_rows)
    one, two = (each.read("train", wanted) for each in sets)
    straight = sets[0].read("train", np.arange(num_rows))
    for name in ("input_ids", "num_tokens", "contig", "start"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
        assert np.array_equal(getattr(one, name), getattr(straight, name)[wanted])
    with pytest.raises(IndexError, match="which has"):
        sets[0].read("train", np.array([num_rows]))


def test_soft_masked_bases_are_those_of_the_fasta(tmp_path: Path, fasta: str) -> None:
    shard([fasta], tmp_path / "out", SMALL)
    shards = ShardSet.open(tmp_path / "out")
    for contig, sequence in enumerate(awkward_genome().values()):
        for start, end in ((0, len(sequence)), (len(sequence) // 3, len(sequence) // 2)):
            expected = [letter.islower() for letter in sequence[start:end]]
            assert shards.soft_masked(contig, start, end).tolist() == expected


def test_ranks_may_come_from_another_genome(tmp_path: Path, fasta: str) -> None:
    other = write_fasta(tmp_path / "other.fa", {"x": random_dna(20_000, 9)})
    shard([str(other)], tmp_path / "other", SMALL)
    table = tmp_path / "other" / "npmi.parquet"
    shard([fasta], tmp_path / "out", dataclasses.replace(SMALL, npmi=str(table), min_count=101))
    assert np.array_equal(ShardSet.open(tmp_path / "out").ranks, ShardSet.open(tmp_path / "other").ranks)
    assert Manifest.load(tmp_path / "out").npmi.estimator == "published"
    shard([fasta], tmp_path / "levine", dataclasses.replace(SMALL, npmi=str(table), estimator="levine", min_count=101))
    assert ShardSet.open(tmp_path / "levine").npmi.estimator == "levine"
    assert "another genome's" in "".join(verify(tmp_path / "out", [fasta]).checks)


def test_validation_contigs_are_held_out_whole(tmp_path: Path, fasta: str) -> None:
    shard([fasta], tmp_path / "out", dataclasses.replace(SMALL, valid_contigs=("last",)))
    shards = ShardSet.open(tmp_path / "out")
    for split, contigs in (("valid", {5}), ("train", {0, 1, 3})):
        rows = shards.read(split, np.arange(shards.num_rows(split)))
        assert set(rows.contig.tolist()) == contigs


def test_resume_keeps_the_finished_parts(tmp_path: Path, fasta: str) -> None:
    shard([fasta], tmp_path / "whole", SMALL)
    out = tmp_path / "out"
    plan = plan_only([fasta], out, SMALL)
    for part in plan.parts[:5]:
        encode_part(plan, part)
    kept = plan.part_file(f"{plan.parts[0].name}.arrow")
    inode = kept.stat().st_ino
    damaged = plan.part_file(f"{plan.parts[1].name}.tar")
    damaged.write_bytes(damaged.read_bytes()[:-512] + bytes([1]) * 512)
    shard([fasta], out, SMALL, resume=True)
    assert (out / f"{plan.parts[0].name}.arrow").stat().st_ino == inode  # not written again
    assert hashes(out) == hashes(tmp_path / "whole")
    manifest, summary = shard([fasta], out, SMALL, resume=True)
    assert "complete before" in summary["notes"][0]
    assert manifest == Manifest.load(out)


def test_resume_refuses_other_options_or_input(tmp_path: Path, fasta: str) -> None:
    out = tmp_path / "out"
    plan_only([fasta], out, SMALL)
    with pytest.raises(ValueError, match="begun with seed = 0, not 1"):
        shard([fasta], out, dataclasses.replace(SMALL, seed=1), resume=True)
    with pytest.raises(ValueError, match="other input files, or these have changed"):
        shard([str(write_fasta(tmp_path / "b.fa", {"a": "ACGT" * 90}))], out, SMALL, resume=True)
    shard([fasta], out, SMALL, resume=True)
    with pytest.raises(ValueError, match="is complete and was made with seed = 0, not 1"):
        shard([fasta], out, dataclasses.replace(SMALL, seed=1), resume=True)


def test_a_folder_is_never_lost_by_mistake(tmp_path: Path, fasta: str) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="does not belong to a shard set"):
            shard([fasta], tmp_path / "thesis", SMALL, overwrite=overwrite)
    shard([fasta], tmp_path / "out", SMALL)
    with pytest.raises(ValueError, match=r"already holds a shard set \(complete\); pass --overwrite"):
        shard([fasta], tmp_path / "out", SMALL)
    shard([fasta], tmp_path / "out", dataclasses.replace(SMALL, seed=3), overwrite=True)
    assert Manifest.load(tmp_path / "out").seed == 3
    with pytest.raises(ValueError, match="is a file"):
        shard([fasta], tmp_path / "thesis" / "chapter1.tex", SMALL)


def test_a_failed_plan_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no training row"):
        shard([str(write_fasta(tmp_path / "g.fa", {"a": "ACG", "b": "AC"}))], tmp_path / "out", ShardOptions(k=6))
    assert not (tmp_path / "out").exists()


def test_an_unfinished_set_is_named_as_such(tmp_path: Path, fasta: str) -> None:
    plan_only([fasta], tmp_path / "out", SMALL)
    with pytest.raises(FileNotFoundError, match="holds an unfinished shard set"):
        Manifest.load(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="is not a shard set"):
        Manifest.load(tmp_path)


def test_a_newer_or_edited_manifest_is_refused(tmp_path: Path, fasta: str) -> None:
    shard([fasta], tmp_path / "out", SMALL)
    index = tmp_path / "out" / "_index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps({**content, "version": 7}))
    with pytest.raises(ValueError, match="has format version 7; this gemsdata reads up to 5"):
        Manifest.load(tmp_path / "out")
    index.write_text(json.dumps({**content, "seed": 7}))
    with pytest.raises(ValueError, match="its manifest_sha256 does not follow"):
        Manifest.load(tmp_path / "out")
    index.write_text("{}")
    with pytest.raises(ValueError, match="is not the manifest"):
        Manifest.load(tmp_path / "out")
    index.write_text(json.dumps({**content, "a_later_field": 1}))
    with pytest.raises(ValueError, match="the manifest has the unknown field 'a_later_field'"):
        Manifest.load(tmp_path / "out")


def test_a_small_set_still_has_shards_for_its_workers(tmp_path: Path) -> None:
    fasta = write_fasta(tmp_path / "g.fa", {"a": random_dna(165_000, 1)})
    manifest, _ = shard([str(fasta)], tmp_path / "out", ShardOptions(k=3, row_tokens=10))
    assert len(manifest.shards("train")) == 8


def test_options_are_checked_with_what_was_given() -> None:
    for bad, message in (
        ({"k": 0}, "k = 0 is out of range"),
        ({"k": 13}, "k = 13 is out of range"),
        ({"row_tokens": 0}, "row-tokens = 0"),
        ({"valid_fraction": 1.0}, "valid-fraction = 1.0"),
        ({"rows_per_shard": 1000}, "rows-per-shard = 1000; a multiple of block-rows = 1024"),
        ({"scheme": "random"}, "windows 'random' is unknown; choose one of fixed, dnabert"),
        ({"seed": -1}, "seed = -1"),
        ({"npmi": "t.parquet", "canonical": True}, "already has counts"),
    ):
        with pytest.raises(ValueError, match=message):
            ShardOptions(**bad)


@pytest.mark.once
@pytest.mark.parametrize(
    ("file_format", "row_tokens", "block_rows", "most"), [("arrow", 510, 1024, 32_768), ("packed", 32_768, 128, 2048)]
)
def test_a_split_has_at_most_100_000_shards(file_format, row_tokens, block_rows, most):
    options = ShardOptions(format=file_format)
    for num_rows, size in ((1, block_rows), (most * 100_000, most), (most * 100_000 + 1, most + block_rows)):
        assert options.num_rows_of_shard(num_rows, block_rows, row_tokens) == size
    huge = options.num_rows_of_shard(10**12 + 7, block_rows, row_tokens)
    assert huge % block_rows == 0
    assert huge * 99_900 < 10**12 + 7 <= huge * 100_000
