"""Data flows one way: a package imports from the packages to its left, never from its own level or from the right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.architecture import LEVEL_OF, ORDER, REPOSITORY, SOURCES, imported, package_of

pytestmark = pytest.mark.once

FIRST_WITH_TORCH = "stream"
TRAIN = [
    {"program", "options", "optimizer", "metrics", "recipes", "labelled", "models", "pooling"},
    {"masked_lm", "run_log", "token_bases"},
    {"rows", "checkpoint", "encoder", "figure"},
    {"config", "evaluate"},
    {"baselines", "card", "classifier"},
    {"pretrain", "finetune"},
]
"""The modules of train from left to right"""
EVAL = [{"results", "lint"}, {"fewshot", "gue", "motifs"}, {"compare"}, {"studies"}]
"""The packages of eval from left to right"""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_package_imports_only_from_its_left(path: Path) -> None:
    package = package_of(path)
    if package in ("__init__", "__main__"):
        return
    assert package in LEVEL_OF, f"give gemsdata.{package} a place in ORDER (tools/architecture.py)"
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] not in ("train", "eval", "tools", "tests", "bench"), f"{package} imports {name}"
        if parts[0] == "gemsdata" and len(parts) > 1 and parts[1] not in (package, "__version__"):
            assert LEVEL_OF[parts[1]] < LEVEL_OF[package], f"{package} imports {name}"


@pytest.mark.parametrize(("root", "order"), [("train", TRAIN), ("eval", EVAL)])
def test_programs_import_one_way_too(root: str, order: list[set[str]]) -> None:
    """Of each other they import train from eval, never the other way; tools, tests and bench they never import."""
    level_of = {name: level for level, names in enumerate(order) for name in names}
    foreign = {"train": ("eval", "tools", "tests", "bench"), "eval": ("tools", "tests", "bench")}[root]
    for path in sorted((REPOSITORY / root).rglob("*.py")):
        own = path.relative_to(REPOSITORY / root).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in level_of, f"give {root}.{own} a place in its list"
        for name in imported(path):
            parts = name.split(".")
            assert parts[0] not in foreign, f"{path}: {name}"
            if parts[0] == root and len(parts) > 1 and parts[1] != own and parts[1] in level_of:
                assert level_of[parts[1]] < level_of[own], f"{path}: {name}"


def test_every_package_in_the_order_exists() -> None:
    assert set(LEVEL_OF) == {package_of(path) for path in SOURCES} - {"__init__", "__main__"}


def test_the_offline_half_imports_without_torch() -> None:
    offline = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if LEVEL_OF.get(package_of(path), len(ORDER)) < LEVEL_OF[FIRST_WITH_TORCH]
    ]
    assert len(offline) > 30
    code = "import sys; sys.modules['torch'] = None\n" + "".join(f"import {module}\n" for module in offline)
    code += "from gemsdata.cli import main; assert main(['--help']) == 0"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
