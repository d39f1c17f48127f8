"""Data flows one way: a package imports from the packages to its left, never from its own level or from the right."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

ORDER = [
    {"kernels", "files"},
    {"genome"},
    {"npmi", "masking"},
    {"shards"},
    {"views"},
    {"stream"},
    {"service", "inspect", "lint"},
    {"build"},
    {"cli"},
]
"""The packages of gemsdata from left to right; those that stand together do not import each other"""
LEVEL_OF = {package: level for level, packages in enumerate(ORDER) for package in packages}
FIRST_WITH_TORCH = "stream"
SOURCES = sorted((REPOSITORY / "gemsdata").rglob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(REPOSITORY / "gemsdata").parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_package_imports_only_from_its_left(path: Path) -> None:
    package = package_of(path)
    if package == "__init__":
        return
    assert package in LEVEL_OF, f"give gemsdata.{package} a place in ORDER"
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] not in ("train", "eval", "tools", "tests", "bench"), f"{package} imports {name}"
        if parts[0] == "gemsdata" and len(parts) > 1 and parts[1] not in (package, "__version__"):
            assert LEVEL_OF[parts[1]] < LEVEL_OF[package], f"{package} imports {name}"


def test_every_package_in_the_order_exists() -> None:
    assert set(LEVEL_OF) == {package_of(path) for path in SOURCES} - {"__init__"}


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
