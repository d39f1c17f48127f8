"""gemsdata lint: which files are compared, the command, its output and its exit status."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gemsdata.cli import main
from gemsdata.lint import lint
from gemsdata.lint.grouping import file_sets, role_of
from tests.genomes import random_dna
from tests.lint_support import rows_of, write

pytestmark = pytest.mark.once

REPOSITORY = Path(__file__).parents[1]


# files and folders


def test_roles_are_read_from_names() -> None:
    names = {"train.csv": "train", "train_splice40_10.tsv": "train", "valid.tsv.gz": "dev", "test.tsv": "test"}
    assert {name: role_of(Path(name)) for name in names} == names
    assert role_of(Path("constraint.csv")) is None


def test_a_tree_is_grouped_by_task(tmp_path: Path) -> None:
    tree = {
        "gue/tf/0": ["gue/tf/0/dev.csv", "gue/tf/0/train.csv"],
        "gue/tf/1": ["gue/tf/1/test.csv", "gue/tf/1/train.csv"],
        "few/core": ["few/core/10/train.tsv", "few/core/50/train.tsv", "few/core/test.tsv"],
        "few/long": ["few/long/10/train.tsv", "few/long/100/train.tsv"],
        "few/enh": ["few/enh/10/train.tsv", "few/enh/stand_in/test.tsv"],
        "few/splice": ["few/splice/10/train.tsv", "few/splice/full/dev.tsv", "few/splice/test.tsv"],
        "one/a": ["one/a/train.csv"],
        "one/b": ["one/b/train.csv"],
    }
    for names in tree.values():
        for name in names:
            write(tmp_path / name, rows_of(2, 0))
    sets = {one.name: [str(path.relative_to(tmp_path)) for path in one.paths] for one in file_sets([tmp_path])}
    assert sets == {str(tmp_path / name): names for name, names in tree.items()}


def test_sets_are_compared_with_each_other_on_demand(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "train.csv", rows_of(10, 0) if name == "a" else rows_of(10, 1))
        write(tmp_path / name / "test.csv", rows_of(5, 2) if name == "a" else rows_of(10, 0))
    assert not lint([tmp_path]).findings
    report = lint([tmp_path], across="all")
    assert [finding.files for finding in report.findings if finding.severity == "error"] == [
        (str(tmp_path / "a" / "train.csv"), str(tmp_path / "b" / "test.csv"))
    ]


# the command


def test_the_command_and_its_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(20, 0)
    train, clean = write(tmp_path / "train.csv", rows), write(tmp_path / "dev.csv", rows_of(20, 1))
    leaky = write(tmp_path / "test.csv", rows_of(20, 2) + rows[:3] + rows[:1])
    assert main(["lint", str(train), str(clean)]) == 0
    assert "no findings" in capsys.readouterr().out
    assert main(["lint", str(train), str(leaky)]) == 1
    out = capsys.readouterr().out
    assert "error   duplicates-across   test.csv, train.csv" in out
    assert "3 sequences in both files (4 and 3 rows)" in out
    assert "e.g. test.csv:22 = train.csv:2" in " ".join(out.split())
    assert out.endswith("\n1 error, 1 warning, 0 notes\n")


def test_warnings_alone_leave_the_exit_status_0(tmp_path: Path) -> None:
    assert main(["lint", str(write(tmp_path / "train.csv", [(s, 1) for s, _ in rows_of(5, 0)]))]) == 0


def test_json_through_the_real_entries(tmp_path: Path) -> None:
    rows = rows_of(20, 0)
    with gzip.open(tmp_path / "train.tsv.gz", "wt") as stream:
        stream.write("sequence\tlabel\n" + "".join(f"{sequence}\t{label}\n" for sequence, label in rows))
    write(tmp_path / "test.tsv", rows[:4], header="sequence\tlabel")
    outputs = []
    for module in (["gemsdata.cli", "lint"], ["eval.lint"]):
        command = [sys.executable, "-m", *module, str(tmp_path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        assert (done.returncode, done.stderr) == (1, "")
        outputs.append(json.loads(done.stdout))
    assert outputs[0] == outputs[1]
    assert outputs[0]["summary"] == {"error": 1, "warning": 0, "note": 0}
    (finding,) = outputs[0]["sets"][0]["findings"]
    assert finding["code"] == "duplicates-across"
    assert finding["counts"] == {"sequences": 4, "rows_in_first": 4, "rows_in_second": 4}
    assert set(finding) == {"code", "severity", "files", "counts", "text", "advice", "examples"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b""), "is empty; its first line must name the columns"),
        (lambda path: path.write_bytes(b"\nACGT,0\n"), "begins with an empty line"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00\x01"), "is not UTF-8 text"),
        (lambda path: path.mkdir(), "contains no .tsv"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_status_2(tmp_path, capsys, make, message: str) -> None:
    make(tmp_path / "x.csv")
    assert main(["lint", str(tmp_path / "x.csv")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.csv.gz"
    path.write_bytes(gzip.compress(b"sequence,label\n" + random_dna(5000, 0).encode())[:-400])
    with pytest.raises(ValueError, match=r"train\.csv\.gz is truncated or damaged"):
        lint([path])


@pytest.mark.parametrize("options", [{"k": 0}, {"k": 13}, {"across": "some"}])
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict) -> None:
    with pytest.raises(ValueError, match=r"out of range|unknown"):
        lint([write(tmp_path / "train.csv", rows_of(2, 0))], **options)


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path, monkeypatch, capsys) -> None:
    from gemsdata.lint import run

    monkeypatch.setattr(run, "_NEEDED", {"no_such_module": "sourmash"})
    assert main(["lint", str(write(tmp_path / "train.csv", rows_of(2, 0)))]) == 2
    wanted = "error: gemsdata lint needs sourmash; install it with: pip install 'gemsdata[lint]'\n"
    assert capsys.readouterr().err == wanted


def test_lint_works_without_torch(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows_of(20, 0))
    code = f"import sys\nfrom gemsdata.lint import lint\nlint([{str(tmp_path)!r}])\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=REPOSITORY)
