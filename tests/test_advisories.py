"""Known vulnerabilities of pinned packages are looked up in a clone of an advisory database."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.version import Version

from tools.advisories import CONSTRAINTS, advisories, affects, pinned

pytestmark = pytest.mark.once

ADVISORY = """
id: PYSEC-0-1
affected:
- package: {name: Some_Package, ecosystem: PyPI}
  ranges:
  - {type: GIT, events: [{introduced: '0'}]}
  - {type: ECOSYSTEM, events: [{introduced: '1.2'}, {fixed: '1.10'}, {introduced: '2'}, {last_affected: '2.1'}]}
  versions: [0.9rc1]
"""


@pytest.mark.parametrize(
    ("version", "named"),
    [
        ("0.9rc1", True), ("1.1", False), ("1.2", True), ("1.9.9", True), ("1.10", False), ("2", True), ("2.1", True),
        ("2.1.1", False),
    ],
)  # fmt: skip
def test_versions_are_compared_with_the_ranges_of_an_advisory(tmp_path: Path, version: str, named: bool) -> None:
    for name, text in (("some-package", ADVISORY), ("other", ADVISORY), ("withdrawn", f"withdrawn: 2020\n{ADVISORY}")):
        (tmp_path / "vulns" / name).mkdir(parents=True)
        (tmp_path / "vulns" / name / "PYSEC-0-1.yaml").write_text(text)
    versions = {"some-package": Version(version), "withdrawn": Version("1.2")}
    assert [(name, found) for name, _, found in advisories(tmp_path, versions)] == [("some-package", named)]


def test_all_constraints_are_versions() -> None:
    assert len(pinned(CONSTRAINTS)) > 100
    assert not affects({}, Version("1"))
