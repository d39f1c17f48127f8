"""What `gemsdata eval compare` and `motifs` print with --json and --quiet; `gue` is in `test_gue`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from eval.compare import __main__ as compare
from eval.motifs import __main__ as motifs

pytestmark = pytest.mark.once

FOUND = pd.DataFrame({"model": ["a", "b"], "seed": [1, 1], "auroc": [0.75, float("nan")]})


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a study whose results are there already."""
    (tmp_path / "results.md").write_text("| model | auroc |")
    monkeypatch.setattr(compare, "load_study", lambda *arguments: SimpleNamespace(num_best=None))
    monkeypatch.setattr(compare, "compare", lambda study, config: FOUND)
    return ["study.py", "--shards", "x", "--data", "y", "--output-dir", str(tmp_path)]


def test_a_study_prints_its_runs_as_json_or_the_table(study: list[str], capsys: pytest.CaptureFixture) -> None:
    assert compare.main([*study, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows == [{"model": "a", "seed": 1, "auroc": 0.75}, {"model": "b", "seed": 1, "auroc": None}]
    assert compare.main([*study, "--quiet"]) == 0
    assert capsys.readouterr() == ("| model | auroc |\n", "")


def test_motifs_print_the_conclusion_as_json_or_as_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    silent = []

    def evaluated(config: object, *, silent: bool, given: list[bool] = silent) -> SimpleNamespace:
        given.append(silent)
        return SimpleNamespace(conclusion=SimpleNamespace(sentence="No."))

    monkeypatch.setattr(motifs, "evaluate", evaluated)
    monkeypatch.setattr(motifs, "as_json_of", lambda found: {"answer": "no", "z": float("inf")})
    words = ["--npmi", "x", "--motifs", "y", "--output-dir", str(tmp_path)]
    assert motifs.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"answer": "no", "z": None}
    assert motifs.main([*words, "--quiet"]) == 0
    assert capsys.readouterr() == ("No.\n", "")
    assert motifs.main(words) == 0
    assert capsys.readouterr().out == f"No.\n{tmp_path}: complete\n"
    assert silent == [False, True, False]
