"""Markdown tables of a benchmark, and their place in docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
BENCHMARKS, SCALE = DOCS / "benchmarks.md", DOCS / "scale.md"


def machine() -> str:
    """Return the description of the machine on which the figures were measured."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}, commit {commit()}"


def commit() -> str:
    """Return the short id of the commit that is checked out; "unknown" outside of a repository."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_section(marker: str, text: str, page: Path = BENCHMARKS) -> None:
    """Replace the text of a page between <!-- bench:marker --> and <!-- /bench:marker -->."""
    begin, end = f"<!-- bench:{marker} -->", f"<!-- /bench:{marker} -->"
    content = page.read_text()
    if begin not in content or end not in content:
        raise ValueError(f"{page} has no {begin} ... {end}")
    page.write_text(re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", content, flags=re.DOTALL))
