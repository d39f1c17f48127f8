"""Write the help of every command to docs/cli.md; a test fails when the file has fallen behind.

python -m tools.cli_docs
"""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from gemsdata.cli import COMMANDS, group

PATH = Path(__file__).parents[1] / "docs" / "cli.md"
_WIDTH = 100


def text() -> str:
    """Return what docs/cli.md must say."""
    parts = [
        "# The command line\n",
        "Made by `python -m tools.cli_docs` from the commands themselves. Exit status: 0 on success; 2 after one line\n"
        "`error: ...` for a mistake in what was given; 1 when a verification finds a difference.\n",
    ]
    for name in sorted(COMMANDS):
        shown = CliRunner().invoke(group, [name, "--help"], prog_name="gemsdata", terminal_width=_WIDTH).output
        parts.append(f"## gemsdata {name}\n\n```text\n{shown.strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PATH.write_text(text())
    print(PATH)
