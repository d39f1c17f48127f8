"""Write the help of every command to docs/cli.md; a test fails if the file is out of date.

python -m tools.cli_docs
"""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from gemsdata.cli import COMMANDS, group
from gemsdata.cli.eval import PROGRAMS

PATH = Path(__file__).parents[1] / "docs" / "cli.md"
_WIDTH = 100
_HEADER = """# The command line

This page is written by `python -m tools.cli_docs` from the commands. `gemsdata` without a command
prints the list of commands, `gemsdata COMMAND --help` the help of one. `python -m gemsdata` is the
same program.

- **Exit status**: 0 on success; 1 if `verify` finds a difference, `lint` an error, `audit --strict`
  an alert; 2 after one line `error: ...` for invalid input; 130 after Ctrl-C, with a line on how to
  continue.
- `--json` prints the result as one JSON document (`query`: one object per line). `--quiet`
  suppresses summaries and progress bars. Progress bars are shown on a terminal only.
- The first command that masks, shards or counts after an installation compiles its kernels, which
  takes up to a minute; a line says so on a terminal. Later runs read them from numba's cache
  (`NUMBA_CACHE_DIR`).
- `--import MODULE` finds modules that are installed and `MODULE.py` in the current folder.
- A reader that closes the pipe (`gemsdata query ... | head`) ends the command without an error.

`gemsdata pretrain`, `finetune` and `eval fewshot | gue | compare | motifs` run the programs of
`train/` and `eval/`, which are installed with gemsdata. On several devices, start them with
accelerate, which needs a module:

*Not run by the tests: needs minutes.*

```bash
accelerate launch -m gemsdata pretrain --shards SHARDS --model logo --output-dir RUN
```

In a clone, `accelerate launch train/pretrain.py ...` and `python -m eval.fewshot ...` are the same programs.

Shell completion, for bash (zsh and fish alike, with their name in place of `bash`):

```bash
eval "$(_GEMSDATA_COMPLETE=bash_source gemsdata)"       # in ~/.bashrc
```

It completes the names of commands and their options, except the options of `pretrain`, `finetune` and `eval`.
"""


def text() -> str:
    """Return what docs/cli.md must contain."""
    parts = [_HEADER]
    for name in sorted([*COMMANDS, *(f"eval {program.name}" for program in PROGRAMS)]):
        call = [*name.split(), "--help"]
        shown = CliRunner().invoke(group, call, prog_name="gemsdata", terminal_width=_WIDTH).output
        parts.append(f"## gemsdata {name}\n\n```text\n{shown.strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PATH.write_text(text())
    print(PATH)
