"""Portions of files with an index, read by tasks of their own: the genome and the counts of one pass."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gemsdata.genome.packed import GenomeReport, read_contigs
from gemsdata.genome.stretches import portions_of, read_portion
from gemsdata.shards import parallel_reading, scored_genome
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import plan_only
from tests.genomes import awkward_genome, random_dna, write_fasta, write_twobit
from tests.test_engines import contents

pysam = pytest.importorskip("pysam")


def genome_with_borders() -> dict[str, str]:
    """Contigs whose gaps, soft-masked bases, letters and U lie across the borders of stretches."""
    contigs = {name: letters for name, letters in awkward_genome().items() if letters}  # samtools indexes no empty one
    contigs["across"] = "ACGT" * 10 + "N" * 300 + "acgtnnRR" * 40 + random_dna(333, 9, "ACGTN") + "acg"
    contigs["rna"] = random_dna(500, 10, "ACGU")
    return contigs


def indexed(folder: Path, kind: str) -> str:
    """Write the genome as a file of a kind with its index."""
    contigs = genome_with_borders()
    if kind == "2bit":
        del contigs["rna"], contigs["iupac"], contigs["across"]
        contigs["across"] = random_dna(900, 11, "ACGTacgtNn")
        return str(write_twobit(folder / "g.2bit", contigs))
    path = write_fasta(folder / "g.fa", contigs, newline="\r\n" if kind == "crlf" else "\n")
    if kind == "one line":
        path = write_fasta(folder / "g.fa", contigs, line_bases=10**6)
    if kind == "bgzip":
        pysam.tabix_compress(str(path), f"{path}.gz")
        path = Path(f"{path}.gz")
    pysam.faidx(str(path))
    return str(path)


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize(
    ("kind", "size", "exclude"),
    [
        ("fai", 400, True),
        ("fai", 1500, False),
        ("crlf", 600, True),
        ("one line", 600, False),
        ("bgzip", 600, True),
        ("2bit", 600, True),
    ],
)
def test_a_plan_by_portions_is_that_of_the_whole_file(tmp_path, monkeypatch, kind, size, exclude):
    monkeypatch.setattr(scored_genome, "_COUNTED_K", 4)  # saves time
    path = indexed(tmp_path, kind)
    other = str(write_fasta(tmp_path / "other.fa", {"other": random_dna(100, 1)}))
    options = ShardOptions(k=3, row_tokens=8, min_count=1, exclude_soft_masked=exclude)
    plan_only([path, other], tmp_path / "whole", options)
    monkeypatch.setattr(parallel_reading, "PORTION_BASES", size)
    assert len(portions_of(path, size)) > 4
    with ThreadPoolExecutor(2) as pool:
        plan_only([path, other], tmp_path / "cut", options, executor=pool)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.once
@pytest.mark.parametrize("kind", ["fai", "bgzip"])
def test_an_index_that_does_not_fit_is_not_used_or_is_an_error(tmp_path, kind):
    path = indexed(tmp_path, kind)
    index = Path(f"{path}.fai")
    right = index.read_text()

    def read() -> None:
        for portion in portions_of(path, 500):
            list(read_portion(portion, 9))

    read()
    lines = right.splitlines(keepends=True)
    wrong = {
        "a contig less": "".join(lines[1:]),
        "the last contig less": "".join(lines[:-1]),
        "another name": right.replace("short", "shirt"),
        "another length": right.replace("\t1700\t", "\t1690\t"),
        "another line": right.replace("\t60\t61", "\t59\t60"),
    }
    for what, text in wrong.items():
        assert text != right, what
        index.write_text(text)
        with pytest.raises(ValueError, match=r"\.fai does not match the file at contig .*make it again with `samtools"):
            read()
    index.write_text("nonsense\n")
    assert portions_of(path, 500) is None
    index.write_text(right)
    os.utime(index, (1, 1))  # older than the file
    assert portions_of(path, 500) is None
    os.utime(index)
    assert portions_of(path, 10**6) is None  # not worth it
    portions = portions_of(path, 500)
    os.utime(path, (5, 5))
    with pytest.raises(ValueError, match="was changed while it was read"):
        list(read_portion(portions[0], 9))


def test_a_file_that_its_index_does_not_fit_is_read_from_the_beginning(tmp_path, monkeypatch):
    monkeypatch.setattr(scored_genome, "_COUNTED_K", 4)
    path = str(write_fasta(tmp_path / "g.fa", awkward_genome()))
    pysam.faidx(path)  # without the empty contig
    plan_only([path], tmp_path / "whole", ShardOptions(k=3, row_tokens=8, min_count=1))
    monkeypatch.setattr(parallel_reading, "PORTION_BASES", 1500)
    with ThreadPoolExecutor(2) as pool:
        plan_only([path], tmp_path / "cut", ShardOptions(k=3, row_tokens=8, min_count=1), executor=pool)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.once
def test_what_is_no_dna_is_an_error_of_its_contig(tmp_path):
    path = write_fasta(tmp_path / "g.fa", {"dna": random_dna(500, 1), "protein": "MEEPQSDPSV" * 60})
    pysam.faidx(str(path))
    with ThreadPoolExecutor(2) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel_reading, "PORTION_BASES", 100)
        with pytest.raises(ValueError, match=r"record protein holds \d+ x \w, which is no IUPAC nucleotide"):
            plan_only([str(path)], tmp_path / "set", executor=pool)


@pytest.mark.once
def test_stretches_cover_each_base_once(tmp_path):
    path = indexed(tmp_path, "bgzip")
    letters: dict[str, list[np.ndarray]] = {}
    for portion in portions_of(path, 100):
        for stretch, around, left in read_portion(portion, 11):
            letters.setdefault(stretch.name, []).append(around[left : left + stretch.end - stretch.start])
    assert [(name, sum(part.size for part in parts)) for name, parts in letters.items()] == [
        (contig.name, contig.num_bases) for contig in read_contigs([path], GenomeReport())
    ]
    assert b"".join(part.tobytes() for part in letters["across"]).decode() == genome_with_borders()["across"]
