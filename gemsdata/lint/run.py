"""Run all checks on files and folders of labelled DNA."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemsdata.files.progress import Progress, no_progress
from gemsdata.genome.vocab import check_k
from gemsdata.lint.duplicates import check_duplicates
from gemsdata.lint.finding import ADVICE, SEVERITIES, Finding
from gemsdata.lint.format import check_format, check_uniformity
from gemsdata.lint.grouping import file_sets
from gemsdata.lint.labelled_file import LabelledFile, read_file
from gemsdata.lint.labels import check_labels
from gemsdata.lint.length import check_length
from gemsdata.lint.sequences import Sequences
from gemsdata.lint.similar import check_similar

ACROSS = ("group", "all")
"""compare files within each set, or also across sets"""

_NEEDED = {"sourmash": "sourmash", "sklearn": "scikit-learn", "scipy": "scipy"}


@dataclass(frozen=True, kw_only=True)
class SetReport:
    """The findings about one set of files, worst first."""

    name: str
    num_rows: dict[str, int]
    """number of usable rows by path"""
    findings: list[Finding]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The findings about all sets."""

    k: int
    sets: list[SetReport]

    @property
    def findings(self) -> list[Finding]:
        """The findings of all sets."""
        return [finding for one in self.sets for finding in one.findings]

    def num(self, severity: str) -> int:
        """Return the number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def as_dict(self) -> dict[str, object]:
        """Return the report as a JSON-serialisable dict."""
        return {
            "k": self.k,
            "summary": {severity: self.num(severity) for severity in SEVERITIES},
            "sets": [
                {
                    "name": one.name,
                    "rows": one.num_rows,
                    "findings": [finding.as_dict() for finding in one.findings],
                }
                for one in self.sets
            ],
        }


def lint(paths: Iterable[str | Path], *, k: int = 6, across: str = "group", progress: Progress = no_progress) -> Report:
    """Check labelled TSV and CSV files, or folders of them, and return the findings.

    Parameters
    ----------
    k
        bases per token, 1..12.
    across
        "group" compares the files within each set, "all" also files of different sets.

    Raises
    ------
    FileNotFoundError, ValueError
        for a path that does not exist, a file that is not text, an unknown option.
    ImportError
        without sourmash, scikit-learn and scipy.
    """
    check_k(k)
    if across not in ACROSS:
        raise ValueError(f"across = {across!r} is unknown: use {' or '.join(ACROSS)}")
    _check_extra()
    sets = file_sets([Path(path) for path in paths])
    if not sets:
        raise ValueError("nothing to lint: give TSV or CSV files, or folders of them")
    num_files = sum(len(one.paths) for one in sets)
    reports: list[SetReport] = []
    files: list[LabelledFile] = []
    set_numbers: list[int] = []
    for number, one in enumerate(sets):
        members = [read_file(path) for path in one.paths]
        reports.append(_report(one.name, members, _check_set(members, k)))
        if across == "all":
            files += members
            set_numbers += [number] * len(members)
        progress("linting", len(members), num_files)
    if across == "all" and len(sets) > 1:
        reports.append(_report("across sets", files, _check_across(files, set_numbers), with_rows=False))
    return Report(k=k, sets=reports)


def _check_set(files: Sequence[LabelledFile], k: int) -> Iterator[Finding]:
    for file in files:
        yield from check_format(file, k)
        yield from check_labels(file)
        yield from check_length(file)
    yield from check_uniformity(files)
    file_pairs = list(itertools.combinations_with_replacement(range(len(files)), 2))
    sequences = Sequences.of(files)
    yield from check_duplicates(sequences, file_pairs, compare_labels=True)
    yield from check_similar(sequences, file_pairs, compare_labels=True)


def _check_across(files: Sequence[LabelledFile], set_numbers: Sequence[int]) -> Iterator[Finding]:
    """Compare files of different sets, whose labels are unrelated."""
    pairs = itertools.combinations(range(len(files)), 2)
    file_pairs = [(a, b) for a, b in pairs if set_numbers[a] != set_numbers[b]]
    sequences = Sequences.of(files)
    yield from check_duplicates(sequences, file_pairs, compare_labels=False)
    yield from check_similar(sequences, file_pairs, compare_labels=False)


def _report(
    name: str, files: Sequence[LabelledFile], findings: Iterable[Finding], *, with_rows: bool = True
) -> SetReport:
    codes = list(ADVICE)
    return SetReport(
        name=name,
        num_rows={file.name: len(file) for file in files} if with_rows else {},
        findings=sorted(
            findings,
            key=lambda finding: (SEVERITIES.index(finding.severity), codes.index(finding.code), finding.files),
        ),
    )


def _check_extra() -> None:
    missing = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f"gemsdata lint needs {', '.join(missing)}; install it with: pip install 'gemsdata[lint]'")
