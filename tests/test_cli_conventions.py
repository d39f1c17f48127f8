"""What all commands have in common: help, examples, suggestions, --json, --quiet, pipes, interrupts, messages."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from gemsdata.cli import COMMANDS, errors, group, main
from gemsdata.cli.eval import PROGRAMS as EVAL_PROGRAMS
from gemsdata.cli.output import printable
from gemsdata.cli.programs import Program
from gemsdata.files.publish import temporary_name
from tests.genomes import random_dna, write_fasta

pytestmark = pytest.mark.once

REPOSITORY = Path(__file__).parents[1]
GEMSDATA = [sys.executable, "-m", "gemsdata"]
SHARD = ["-k", "3", "--row-tokens", "40", "--workers", "1", "--min-count", "2"]


def command_of(name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> str:
    return str(write_fasta(tmp_path_factory.mktemp("genome") / "g.fa", {"one": random_dna(9000, 1)}))


@pytest.fixture(scope="module")
def shards(genome: str) -> str:
    out = str(Path(genome).parent / "shards")
    assert main(["shard", genome, "-o", out, *SHARD]) == 0
    return out


# help


def test_without_a_command_the_help_is_shown(capsys) -> None:
    assert main([]) == 0
    bare = capsys.readouterr()
    assert main(["--help"]) == 0
    assert bare.out == capsys.readouterr().out
    assert "verify" in bare.out
    assert bare.err == ""


def test_the_package_is_the_command() -> None:
    done = subprocess.run([*GEMSDATA, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"gemsdata, version \d+\.\d+.*\n", done.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    for option in command_of(name).params:
        if isinstance(option, click.Option):
            assert option.help, f"gemsdata {name} {option.opts[-1]} has no help"
            assert option.help.endswith("."), f"{option.opts}: {option.help}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_parse(name: str) -> None:
    text = (command_of(name).help or "") + (command_of(name).epilog or "")
    examples = re.findall(r"^\s+gemsdata (\w+) (.*)$", text.partition("\b\n")[2], flags=re.MULTILINE)
    examples = examples or re.findall(r"^\s+gemsdata (\w+) (.*)$", text, flags=re.MULTILINE)
    assert any(used == name for used, _ in examples)
    for used, rest in examples:
        command = command_of(used)
        # below the group, as in use: click keeps the help option that a command's first context has made
        with group.make_context("gemsdata", [used]) as parent:
            context = command.make_context(used, shlex.split(rest), parent=parent)
            assert context.params or isinstance(command, click.Group)


def test_inputs_are_called_shards() -> None:
    for name in COMMANDS:
        for parameter in command_of(name).params:
            if isinstance(parameter, click.Argument):
                assert "OUT" not in parameter.make_metavar(click.Context(command_of(name)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finalize"], "error: No such command 'finalize'. Did you mean 'finalise'? Try 'gemsdata --help' for help."),
        (["xyzzy"], "error: No such command 'xyzzy'. Try 'gemsdata --help' for help."),
        (["audit", "S", "--maskin", "x"], "Did you mean '--masking'?"),
        (["shard"], "Try 'gemsdata shard --help' for help."),
        (["--nothing"], "No such option '--nothing'"),
    ],
)
def test_usage_errors_suggest_what_was_meant(capsys, arguments: list[str], message: str) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shard", "g.fa", "-o", "x", "--valid-contigs", "a", "--valid-fraction", "0.1"], "--valid-fraction exclude"),
        (["shard", "g.fa", "-o", "x", "--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["audit", "x", "--masking", "genemask", "--rate", "0.1", "--budget", "0.1"], "--rate and --budget exclude"),
        (["show", "x", "--masking", "genemask", "--budget-unit", "token"], "no effect without --budget"),
        (["query", "x", "SELECT 1 AS one", "--json", "--format", "csv"], "contradict each other"),
    ],
)
def test_options_that_contradict_are_refused(capsys, tmp_path, monkeypatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# output


def report_commands(shards: str, genome: str, folder: Path) -> dict[str, list[str]]:
    """A call of every command that reports something."""
    return {
        "audit": [shards, "--masking", "random-token", "--rows", "20"],
        "encode": [],
        "finalise": [],
        "info": [shards],
        "lint": [],
        "npmi": [genome, "-o", str(folder / "t.parquet"), "-k", "2", "--min-count", "2"],
        "query": [shards, "SELECT 1 AS one"],
        "shard": [genome, "-o", str(folder / "new"), *SHARD],
        "show": [shards, "--masking", "random-token"],
        "shuffle": [shards],
        "verify": [shards, "--fasta", genome],
    }


NO_REPORT = {"plot", "report", "serve"}
PROGRAMS = {"eval", "finetune", "pretrain"}
"""of train and eval; see `test_every_program_has_json_and_quiet`"""


def test_every_command_that_reports_has_json(shards: str, genome: str, tmp_path: Path, capfd) -> None:
    calls = report_commands(shards, genome, tmp_path)
    assert set(calls) | NO_REPORT | PROGRAMS == set(COMMANDS)
    for name, arguments in calls.items():
        assert any("--json" in parameter.opts for parameter in command_of(name).params), name
        if arguments:
            assert main([name, *arguments, "--json"]) == 0
            assert json.loads(capfd.readouterr().out), name


def test_quiet_leaves_results_and_errors(shards: str, genome: str, tmp_path: Path, capfd) -> None:
    results = {"audit", "info", "query", "show", "shuffle"}
    for name, arguments in report_commands(shards, genome, tmp_path).items():
        if arguments:
            assert main([name, *arguments, "--quiet"]) == 0
            said = capfd.readouterr()
            assert (said.out != "") == (name in results), name
            assert said.err == ""
    assert main(["shard", "absent.fa", "-o", str(tmp_path / "x"), "-q"]) == 2
    assert capfd.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "program", [command_of("pretrain"), command_of("finetune"), *EVAL_PROGRAMS], ids=lambda p: p.name
)
def test_every_program_has_json_and_quiet(program: Program, capsys) -> None:
    words = [program.name] if program.name in COMMANDS else ["eval", program.name]
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--json " in shown
    assert "-q, --quiet " in shown


def test_parts_are_reported_as_json(genome: str, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "parts")
    calls = [["shard", genome, "-o", out, *SHARD, "--plan-only"], ["encode", out, "--workers", "1"], ["finalise", out]]
    planned, encoded, finished = [], [], []
    for call, answer in zip(calls, (planned, encoded, finished), strict=True):
        assert main([*call, "--json"]) == 0
        answer.append(json.loads(capsys.readouterr().out))
    assert encoded[0]["num_encoded"] == planned[0]["num_parts"]
    assert len(finished[0]["fingerprint"]) == 64


def test_control_characters_of_files_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[31mb\x07\x9b\r") == "a\\x1b[31mb\\x07\\x9b\\r"
    assert printable("Ä\t–\n") == "Ä\t–\n"


# pipes and interrupts


@pytest.mark.parametrize("arguments", [["info", "SHARDS"], ["query", "SHARDS", "SELECT * FROM range(300000)"]])
def test_a_closed_pipe_is_no_error(shards: str, arguments: list[str]) -> None:
    command = shlex.join([*GEMSDATA, *[shards if word == "SHARDS" else word for word in arguments]])
    script = f"{command} | (exec 0<&-; sleep 0.2); exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_table_is_written_whole_to_files_and_pipes_and_cut_on_a_terminal(shards: str, tmp_path: Path) -> None:
    call = [*GEMSDATA, "query", shards, "SELECT range AS number, 'x' AS letter FROM range(2500)"]
    subprocess.run([*call, "-o", str(tmp_path / "r.txt")], check=True)
    lines = (tmp_path / "r.txt").read_text().splitlines()
    assert len(lines) == 2502
    assert lines[-1].split() == ["2499", "x"]
    piped = subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()
    assert piped == lines
    shown = on_a_terminal(call)
    assert "999" in shown
    assert "1000  x" not in shown
    assert "first 1,000 rows; use LIMIT, a pipe or -o FILE" in shown


def on_a_terminal(call: list[str], interrupt_after: str | None = None, **environment: str) -> str:
    """Run a command on a pseudo-terminal, with Ctrl-C once it has shown a text; return all that it has shown."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        call, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, **environment}, start_new_session=True
    )
    os.close(slave)
    shown = b""
    interrupted = False
    while True:
        try:
            block = os.read(master, 4096)
        except OSError:  # how Linux reports that the other end is closed
            break
        if not block:
            break
        shown += block
        if interrupt_after and interrupt_after.encode() in shown and not interrupted:
            interrupted = True
            os.killpg(process.pid, signal.SIGINT)
    process.wait(60)
    os.close(master)
    return shown.decode()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["shard", "g.fa", "-o", "a b"], "interrupted; to continue, run: gemsdata shard g.fa -o 'a b' --resume"),
        (
            ["shard", "g.fa", "-o", "s", "--overwrite"],
            "interrupted; to continue, run: gemsdata shard g.fa -o s --resume",
        ),
        (["shard", "--resume", "g.fa", "-o", "s"], "interrupted; to continue, run: gemsdata shard --resume g.fa -o s"),
        (["encode", "s"], "interrupted; finished parts are kept; run the same command again for the others"),
        (["npmi", "g.fa"], "interrupted; no table was written"),
        (["verify", "s"], "interrupted; the set was not compared in full; run the same command again"),
        (["show", "s"], "interrupted"),
        ([], "interrupted"),
    ],
)
def test_an_interrupt_says_what_that_command_leaves(arguments: list[str], line: str) -> None:
    assert errors.interrupted(arguments) == line


