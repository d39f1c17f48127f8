"""gemsdata lint finds the known traps of the public few-shot and GUE sets, with their exact figures."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from gemsdata.lint import Report, lint

pytestmark = [pytest.mark.once, pytest.mark.timeout(120)]


@functools.cache
def report_of(*paths: Path) -> Report:
    return lint(paths)


def counts(report: Report, code: str, *endings: str) -> dict:
    """The counts of the one finding of a code about just these files, given by the ends of their paths."""
    (finding,) = [
        finding
        for finding in report.findings
        if finding.code == code
        and len(finding.files) == len(endings)
        and all(any(file.endswith(ending) for file in finding.files) for ending in endings)
    ]
    return finding.counts


def codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings}


@pytest.mark.parametrize(
    ("name", "num_quoted", "num_files"),
    [("Prom-core", 5, 6), ("Prom-300", 5, 5), ("Cohn-enh", 4, 5), ("Splice-40", 4, 7), ("Silencer", 1, 2)],
)
def test_few_shot_training_files_are_quoted_and_test_files_are_not(data_dir, name, num_quoted, num_files):
    report = report_of(data_dir / "fewshot" / name)
    quoted = [finding for finding in report.findings if finding.code == "quotes" and "rows" in finding.counts]
    assert len(quoted) == num_quoted
    for finding in quoted:
        num_rows = report.sets[0].num_rows[finding.files[0]]
        assert "train" in finding.files[0]
        assert finding.counts == {"rows": num_rows, "tokens": 2 * num_rows}
    mixed = [finding.counts for finding in report.findings if finding.code == "quotes" and "files" in finding.counts]
    assert mixed == [{"quoted_files": num_quoted, "files": num_files}] * (num_quoted < num_files)
    assert len(report.sets) == 1


def test_splice_40_and_silencer_pool_ten_runs(data_dir):
    pooled = {}
    for name in ("Splice-40", "Silencer", "Prom-core", "Prom-300", "Cohn-enh"):
        report = report_of(data_dir / "fewshot" / name)
        pooled[name] = sorted(
            (finding.counts["shots"], finding.counts["rows_per_class"], finding.counts["runs"])
            for finding in report.findings
            if finding.code == "pooled-runs"
        )
    assert pooled == {
        "Splice-40": [(shots, 10 * shots, 10) for shots in (10, 50, 100, 500)],
        "Silencer": [(10, 100, 10)],
        "Prom-core": [],
        "Prom-300": [],
        "Cohn-enh": [],
    }


def test_splice_40_shares_its_splits(data_dir):
    report = report_of(data_dir / "fewshot" / "Splice-40")
    dev_and_test = counts(report, "duplicates-across", "full-dataset/dev.tsv", "full-dataset/test.tsv")
    assert dev_and_test == {"sequences": 2699, "rows_in_first": 2700, "rows_in_second": 2700}
    assert counts(report, "duplicates-across", "500.tsv", "Splice-40/test.tsv")["sequences"] == 8


def test_prom_core_shares_a_row_with_its_test_file(data_dir):
    report = report_of(data_dir / "fewshot" / "Prom-core")
    assert counts(report, "duplicates-across", "1000/train.tsv", "test.tsv")["sequences"] == 1


def test_prom_300_shares_229_rows_with_gue(data_dir):
    gue = data_dir / "gue" / "prom" / "prom_300_all"
    report = report_of(data_dir / "fewshot" / "Prom-300" / "1000" / "train.tsv", gue / "dev.csv", gue / "test.csv")
    assert counts(report, "duplicates-across", "train.tsv", "dev.csv")["rows_in_second"] == 113
    assert counts(report, "duplicates-across", "train.tsv", "test.csv")["rows_in_second"] == 229 - 113


def test_silencer_splits_positives_from_their_twins(data_dir):
    report = report_of(data_dir / "fewshot" / "Silencer")
    assert counts(report, "mutated-twins", "dev.tsv")["pairs"] == 76
    assert counts(report, "mutated-twins", "train.tsv")["pairs"] == 4
    assert counts(report, "mutated-twins", "dev.tsv", "train.tsv")["pairs"] == 21
    assert counts(report, "duplicates-across", "dev.tsv", "train.tsv")["sequences"] == 1
    assert "length-shortcut" not in codes(report)


def test_cohn_enh_names_a_column_otherwise(data_dir):
    report = report_of(data_dir / "fewshot" / "Cohn-enh")
    assert counts(report, "columns", "test_standin/test.tsv") == {"files": 1}
    assert counts(report, "k-mer-text", "test_standin/test.tsv") == {"plain_files": 1, "files": 5}
    assert not [finding for finding in report.findings if finding.severity == "error"]


def test_gue_tf_4_shares_dev_and_train(data_dir):
    report = report_of(*sorted((data_dir / "gue" / "tf" / "4").iterdir()))
    across = counts(report, "duplicates-across", "dev.csv", "train.csv")
    assert across == {"sequences": 346, "rows_in_first": 358, "rows_in_second": 512}
    assert counts(report, "duplicates", "train.csv") == {"sequences": 2753, "extra_rows": 3789}


@pytest.mark.slow
def test_gue_prom_core_all_shares_rows_and_splits_twins(data_dir):
    report = report_of(data_dir / "gue" / "prom" / "prom_core_all")
    shared = {
        pair: counts(report, "duplicates-across", *pair)["sequences"]
        for pair in (("test.csv", "train.csv"), ("dev.csv", "train.csv"), ("dev.csv", "test.csv"))
    }
    assert shared == {("test.csv", "train.csv"): 42, ("dev.csv", "train.csv"): 54, ("dev.csv", "test.csv"): 8}
    assert counts(report, "conflicting-labels", "train.csv") == {"sequences": 40}
    assert counts(report, "mutated-twins", "test.csv", "train.csv")["pairs"] == 1831


def test_gue_splice_is_unbalanced_and_shares_rows(data_dir):
    report = report_of(data_dir / "gue" / "splice")
    assert counts(report, "duplicates-across", "dev.csv", "test.csv")["sequences"] == 30
    assert counts(report, "balance", "dev.csv")["largest_share"] == 0.5642
    assert counts(report, "balance", "test.csv")["largest_share"] == 0.5658
    assert counts(report, "near-duplicates", "dev.csv", "test.csv")["shifted"] == 1151


def test_gue_prom_300_all_has_a_row_with_n(data_dir):
    report = report_of(data_dir / "gue" / "prom" / "prom_300_all")
    assert counts(report, "letters", "dev.csv") == {"rows": 1, "letters": 1}
    assert counts(report, "unknown-tokens", "dev.csv") == {"rows": 1, "tokens": 6}


@pytest.mark.parametrize("task", ["mouse/0", "EMP/H3"])
def test_gue_windows_overlap_across_splits_where_nothing_is_the_same(data_dir, task):
    report = report_of(data_dir / "gue" / task)
    assert codes(report) == {"near-duplicates"}
