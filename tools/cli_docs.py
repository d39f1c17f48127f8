"""Write the help of every command to docs/cli.md; a test fails when the file has fallen behind.

python -m tools.cli_docs
"""

from __future__ import annotations

from pathlib import Path

import click
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
        command = group.get_command(click.Context(group), name)
        assert command is not None
        shown = CliRunner().invoke(command, ["--help"], prog_name=f"gemsdata {name}", terminal_width=_WIDTH).output
        parts.append(f"## gemsdata {name}\n\n```text\n{shown.strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PATH.write_text(text())
    print(PATH)
