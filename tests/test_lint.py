"""What lint finds in handmade files: format, labels, lengths and duplicates, and nothing in clean files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemsdata.genome.vocab import reverse_complement
from gemsdata.lint import lint, shared_kmers
from gemsdata.lint.similar import is_shifted
from tests.genomes import random_dna
from tests.lint_support import changed, found, kmer_text, only, rows_of, write


def test_nothing_is_found_in_random_sequences(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.csv", rows_of(300, seed)) for seed, name in enumerate(("train", "dev", "test"))]
    assert lint(paths).findings == []


def test_kmer_text_and_bases_are_the_same_sequences(tmp_path: Path) -> None:
    rows = rows_of(20, 0)
    train = write(tmp_path / "train.csv", rows)
    test = write(tmp_path / "test.tsv", [(kmer_text(s), label) for s, label in rows], header="sequence\tlabel")
    assert only(train, test, code="duplicates-across").counts["sequences"] == 20
    assert only(train, test, code="k-mer-text").counts == {"plain_files": 1, "files": 2}


# format


def test_quotes_are_counted_with_the_tokens_that_they_break(tmp_path: Path) -> None:
    rows = rows_of(8, 0)
    text = [(f'"{kmer_text(sequence)}"', f'"{label}"') for sequence, label in rows]
    train = write(tmp_path / "train.tsv", text, header='"sequence"\t"label"')
    test = write(tmp_path / "test.tsv", [(kmer_text(s), label) for s, label in rows_of(8, 1)], header="sequence\tlabel")
    naive = sum('"' in word for line in train.read_text().splitlines()[1:] for word in line.split("\t")[0].split())
    quotes, mixed = found(train, test, code="quotes")
    assert quotes.counts == {"rows": 8, "tokens": 16} == {"rows": 8, "tokens": naive}
    assert mixed.counts == {"quoted_files": 1, "files": 2}
    assert lint([train]).sets[0].num_rows == {str(train): 8}
    plain = write(tmp_path / "plain.csv", [(f'"{sequence}"', label) for sequence, label in rows])
    assert only(plain, code="quotes").counts == {"rows": 8, "tokens": 16}


def test_a_quote_that_stays_open_is_an_error_and_swallows_nothing(tmp_path: Path) -> None:
    rows = rows_of(6, 0)
    path = write(tmp_path / "train.csv", [('"' + rows[0][0], 0), *rows[1:]])
    finding = found(path, code="quotes")[0]
    assert (finding.severity, finding.counts, finding.examples) == ("error", {"rows": 1}, (f"{path}:2",))
    assert lint([path]).sets[0].num_rows == {str(path): 6}


def test_other_letters_and_the_tokens_they_cost(tmp_path: Path) -> None:
    sequence = random_dna(40, 1)
    rows = [(sequence[:20] + "N" + sequence[21:], 0), ("R" + random_dna(39, 2), 1), (random_dna(40, 3), 0)]
    path = write(tmp_path / "train.csv", rows)
    letters = only(path, code="letters")
    assert (letters.counts, letters.examples) == ({"rows": 2, "letters": 2}, (f"{path}:2", f"{path}:3"))
    assert only(path, code="unknown-tokens").counts == {"rows": 2, "tokens": 6 + 1}
    assert only(path, code="unknown-tokens", k=3).counts == {"rows": 2, "tokens": 3 + 1}


def test_lower_case_and_short_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", [("ACGT", 0), (random_dna(30, 1).lower(), 1)])
    assert only(path, code="unknown-tokens").text == "1 row shorter than 6 bases, which have no token"
    assert only(path, code="letters").text.startswith("1 row with lower-case letters")


def test_words_that_are_no_kmers(tmp_path: Path) -> None:
    header = "sequence\tlabel"
    rows = [(kmer_text(random_dna(30, 1), 5), 0), ("ACGTAC TTTTTT", 1), (kmer_text(random_dna(30, 2), 5), 1)]
    path = write(tmp_path / "train.tsv", rows, header=header)
    broken, other = found(path, code="k-mer-text")
    assert (broken.severity, broken.counts, broken.examples) == ("error", {"rows": 1}, (f"{path}:3",))
    assert other.counts == {"rows": 2}
    assert len(found(path, code="k-mer-text", k=5)) == 1


def test_line_ends_marks_and_empty_lines(tmp_path: Path) -> None:
    a, b, c = (random_dna(30, seed) for seed in range(3))
    path = tmp_path / "train.csv"
    path.write_bytes(f"\ufeffsequence,label\r\n{a},0\r\n\r\n{b},1\r\n{c},0\r\n".encode())
    counts = [finding.counts for finding in found(path, code="encoding")]
    assert counts == [{"byte_order_marks": 1}, {"carriage_returns": 5}, {"empty_lines": 1}]
    report = lint([path])
    assert report.sets[0].num_rows == {str(path): 3}
    assert {finding.code for finding in report.findings} == {"encoding"}


def test_rows_without_a_label_or_a_sequence(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", [(random_dna(30, 1), ""), ("", 1), (random_dna(30, 2), 0)])
    path.write_text(path.read_text() + random_dna(30, 3) + "\n")  # a row of one cell
    assert [finding.counts for finding in found(path, code="labels")] == [{"rows": 1}, {"rows": 2}]
    assert {finding.severity for finding in found(path, code="labels")} == {"error"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{random_dna(30, 1)},0\n{random_dna(30, 2)},1\n", "no column sequence"),
        (f"sequence,y\n{random_dna(30, 1)},0\n", "no column label"),
        ("sequence,label\n", "no rows"),
    ],
)
def test_a_missing_header_column_or_row_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "train.csv").write_text(text)
    finding = only(tmp_path / "train.csv", code="columns")
    assert finding.severity == "error"
    assert message in finding.text


def test_rows_of_too_many_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", [*rows_of(3, 0), (random_dna(30, 1), "1,5")])
    finding = only(path, code="columns")
    assert (finding.severity, finding.counts, finding.examples) == ("error", {"rows": 1}, (f"{path}:5",))


def test_other_names_of_columns_are_read_and_reported(tmp_path: Path) -> None:
    train = write(tmp_path / "train.tsv", rows_of(4, 0), header="sequence\tlabel")
    test = write(tmp_path / "test.tsv", rows_of(6, 1), header="Seq\tclass")
    assert lint([train, test]).sets[0].num_rows == {str(test): 6, str(train): 4}
    assert only(train, test, code="columns").severity == "warning"


# labels and lengths


def test_balance(tmp_path: Path) -> None:
    rows = [(random_dna(30, i), int(i < 200) + int(i < 50)) for i in range(400)]
    finding = only(write(tmp_path / "train.csv", rows), code="balance")
    assert finding.counts == {"rows": 400, "classes": 3, "largest_share": 0.5, "smallest_share": 0.125}
    one_class = write(tmp_path / "test.csv", [(sequence, 1) for sequence, _ in rows])
    assert only(one_class, code="balance").text == "all 400 rows have the label 1"


@pytest.mark.parametrize("name", ["10/train.tsv", "x/train_silencer_10.tsv"])
@pytest.mark.parametrize(("num_rows", "runs"), [(20, None), (60, 3), (50, None)])
def test_pooled_runs(tmp_path: Path, name: str, num_rows: int, runs: int | None) -> None:
    path = write(tmp_path / name, rows_of(num_rows, 0), header="sequence\tlabel")
    assert [finding.counts["runs"] for finding in found(path, code="pooled-runs")] == [runs] * (runs is not None)


@pytest.mark.parametrize(("difference", "expected"), [(0, []), (6, ["note"]), (60, ["warning"])])
def test_length_shortcuts(tmp_path: Path, difference: int, expected: list[str]) -> None:
    """Lengths are uniform over 100 bases, those of class 1 shifted: a threshold is right for 50 % + half the shift."""
    rng = random.Random(1)
    rows = [(random_dna(100 + rng.randrange(100) + i % 2 * difference, i), i % 2) for i in range(6000)]
    findings = found(write(tmp_path / "train.csv", rows), code="length-shortcut")
    assert [finding.severity for finding in findings] == expected
    for finding in findings:
        assert finding.counts["accuracy"] == pytest.approx(0.5 + difference / 200, abs=0.02)
        assert finding.counts["low"] < finding.counts["accuracy"] < finding.counts["high"]


# duplicates


def planted(seed: int, num_copies: int, change) -> tuple[list, list]:
    """Rows of a training and a test file; the test file has changed copies of some rows, labels kept."""
    train, test = rows_of(40, seed), rows_of(30, seed + 1)
    return train, test + [(change(sequence), label) for sequence, label in train[:num_copies]]


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), num_copies=st.integers(0, 12))
def test_planted_copies_are_counted_exactly_in_any_order(tmp_path_factory, seed: int, num_copies: int) -> None:
    folder = tmp_path_factory.mktemp("copies")
    for code, key, change in (
        ("duplicates-across", "sequences", lambda sequence: sequence),
        ("reverse-complements", "pairs", reverse_complement),
        ("near-duplicates", "pairs", lambda sequence: changed(sequence, 5, 30)),
        ("near-duplicates", "pairs", lambda sequence: reverse_complement(changed(sequence, 50))),
        ("near-duplicates", "shifted", lambda sequence: sequence[20:] + reverse_complement(sequence[10:30])),
    ):
        train, test = planted(seed, num_copies, change)
        random.Random(seed).shuffle(test)
        random.Random(seed).shuffle(train)
        paths = [write(folder / "train.csv", train), write(folder / "test.csv", test)]
        findings = lint(paths).findings
        assert [(f.code, f.counts[key]) for f in findings] == [(code, num_copies)] * (num_copies > 0)
        assert lint(paths[::-1]).findings == findings


def test_duplicates_within_a_file_and_conflicting_labels(tmp_path: Path) -> None:
    train, test = rows_of(20, 0), rows_of(20, 1)
    train += [train[0], train[0], train[1], (train[2][0], 1 - train[2][1])]
    test += [(train[5][0], 1 - train[5][1])]
    paths = write(tmp_path / "train.csv", train), write(tmp_path / "test.csv", test)
    duplicates = only(*paths, code="duplicates")
    assert duplicates.counts == {"sequences": 3, "extra_rows": 4}
    assert f"{paths[0]}:2 = 22 = 23" in duplicates.examples
    conflicts = {finding.files: finding.counts["sequences"] for finding in found(*paths, code="conflicting-labels")}
    assert conflicts == {(str(paths[0]),): 1, (str(paths[1]), str(paths[0])): 1}
    assert only(*paths, code="duplicates-across").examples == (f"{paths[1]}:22 = {paths[0]}:7",)


def test_files_that_play_the_same_part_may_share_rows(tmp_path: Path) -> None:
    rows = rows_of(40, 0)
    paths = [write(tmp_path / "10" / "train.tsv", rows[:20]), write(tmp_path / "50" / "train.tsv", rows)]
    assert only(*paths, code="duplicates-across").severity == "note"


def test_low_complexity_makes_no_near_duplicates(tmp_path: Path) -> None:
    rows = [("CA" * length + random_dna(20, length), length % 2) for length in range(20, 40)]
    rows += [("A" * length + random_dna(20, length), length % 2) for length in range(40, 60)]
    assert not found(write(tmp_path / "train.csv", rows), code="near-duplicates")
    assert not found(write(tmp_path / "train.csv", rows), code="mutated-twins")


@pytest.mark.parametrize("num_bases", [60, 100, 300])
def test_positives_and_their_mutated_twins(tmp_path: Path, num_bases: int) -> None:
    """Negatives made as those of DeePromoter: of 20 chunks, 12 are replaced."""
    rng = random.Random(num_bases)
    positives = [random_dna(num_bases, i) for i in range(200)]
    negatives = []
    for i, sequence in enumerate(positives):
        size = num_bases // 20
        chunks = [sequence[at : at + size] for at in range(0, num_bases, size)]
        for at in rng.sample(range(20), 12):
            chunks[at] = random_dna(size, 1000 + 20 * i + at)
        negatives.append("".join(chunks))
    rows = [(sequence, 1) for sequence in positives] + [(sequence, 0) for sequence in negatives]
    finding = only(write(tmp_path / "train.csv", rows), code="mutated-twins")
    if num_bases == 300:
        assert finding.counts["pairs"] > 120
    assert finding.counts["pairs"] <= 200


def test_long_sequences_are_sketched_and_verified(tmp_path: Path) -> None:
    """One k-mer in 15 is looked at, yet what is found is exact: at half of the 12-mers, not below."""
    texts = [random_dna(1000, seed) for seed in range(40)]
    near = [text[:520] + random_dna(480, 100 + i) for i, text in enumerate(texts[:20])]
    less = [text[:480] + random_dna(520, 200 + i) for i, text in enumerate(texts[20:])]
    train = write(tmp_path / "train.csv", [(text, i % 2) for i, text in enumerate(texts)])
    test = write(tmp_path / "test.csv", [(text, i % 2) for i, text in enumerate(near + less)])
    assert only(train, test, code="near-duplicates").counts["pairs"] == 20


def test_what_is_too_much_to_compare_is_said(tmp_path: Path, monkeypatch) -> None:
    """A library of variants has its 12-mers in thousands of rows; here the limit is lowered instead."""
    parent = random_dna(60, 0)
    path = write(tmp_path / "train.csv", [(changed(parent, at), at % 2) for at in range(60)])
    assert only(path, code="near-duplicates").counts["pairs"] > 1000
    monkeypatch.setattr(shared_kmers, "_MOST_WORK", 10_000)
    (left_out,) = [finding.counts for finding in found(path, code="near-duplicates") if "pairs" not in finding.counts]
    assert left_out["kmers_left_out"] > 0


def test_shifted_windows() -> None:
    genome = random_dna(100, 0)
    assert is_shifted(genome[:60], genome[30:90])
    assert is_shifted(genome[:60], reverse_complement(genome[30:90]))
    assert is_shifted(genome[:80], genome[20:50])
    assert not is_shifted(genome[:60], changed(genome[30:90], 20))
    assert not is_shifted(genome[:50], genome[50:])
