"""The ``gemsdata`` command line: one module per sub-command, imported on use."""

from __future__ import annotations

import errno
import importlib
import sys

import click

from gemsdata import __version__
from gemsdata.shards.verify import VerificationError

COMMANDS = {
    "audit": "Mask rows of a shard set and report rates, leaks and problems.",
    "encode": "Encode a slice of the parts of a planned shard set (for clusters).",
    "finalise": "Write the manifest of a shard set after all parts are encoded.",
    "info": "Print a summary of a shard set.",
    "lint": "Check labelled DNA files for leaks, duplicates and format errors.",
    "npmi": "Count the n-grams of a genome and write their NPMI table.",
    "plot": "Plot figures of a shard set or an NPMI table.",
    "query": "Query shard sets and NPMI tables with SQL.",
    "report": "Write an HTML report of a shard set and its training runs.",
    "serve": "Serve masked batches of shard sets over the network.",
    "shard": "Convert a genome to a shard set of tokenized rows.",
    "shuffle": "Measure how well the batch order mixes the genome.",
    "show": "Print one masked row.",
    "verify": "Verify the files of a shard set, and its rows against the FASTA.",
}
"""One line of help per sub-command; the command is ``gemsdata.cli.<name>.command``."""


class _Commands(click.Group):
    """A click group that imports sub-commands on use, so that ``gemsdata --help`` is fast."""

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
    """Training data for DNA language models: shard sets, NPMI tables, masking audits."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status.

    0 on success; 2 after one line ``error: ...`` for invalid input; 1 after one line ``difference: ...`` if a
    verification fails.
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
    except VerificationError as difference:
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
