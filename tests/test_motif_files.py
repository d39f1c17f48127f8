"""Files of motifs and rankings, and the error messages of eval.motifs."""

from __future__ import annotations

import numpy as np
import pytest

from eval.motifs.__main__ import main
from eval.motifs.enrichment import count_in_repeats, read_set
from eval.motifs.files import read_motifs
from eval.motifs.ranking import Pairs, pairs_of, read_ranking
from eval.motifs.statistics import compare_within_strata
from gemsdata.npmi.table import NpmiTable
from tests.genomes import random_dna, write_fasta
from tests.motif_support import (
    make_motifs,
    random_ranking,
    write_labelled,
    write_motifs,
    write_ranking,
)
from tests.stream_support import make_set

pytestmark = pytest.mark.once


def test_the_same_counts_in_each_layout_are_the_same_motif(tmp_path) -> None:
    counts = [[4, 16, 0, 0], [19, 0, 1, 0], [0, 20, 0, 0], [0, 0, 20, 0], [0, 0, 0, 20]]
    rows = "\n".join("\t".join(map(str, row)) for row in counts)
    columns = [" ".join(str(row[i]) for row in counts) for i in range(4)]
    texts = {
        "rows": f"# a comment\n>MA0004.1_MA0004.1.Arnt\n{rows}\n",
        "columns": ">MA0004.1 Arnt\n" + "\n".join(columns) + "\n",
        "jaspar": ">MA0004.1\tArnt\n" + "\n".join(f"{b}  [ {c} ]" for b, c in zip("ACGT", columns, strict=True)) + "\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (motif,) = read_motifs(tmp_path / name)
        assert motif.name == "MA0004.1 Arnt"
        assert motif.consensus == "CACGT"
        np.testing.assert_allclose(motif.probabilities[:, 0], [4.25 / 21, 16.25 / 21, 0.25 / 21, 0.25 / 21])


def test_meme_keeps_its_probabilities(tmp_path) -> None:
    path = tmp_path / "motifs.meme"
    path.write_text(
        "MEME version 4\n\nALPHABET= ACGT\n\nMOTIF MA0001.1 X\n"
        "letter-probability matrix: alength= 4 w= 2 nsites= 5 E= 0\n"
        "0.1 0.2 0.3 0.4\n0 0 1 0\n"
    )
    (motif,) = read_motifs(path)
    np.testing.assert_allclose(motif.probabilities, [[0.1, 0], [0.2, 0], [0.3, 1], [0.4, 0]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "contains no motif"),
        ("just text\n", "contains no motif"),
        (">a\n1 2 3\n4 5 6\n", "'a' is neither rows of four"),
        (">a\n1 2 3 x\n", "'a'.*could not convert"),
        (">a\n" + "1 2 3 4\n" * 4, "four by four"),
        (">a\n0 0 0 0\n1 1 1 1\n", "empty column"),
        (">a\n1 2 3 4\n1 2 3 4\n" * 2, "'a' occurs twice"),
    ],
)
def test_a_file_that_holds_no_motifs_is_refused(tmp_path, text, words) -> None:
    path = tmp_path / "motifs.pfm"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_motifs(path)


def test_a_table_and_its_csv_are_the_same_ranking(tmp_path) -> None:
    table = NpmiTable.from_fasta(write_fasta(tmp_path / "g.fa", {"c": random_dna(60_000, 3)}), max_k=4, min_count=5)
    table.to_parquet(tmp_path / "t.parquet")
    direct = read_ranking(tmp_path / "t.parquet")
    again = read_ranking(write_ranking(tmp_path / "t.csv", direct))
    assert direct.k == again.k == 4
    np.testing.assert_array_equal(direct.npmi, again.npmi)
    np.testing.assert_array_equal(direct.count, again.count)


def test_a_shard_set_and_its_table_are_the_same_ranking(tmp_path) -> None:
    folder = make_set(tmp_path / "set")
    of_set, of_table = read_ranking(folder), read_ranking(folder / "npmi.parquet", k=3)
    assert (of_set.name, of_set.k) == ("set", 3)
    np.testing.assert_array_equal(of_set.npmi, of_table.npmi)
    np.testing.assert_array_equal(of_set.npmi, NpmiTable.from_parquet(folder / "npmi.parquet").npmi(3))
    levine = NpmiTable.from_parquet(folder / "npmi.parquet", "levine").npmi(3)
    np.testing.assert_array_equal(read_ranking(folder, estimator="levine").npmi, levine)
    assert read_ranking(folder, k=2).k == 2


# Refusals


def refused(capsys, arguments: list[str]) -> str:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_bad_input_is_one_line_and_status_2(capsys, tmp_path) -> None:
    ranking = str(write_ranking(tmp_path / "r.csv", random_ranking(0, k=3)))
    motifs = str(write_motifs(tmp_path / "m.pfm", make_motifs(3)))
    usual = ["--npmi", ranking, "--motifs", motifs, "--output-dir", str(tmp_path / "out")]
    assert "--npmi" in refused(capsys, [])
    assert "3 motifs are too few" in refused(capsys, usual)
    assert "does not exist" in refused(capsys, [*usual, "--npmi", str(tmp_path / "none")])
    assert "not an NPMI table" in refused(capsys, [*usual, "--npmi", motifs])
    assert "no such file" in refused(capsys, [*usual, "--motifs", str(tmp_path / "none")])
    assert "contains no motif" in refused(capsys, [*usual, "--motifs", ranking])
    assert "--top 0" in refused(capsys, [*usual, "--top", "0"])
    assert "--fimo-p 2" in refused(capsys, [*usual, "--fimo-p", "2"])
    assert "omit --k" in refused(capsys, [*usual, "--k", "6"])
    assert "NAME=FILE" in refused(capsys, [*usual, "--labelled", "train.tsv"])
    (tmp_path / "short.csv").write_text("kmer,count\nACG,1\n")
    assert "lacks a column" in refused(capsys, [*usual, "--npmi", str(tmp_path / "short.csv")])
    (tmp_path / "twice.csv").write_text("kmer,count,npmi\nACG,1,1\nACG,1,1\n")
    assert "line 3" in refused(capsys, [*usual, "--npmi", str(tmp_path / "twice.csv")])


def test_a_genome_without_soft_masking_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="no lower-case bases"):
        count_in_repeats(write_fasta(tmp_path / "g.fa", {"c": random_dna(500, 1)}), pairs_of(random_ranking(0, k=3)))


def test_a_labelled_file_of_three_classes_is_refused(tmp_path) -> None:
    path = write_labelled(tmp_path / "t.tsv", [("ACGTACGT", str(i)) for i in range(3)])
    with pytest.raises(ValueError, match="has 3 classes"):
        read_set(f"three={path}")
    assert read_set(f"two={path}:2").positive.tolist() == [False, True]


def test_a_top_without_controls_is_refused() -> None:
    pairs: Pairs = pairs_of(random_ranking(0, k=3))
    with pytest.raises(ValueError, match="smaller --top"):
        compare_within_strata(pairs.npmi, pairs.rank <= 64, np.zeros(len(pairs)), draws=9, rng=np.random.default_rng(0))
