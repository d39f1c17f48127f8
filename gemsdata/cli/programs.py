"""Sub-commands that run the programs of the packages train and eval.

These packages use gemsdata, and gemsdata never imports them: a sub-command starts a program by its name, as
``python -m`` does, in the running process. In a clone the packages stand beside gemsdata; a wheel has them in
``gemsdata/_programs``, which only the processes of these sub-commands have on their import path.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from gemsdata.files.extras import missing_module

_PACKAGE = Path(__file__).parents[1]


class Program(click.Command):
    """A sub-command that hands all its arguments to ``main(arguments)`` of a module of train or eval.

    Parameters
    ----------
    name
        Name of the sub-command.
    module
        Module with a function ``main(arguments: list[str]) -> int``, which parses and returns the exit status.
    extra
        Extra of gemsdata that installs what the module needs.
    summary
        One line of help.
    examples
        Command lines, shown below the program's own help.
    """

    def __init__(self, name: str, module: str, *, extra: str, summary: str, examples: Sequence[str]) -> None:
        super().__init__(
            name,
            callback=self._run,
            params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
            help=summary,
            short_help=summary,
            epilog="\b\nExamples:\n" + "".join(f"  {line}\n" for line in examples),
            add_help_option=False,
            context_settings={"ignore_unknown_options": True},
        )
        self._module = module
        self._extra = extra

    def _run(self, arguments: tuple[str, ...]) -> int:
        folder = str(programs_folder())
        if folder not in sys.path:
            sys.path.insert(0, folder)  # before the working directory, which may have a folder called train
        try:
            program = importlib.import_module(self._module)
        except ModuleNotFoundError as error:
            path = click.get_current_context().command_path
            raise missing_module(error, path, extra=self._extra) from error
        try:
            status: int = program.main(list(arguments))
        except SystemExit as ended:  # after --help
            return ended.code if isinstance(ended.code, int) else 0
        return status


def programs_folder() -> Path:
    """Return the folder that has the packages train and eval."""
    installed = _PACKAGE / "_programs"
    return installed if installed.is_dir() else _PACKAGE.parent
