"""The ``gemsdata`` command: one file per sub-command, imported when it is called."""

from __future__ import annotations

import errno
import importlib
import sys

import click

from gemsdata import __version__
from gemsdata.shards.verify.error import Difference

COMMANDS = {
    "audit": "Say what a masking strategy does to the rows of a shard set.",
    "encode": "Encode some parts of a planned shard set (for clusters).",
    "finalise": "Complete a shard set whose parts are all encoded.",
    "info": "Say what is in a shard set.",
    "lint": "Find what is wrong with labelled DNA before training or scoring on it.",
    "npmi": "Count n-grams and write their NPMI table as Parquet.",
    "plot": "Draw figures of a shard set or an NPMI table.",
    "query": "Ask shard sets and NPMI tables by SQL.",
    "report": "Write one HTML page about a shard set and its runs.",
    "serve": "Serve masked batches of a shard set to other processes and hosts.",
    "shard": "Turn a genome into shards of tokenized rows.",
    "shuffle": "Say how well the stream mixes the genome.",
    "show": "Draw one masked row.",
    "verify": "Check every row of a shard set against its FASTA.",
}
"""name -> one line of help; the command itself is gemsdata.cli.<name>.command"""


class _Commands(click.Group):
    """A group that imports a sub-command on use, so that ``gemsdata --help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"gemsdata.cli.{name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gemsdata")
def group() -> None:
    """From FASTA to masked batches: shards, NPMI tables and audits for DNA language models."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status.

    0 on success; 2 after one line ``error: ...`` for a mistake of the user's; 1 after one line ``difference: ...``
    when a verification fails.
    """
    try:
        status = group.main(arguments, prog_name="gemsdata", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _fail(error.format_message())
    except (ValueError, FileNotFoundError, ImportError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(_os_error_text(error))
    except Difference as difference:
        print(f"difference: {difference}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, click.Abort):
        print("interrupted (a shard set goes on with --resume)", file=sys.stderr)
        return 130


def _fail(message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


def _os_error_text(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"the disk is full{where}: {error.strerror}; free some space and run it again (a shard set with --resume)"
        )
    return f"{error.strerror or error}{where}"
