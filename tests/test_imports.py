"""Data flows one way: a module imports from its own level or from one below."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

LEVELS = [
    {"kernels", "atomic", "keys", "progress", "ahead", "difference", "memory"},
    {"fasta", "vocab", "genome", "manifest", "schema"},
    {"counts", "windows", "arrow_shards", "tar_shards", "cache", "store"},
    {
        "npmi",
        "options",
        "plan",
        "sharding",
        "shardset",
        "plain_bases",
        "verify_npmi",
        "verify",
        "scan",
        "sql",
        "plot",
        "report",
        "lint",
        "strategies",
        "masking",
        "audit_tally",
        "audit",
        "audit_figure",
        "show",
        "curriculum",
    },
    {"world", "order", "mixture", "stage", "packing", "delivery", "reader", "shuffling"},
    {"stream", "collate", "tokenizer"},
    {"loader", "build", "accelerate_glue", "flight"},
    {"cli"},
]
LEVEL_OF = {module: level for level, modules in enumerate(LEVELS) for module in modules}
SOURCES = sorted((REPOSITORY / "gemsdata").rglob("*.py"))


def module_of(path: Path) -> str:
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
def test_a_module_imports_from_its_own_level_or_below(path: Path) -> None:
    module = module_of(path)
    if module == "__init__":
        return
    assert module in LEVEL_OF, f"give gemsdata.{module} a level"
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] not in ("train", "eval", "tools", "tests", "bench"), f"{module} imports {name}"
        if parts[0] == "gemsdata" and len(parts) > 1 and parts[1] != "__version__":
            assert LEVEL_OF[parts[1]] <= LEVEL_OF[module], f"{module} imports {name}"


def test_the_offline_half_imports_without_torch() -> None:
    offline = sorted(
        module for level in LEVELS[:4] for module in level if (REPOSITORY / "gemsdata" / f"{module}.py").exists()
    )
    code = "import sys; sys.modules['torch'] = None\n" + "".join(f"import gemsdata.{module}\n" for module in offline)
    code += "from gemsdata.cli import main; assert main(['--help']) == 0"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