def test_ctrl_c_ends_a_command_with_one_line_and_130(shards: str) -> None:
    code = (
        "import signal, sys, time; from gemsdata.cli import main; import gemsdata.shards.verify.shard_set as m; "
        "import gemsdata.cli.verify as c; c.verify = lambda *a: (print('ready', flush=True), time.sleep(60)); "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored where the tests run in the background
        f"sys.exit(main(['verify', {shards!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "interrupted; the set was not compared in full; run the same command again"


@pytest.mark.compiled
def test_the_first_compilation_is_announced_on_a_terminal(genome: str, tmp_path: Path) -> None:
    call = [*GEMSDATA, "npmi", genome, "-o", str(tmp_path / "t.parquet"), "-k", "2", "--min-count", "2"]
    line = "compiling kernels for this machine; later runs use the cached result"
    assert line in on_a_terminal(call, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert line not in on_a_terminal(call, NUMBA_CACHE_DIR=str(tmp_path / "cache"))


# messages


def test_temporary_files_appear_under_their_final_name() -> None:
    name = temporary_name("table.v2.parquet")
    error = OSError(errno.EIO, "Input/output error", f"/data/{name}")
    assert errors.message(error, ["npmi"]) == "/data/table.v2.parquet: Input/output error"
    wrapped = ValueError(f"cannot write '/data/{name}': no")
    assert errors.message(wrapped, []) == "cannot write '/data/table.v2.parquet': no"
    assert errors.message(ValueError("IO Error: /dev/fd/7"), []) == "IO Error: standard output"
    full = OSError(errno.ENOSPC, "No space left on device", f"/data/{name}")
    assert errors.message(full, ["shard"]) == (
        "the disk is full: /data/table.v2.parquet: No space left on device; free some space and run the command again "
        "with --resume"
    )


@pytest.mark.parametrize(
    "program", [command_of("pretrain"), command_of("finetune"), *EVAL_PROGRAMS], ids=lambda p: p.name
)
def test_the_options_in_the_examples_of_a_program_exist(program: Program, capsys) -> None:
    words = [program.name] if program.name in COMMANDS else ["eval", program.name]
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    usage, _, examples = shown.partition("Examples:")
    assert usage.startswith(f"Usage: gemsdata {' '.join(words)} [OPTIONS]")
    used = set(re.findall(r"--[a-z-]+", examples))
    assert used
    assert used <= set(re.findall(r"--[a-z-]+", usage))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    environment = {**os.environ, "_GEMSDATA_COMPLETE": f"{shell}_source"}
    script = "import sys; from gemsdata.cli import main; sys.exit(main([]))"
    source = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert "gemsdata" in source.stdout
    answer = {**environment, "_GEMSDATA_COMPLETE": f"{shell}_complete", "COMP_WORDS": "gemsdata ver"}
    answer["COMP_CWORD"] = "ver" if shell == "fish" else "1"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=answer)
    assert "verify" in done.stdout


def test_the_module_of_every_command_has_it() -> None:
    for name in COMMANDS:
        assert import_module(f"gemsdata.cli.{name}").command.name == name
