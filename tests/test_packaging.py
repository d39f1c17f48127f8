"""The files that describe the package elsewhere agree with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import gemsdata as gd

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"duckdb": "python-duckdb", "isal": "python-isal", "xxhash": "python-xxhash"}
"""what conda-forge calls packages that have another name there"""

pytestmark = pytest.mark.once


def conda_requirement(requirement: str) -> str:
    name, bound = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?(>=[\d.]+)(?:;.*)?", requirement).groups()
    return f"{CONDA_NAMES.get(name, name)} {bound}"


def test_the_version_is_the_same_everywhere() -> None:
    recipe = yaml.safe_load((REPOSITORY / "packaging" / "conda" / "recipe.yaml").read_text())
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    versions = {PROJECT["version"], gd.__version__, recipe["context"]["version"], citation["version"]}
    assert len(versions) == 1
    (version,) = versions
    for page in ("README.md", "docs/getting-started.md"):
        assert f"gemsdata-{version}-py3-none-any.whl" in (REPOSITORY / page).read_text()
    released = re.findall(
        r"^## (\S+) - \d{4}-\d\d-\d\d$", (REPOSITORY / "CHANGELOG.md").read_text(), flags=re.MULTILINE
    )
    assert released[0] == version
    assert "date-released" in citation


def test_conda_requires_what_pip_requires() -> None:
    recipe = yaml.safe_load((REPOSITORY / "packaging" / "conda" / "recipe.yaml").read_text())
    wanted = [conda_requirement(requirement) for requirement in PROJECT["dependencies"]]
    assert recipe["requirements"]["run"] == [f"python {PROJECT['requires-python']}", *sorted(wanted)]
    assert recipe["build"]["python"]["entry_points"] == [f"gemsdata = {PROJECT['scripts']['gemsdata']}"]
    extras = {re.split(r"[>=]", word)[0]: word for word in PROJECT["optional-dependencies"]["train"]}
    constraints = dict(line.split() for line in recipe["requirements"]["run_constraints"])
    assert constraints == {"pytorch": extras["torch"][5:], "transformers": extras["transformers"][12:]}


def test_the_public_ci_runs_the_commands_of_the_makefile_on_all_versions() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    runs = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert {"make lint", "make test", "make dist", "make demo"} <= set(runs)
    assert all(re.fullmatch(r"make (\w+)", run)[1] in targets for run in runs)
    named = {word.rpartition(" ")[2] for word in PROJECT["classifiers"] if "Python :: 3." in word}
    assert set(workflow["jobs"]["test"]["strategy"]["matrix"]["python"]) == named


def test_citation_names_the_licence_and_the_repository() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert citation["authors"] == PROJECT["authors"]
