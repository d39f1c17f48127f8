"""The recipes of docs/stream.md and docs/views.md run as they stand, on small sets."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
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


def test_the_page_has_the_recipes():
    assert list(RECIPES) == [
        "Plain PyTorch",
        "accelerate",
        "Hugging Face Trainer",
        "Lightning",
        "Hugging Face datasets",
    ]
    assert list(VIEW_RECIPES) == ["Hugging Face Trainer on a view", "Lightning on a view"]


@pytest.mark.compiled
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs(name, shards, tmp_path):
    module = NEEDS.get(name)
    if module and importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    (tmp_path / "OUT").symlink_to(shards)
    (tmp_path / "recipe.py").write_text(RECIPES[name])
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "recipe.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.once
@pytest.mark.filterwarnings("default")  # what other libraries warn of is theirs
@pytest.mark.parametrize("name", VIEW_RECIPES)
def test_a_recipe_of_a_view_runs(name, tmp_path, monkeypatch):
    """In this process, which has imported the libraries already."""
    module = NEEDS.get(name)
    if module:
        pytest.importorskip(module)
    contigs = {"a": random_dna(8000, 1), "b": random_dna(4000, 2) + random_dna(4000, 3).lower()}
    packed_set(tmp_path, contigs, valid_fraction=0.2)
    (tmp_path / "SET").symlink_to("set")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    exec(compile(VIEW_RECIPES[name], name, "exec"), {"__name__": "__main__"})
