"""Markdown tables of a benchmark, and their place in the README."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def machine() -> str:
    """Say on what the figures were measured."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}, commit {commit or 'unknown'}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def put_in_readme(marker: str, text: str) -> None:
    """Replace what stands in the README between <!-- bench:marker --> and <!-- /bench:marker -->."""
    begin, end = f"<!-- bench:{marker} -->", f"<!-- /bench:{marker} -->"
    content = README.read_text()
    if begin not in content:
        raise ValueError(f"{README} has no {begin}")
    README.write_text(re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", content, flags=re.DOTALL))
