"""The documents say what the programs do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gemsdata.cli import COMMANDS
from tools import architecture, cli_docs

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


@pytest.mark.parametrize("document", architecture.DOCUMENTS, ids=lambda path: path.name)
def test_the_diagram_of_the_packages_is_that_of_the_imports(document: Path) -> None:
    assert document.read_text() == architecture.text(document), "run: python -m tools.architecture"
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", document.read_text(), flags=re.MULTILINE))
    assert all(architecture.LEVEL_OF[source] < architecture.LEVEL_OF[user] for source, user in drawn)
    reached = set(drawn)
    while further := {(a, d) for a, b in reached for c, d in drawn if b == c} - reached:
        reached |= further
    assert reached >= architecture.package_imports()


def test_the_flows_of_a_record_and_of_a_batch_follow_imports_between_their_modules() -> None:
    """An arrow of data is an import: of the receiver by the sender, or of the sender by the receiver."""
    modules = {architecture.module_of(path): path for path in architecture.SOURCES}
    flows = re.findall(r"^    ([\w.]+) -- .+ --> ([\w.]+)$", architecture.DOCUMENTS[0].read_text(), flags=re.MULTILINE)
    assert len(flows) > 15
    for pair in flows:
        names = [f"gemsdata.{name}" for name in pair]
        assert set(names) <= set(modules), f"no such module: {pair}; correct docs/architecture.md"
        linked = [
            any(name == other or name.startswith(f"{other}.") for name in architecture.imported(modules[one]))
            for one, other in (names, names[::-1])
        ]
        assert any(linked), f"neither of {pair} imports the other; correct docs/architecture.md"
