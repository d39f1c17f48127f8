"""The documents say what the programs do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gemsdata.cli import COMMANDS
from tools import cli_docs

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_the_help_in_the_docs_is_that_of_the_commands() -> None:
    assert cli_docs.PATH.read_text() == cli_docs.text(), "run: python -m tools.cli_docs"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_in_a_document_exist(document: Path) -> None:
    for command in re.findall(r"^\$? ?gemsdata ([a-z]+)", document.read_text(), flags=re.MULTILINE):
        assert command in COMMANDS, f"{document.name}: gemsdata {command}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_links_of_a_document_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name}: {target}"
