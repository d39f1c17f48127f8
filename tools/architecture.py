"""Write the diagram of the packages into docs/architecture.md and CONTRIBUTING.md; a test fails if it is out of date.

python -m tools.architecture
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = (REPOSITORY / "docs" / "architecture.md", REPOSITORY / "CONTRIBUTING.md")
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
"""The packages of gemsdata from left to right; packages of one level do not import each other"""
LEVEL_OF = {package: level for level, packages in enumerate(ORDER) for package in packages}
SOURCES = sorted((REPOSITORY / "gemsdata").rglob("*.py"))

_BLOCK = re.compile(r"(<!-- packages -->\n).*?(<!-- /packages -->)", flags=re.DOTALL)


def package_of(path: Path) -> str:
    """Return the package of gemsdata that a source file belongs to."""
    return path.relative_to(REPOSITORY / "gemsdata").parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    """Return the dotted module name of a source file."""
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Return the dotted names that a source file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def package_imports() -> set[tuple[str, str]]:
    """Return (imported package, importing package) of all imports between packages of gemsdata."""
    found = set()
    for path in SOURCES:
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "gemsdata" and len(parts) > 1 and parts[1] in LEVEL_OF and package_of(path) in LEVEL_OF:
                found.add((parts[1], package_of(path)))
    return {(source, user) for source, user in found if source != user}


def direct_imports() -> set[tuple[str, str]]:
    """Return the imports between packages without those that follow from others (the transitive reduction)."""
    edges = package_imports()
    users = {source: {user for other, user in edges if other == source} for source in LEVEL_OF}

    def reach(source: str) -> set[str]:
        return users[source].union(*(reach(user) for user in users[source]))

    return {
        (source, user)
        for source, user in edges
        if not any(user in reach(between) for between in users[source] if between != user)
    }


def diagram() -> str:
    """Return the Mermaid block of the packages; arrows point from a package to the packages that import it."""
    edges = sorted(direct_imports(), key=lambda edge: (LEVEL_OF[edge[0]], LEVEL_OF[edge[1]], *edge))
    return "\n".join(["```mermaid", "flowchart LR", *(f"    {source} --> {user}" for source, user in edges), "```\n"])


def text(document: Path) -> str:
    """Return a document with the current diagram between its markers."""
    return _BLOCK.sub(lambda found: found[1] + diagram() + found[2], document.read_text())


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(text(document))
        print(document)
