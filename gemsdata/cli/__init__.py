"""The ``gemsdata`` command line: one module per sub-command, imported on use."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from gemsdata import __version__
from gemsdata.cli import errors
from gemsdata.cli.output import error_line, quiet_option, stderr_note
from gemsdata.cli.programs import Program
from gemsdata.kernels.compiling import notify_once
from gemsdata.shards.verify import VerificationError

COMMANDS = {
    "audit": "Mask rows of a shard set and report rates, leaks and problems.",
    "encode": "Encode a slice of the parts of a planned shard set (for clusters).",
    "eval": "Evaluate pretrained models and masking strategies.",
    "finalise": "Write the manifest of a shard set after all parts are encoded.",
    "finetune": "Fine-tune a pretrained model on labelled sequences, or predict.",
    "info": "Print a summary of a shard set.",
    "lint": "Check labelled DNA files for leaks, duplicates and format errors.",
    "npmi": "Count the n-grams of a genome and write their NPMI table.",
    "plot": "Plot figures of a shard set or an NPMI table.",
    "pretrain": "Pretrain a masked language model on shard sets.",
    "query": "Query shard sets and NPMI tables with SQL.",
    "report": "Write an HTML report of a shard set and its training runs.",
    "serve": "Serve masked batches of shard sets over the network.",
    "shard": "Convert a genome to a shard set of tokenized rows.",
    "shuffle": "Measure how well the batch order mixes the genome.",
    "show": "Print one masked row.",
    "verify": "Verify the files of a shard set, and its rows against the FASTA.",
}
"""One line of help per sub-command; the command is ``gemsdata.cli.<name>.command``."""


class _OutputClosedError(Exception):
    """The reader of standard output, such as head, has closed the pipe. (click would exit with status 1.)"""


@contextlib.contextmanager
def _closed_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise _OutputClosedError from None


class _Commands(click.Group):
    """A click group that imports sub-commands on use, so that ``gemsdata --help`` is fast."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _closed_output():  # --help writes while options are parsed
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _closed_output():
            status = super().invoke(ctx)
            sys.stdout.flush()
            return status

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"gemsdata.cli.{name}").command
        own_options = isinstance(command, (Program, click.Group))
        if not own_options and not any(option.name == "quiet" for option in command.params):
            quiet_option(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            close = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"No such command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, prog_name="gemsdata")
@click.pass_context
def group(ctx: click.Context) -> None:
    """Training data for DNA language models: shard sets, NPMI tables, masking audits.

    \b
    Example:
      gemsdata shard genome.fa -o SHARDS
      gemsdata verify SHARDS --fasta genome.fa
      gemsdata COMMAND --help
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status.

    0 on success; 2 after one line ``error: ...`` for invalid input; 1 after one line ``difference: ...`` if a
    verification fails, or if a check has findings; 130 after an interrupt.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    notify_once(_note_compilation)
    try:
        status = group.main(arguments, prog_name="gemsdata", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except _OutputClosedError:
        _discard_output()
        return 0
    except VerificationError as difference:
        error_line("difference", str(difference))
        return 1
    except (KeyboardInterrupt, click.Abort):
        print(errors.interrupted(arguments), file=sys.stderr)
        return 130
    except errors.USER_ERRORS as error:
        error_line("error", errors.message(error, arguments))
        return 2
    finally:
        notify_once(None)


def _note_compilation() -> None:
    stderr_note("compiling kernels for this machine; later runs use the cached result")


def _discard_output() -> None:
    """Send what is still buffered for standard output nowhere, so that the flush at exit does not fail."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
