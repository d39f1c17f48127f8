"""The recipes of docs/stream.md and docs/views.md run as they stand, on small sets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.genomes import random_dna
from tests.stream_support import make_set
from tests.train_support import _fresh_accelerate  # noqa: F401
from tests.view_support import packed_set

DOCS = Path(__file__).parents[1] / "docs"


def recipes(page: str) -> dict[str, str]:
    """The first block of Python below each heading of the third level."""
    text = (DOCS / page).read_text()
    return dict(re.findall(r"^### ([^\n]+)\n+```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


RECIPES, VIEW_RECIPES = recipes("stream.md"), recipes("views.md")
NEEDS = {"Lightning": "lightning", "Lightning on a view": "lightning", "Hugging Face datasets": "datasets"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("recipes") / "OUT", k=6)


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    """A packed set with validation rows."""
    folder = tmp_path_factory.mktemp("recipes")
    contigs = {"a": random_dna(8000, 1), "b": random_dna(4000, 2) + random_dna(4000, 3).lower()}
    packed_set(folder, contigs, valid_fraction=0.2)
    return folder / "set"


def test_the_page_has_the_recipes():
    assert list(RECIPES) == [
        "Plain PyTorch",
        "accelerate",
        "Hugging Face Trainer",
        "Lightning",
        "Hugging Face datasets",
    ]
    assert list(VIEW_RECIPES) == ["Hugging Face Trainer on a view", "Lightning on a view"]


@pytest.mark.once
@pytest.mark.filterwarnings("default")  # what other libraries warn of is theirs
@pytest.mark.parametrize("name", [*RECIPES, *VIEW_RECIPES])
def test_a_recipe_runs(name, shards, view, tmp_path, monkeypatch):
    """In this process, which has imported the libraries already."""
    module = NEEDS.get(name)
    if module:
        pytest.importorskip(module)
    (tmp_path / "OUT").symlink_to(shards)
    (tmp_path / "SET").symlink_to(view)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    exec(compile((RECIPES | VIEW_RECIPES)[name], name, "exec"), {"__name__": "__main__"})
