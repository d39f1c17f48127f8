"""The documents say what the programs do."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

import gemsdata
from gemsdata.cli import COMMANDS
from tools import architecture, cli_docs, doc_figures

pytestmark = pytest.mark.once

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


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


def test_the_speeds_of_the_readme_are_those_of_the_benchmarks() -> None:
    rates = doc_figures.masked_rates(doc_figures.BENCHMARKS.read_text())
    assert {"webdataset, 256 rows a member", "gemsdata, 2 threads"} < set(rates)
    assert doc_figures.README.read_text() == doc_figures.readme(rates, doc_figures.README.read_text()), (
        "run: python -m tools.doc_figures"
    )
    drawn = (doc_figures.FOLDER / "speed.svg").read_text()
    assert all(f"{rate:,}<" in drawn for rate in rates.values()), "run: python -m tools.doc_figures"


@pytest.mark.parametrize("name", doc_figures.TERMINALS)
def test_pictures_of_output_show_what_the_pages_say(name: str) -> None:
    drawn = html.unescape((doc_figures.FOLDER / f"{name}.svg").read_text())
    for line in doc_figures.terminal_lines(*doc_figures.TERMINALS[name]):
        assert line.strip() in drawn, "run: python -m tools.doc_figures"
    assert f"](docs/images/{name}.svg)" in doc_figures.README.read_text()


def test_the_reference_has_all_public_names() -> None:
    named = re.findall(r"^::: gemsdata\.(\w+)$", (REPOSITORY / "docs" / "reference.md").read_text(), flags=re.MULTILINE)
    assert sorted(named) == sorted(set(gemsdata.__all__) - {"__version__"})


def test_every_page_is_in_the_contents_of_the_site_and_of_the_index() -> None:
    contents = (REPOSITORY / "mkdocs.yml").read_text()
    index = (REPOSITORY / "docs" / "index.md").read_text()
    for path in sorted(REPOSITORY.glob("docs/**/*.md")) + sorted(REPOSITORY.glob("docs/**/*.ipynb")):
        name = path.relative_to(REPOSITORY / "docs").as_posix()
        assert re.search(rf"\b{name.replace('.ipynb', '.md')}$", contents, flags=re.MULTILINE), (
            f"mkdocs.yml lacks {name}"
        )
        assert name == "index.md" or f"({name})" in index, f"docs/index.md lacks {name}"


def test_tutorials_are_small_and_executed() -> None:
    notebooks = sorted(REPOSITORY.glob("docs/tutorials/*.ipynb"))
    assert len(notebooks) == 3
    for path in notebooks:
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), f"{path} was not executed"
        assert path.stat().st_size < 300_000
