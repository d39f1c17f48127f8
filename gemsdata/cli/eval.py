"""``gemsdata eval``: the programs of the package eval."""

from __future__ import annotations

import click

from gemsdata.cli.lint import command as lint
from gemsdata.cli.output import quiet_option
from gemsdata.cli.programs import Program

PROGRAMS = [
    Program(
        "fewshot",
        "eval.fewshot.__main__",
        extra="eval",
        summary="Compare models by few-shot fine-tuning.",
        examples=["gemsdata eval fewshot --data fewshot --models mine=RUN/final --controls --output-dir FEWSHOT"],
    ),
    Program(
        "gue",
        "eval.gue.__main__",
        extra="eval",
        summary="Compare models on the tasks of GUE.",
        examples=["gemsdata eval gue --data GUE --models mine=RUN/final --output-dir GUE-RESULTS"],
    ),
    Program(
        "compare",
        "eval.compare.__main__",
        extra="eval",
        summary="Run a study: pretrain with several maskings, fine-tune each model, compare.",
        examples=["gemsdata eval compare study.py --shards SHARDS --data fewshot --output-dir STUDY"],
    ),
    Program(
        "motifs",
        "eval.motifs.__main__",
        extra="eval",
        summary="Test whether k-mers of high NPMI match transcription factor motifs.",
        examples=["gemsdata eval motifs --npmi SHARDS --motifs JASPAR.pfm --output-dir MOTIFS"],
    ),
]


@click.group("eval", context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Evaluate pretrained models and masking strategies.

    \b
    Examples:
      gemsdata eval fewshot --data fewshot --models mine=RUN/final --output-dir FEWSHOT
      gemsdata eval gue --help
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


if not any(option.name == "quiet" for option in lint.params):
    quiet_option(lint)
for program in [*PROGRAMS, lint]:
    command.add_command(program)
