"""The recipes of docs/stream.md run as they stand, on a small set."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stream_support import make_set

PAGE = Path(__file__).parents[1] / "docs" / "stream.md"
RECIPES = dict(re.findall(r"^### ([^\n]+)\n+```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
NEEDS = {"Lightning": "lightning", "Hugging Face datasets": "datasets"}


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
