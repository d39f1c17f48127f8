"""The code in the README and in docs/ runs as it stands, page by page, in a folder with small genomes and sets.

The blocks of a page run in order and share their variables and files. Names of files are those of `small_files`.
tests/test_recipes.py runs the recipes of docs/stream.md and docs/views.md, which start process groups.
"""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import gzip
import importlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import gemsdata as gd
from gemsdata.cli import group as gemsdata_command
from gemsdata.masking import registry
from tests.doc_blocks import NOT_RUN, PAGES, REASONS, REPOSITORY, RUN, Block, blocks, commands, prints
from tests.genomes import random_dna
from tests.ports import free_port
from tests.test_recipes import RECIPES, VIEW_RECIPES
from tools.synthesize import GenomeRecipe, write_fasta
from train import options

BLOCKS = {page.relative_to(REPOSITORY).as_posix(): blocks(page) for page in PAGES}
NUM_NOT_RUN: dict[str, dict[str, int]] = {
    "README.md": {"a clone": 1, "minutes": 1},
    "docs/cli.md": {"minutes": 1},
    "docs/clusters.md": {"a cluster": 5},
    "docs/evaluation.md": {"minutes": 4},
    "docs/experiments.md": {"minutes": 6},
    "docs/format.md": {"a cluster": 1},
    "docs/getting-started.md": {"a clone": 1},
    "docs/motifs.md": {"minutes": 1},
    "docs/queries.md": {"a network": 1},
    "docs/reliability.md": {"a network": 1},
    "docs/remote.md": {"a network": 6},
    "docs/scale.md": {"a cluster": 2},
    "docs/service.md": {"a cluster": 2, "several hosts": 4},
    "docs/training.md": {"a GPU": 1, "a cluster": 1, "minutes": 1},
    "docs/views.md": {"a tokenizer": 2},
}
"""Blocks of each page that are not run, by reason: a new one is to be justified here"""
PORT = "8815"
"""of a server in the pages; the tests take a free one"""
LONG = {"NUM_STEPS = 60": "NUM_STEPS = 2", "SEEDS = (1, 2, 3)": "SEEDS = (1, 2)"}
"""Settings of a notebook that trains several models, and shorter ones; what it then prints is not compared"""
PROGRAMS = {
    "accelerate launch -m gemsdata pretrain": "train.pretrain",
    "gemsdata pretrain": "train.pretrain",
    "gemsdata finetune": "train.finetune",
    "gemsdata eval compare": "eval.compare.__main__",
    "gemsdata eval fewshot": "eval.fewshot.__main__",
    "gemsdata eval gue": "eval.gue.__main__",
    "gemsdata eval motifs": "eval.motifs.__main__",
    "python train/pretrain.py": "train.pretrain",
    "python -m eval.compare": "eval.compare.__main__",
    "python -m eval.fewshot": "eval.fewshot.__main__",
    "python -m eval.gue": "eval.gue.__main__",
}


def test_every_block_is_run_or_says_why_not():
    for block in [block for page in BLOCKS.values() for block in page]:
        assert block.language in RUN + NOT_RUN, f"{block}: give the block a language of {RUN + NOT_RUN}"
        assert block.reason in ("", *REASONS), f"{block}: {block.reason!r} is none of {list(REASONS)}"
        assert block.language in RUN or not block.reason, f"{block}: {block.language} is never run"
    found = {name: Counter(block.reason for block in page if block.reason) for name, page in BLOCKS.items()}
    assert {name: dict(reasons) for name, reasons in found.items() if reasons} == NUM_NOT_RUN


@pytest.mark.parametrize("name", BLOCKS)
def test_configuration_files_parse(name):
    parsers = {
        "ini": lambda text: configparser.ConfigParser(strict=False, interpolation=None).read_string(text),
        "json": json.loads,
        "toml": tomllib.loads,
        "yaml": lambda text: list(yaml.safe_load_all(text)),
    }
    for block in BLOCKS[name]:
        if block.language in parsers:
            parsers[block.language](block.text)


@pytest.mark.once
@pytest.mark.parametrize("name", BLOCKS)
def test_the_options_of_programs_that_train_exist(name, monkeypatch):
    """Blocks that need minutes: every command is parsed, and stops before it does anything."""
    for block in BLOCKS[name]:
        if block.reason == "minutes":
            lines = [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]
            for line in lines:
                _parse(block, line, monkeypatch)


class _ParsedError(Exception):
    """The options were parsed."""


def _parse(block: Block, line: str, monkeypatch) -> None:
    words = shlex.split(line, comments=True)
    for prefix, module in PROGRAMS.items():
        if words[: len(prefix.split())] == prefix.split():
            program, arguments = importlib.import_module(module), words[len(prefix.split()) :]
            break
    else:
        command = gemsdata_command.get_command(None, words[1])
        assert words[0] == "gemsdata", f"{block}: what is {line!r}?"
        assert command is not None, f"{block}: there is no command {words[1]!r}"
        command.make_context(words[1], words[2:], resilient_parsing=False)
        return

    def parsed(config, given, *, prog, description):
        with options.parsed(config, given, prog=prog, description=description):
            raise _ParsedError

    monkeypatch.setattr(program, "parsed", parsed)
    with pytest.raises(_ParsedError):
        program.main(arguments)


@pytest.fixture(scope="session")
def small_files(tmp_path_factory) -> Path:
    """The files that the pages name: genomes, sets, intervals, labelled sequences and the log of a run."""
    folder = tmp_path_factory.mktemp("small_files")
    for name, seed in (("genome.fa", 0), ("yeast.fa", 1)):
        with open(folder / name, "wb") as stream:
            write_fasta(GenomeRecipe(num_bases=200_000, num_contigs=2, seed=seed), stream)
        text = (folder / name).read_bytes().replace(b">synth", b">chr")
        (folder / name).write_bytes(text)
        (folder / f"{name}.gz").write_bytes(gzip.compress(text, 1))
    transcripts = (f">t{i}\nAUG{random_dna(600, i).replace('T', 'U')}\n" for i in range(20))
    (folder / "transcripts.fa").write_text("".join(transcripts))
    gd.shard([folder / "genome.fa"], folder / "human", gd.ShardOptions(min_count=5))
    gd.shard([folder / "yeast.fa"], folder / "yeast", gd.ShardOptions(min_count=5))
    gd.shard(
        [folder / "genome.fa"], folder / "tars", gd.ShardOptions(min_count=5, format="webdataset", rows_per_shard=1024)
    )
    for alias in ("OUT", "SHARDS"):
        (folder / alias).symlink_to("human")
    (folder / "tss.bed").write_text("chr1\t20000\t20001\nchr1\t60000\t60001\n")
    (folder / "blacklist.bed").write_text("chr1\t61000\t62000\n")
    for task in ("GUE/tf/4", "fewshot/Prom-core/10"):
        (folder / task).mkdir(parents=True)
        for number, name in enumerate(("train.csv", "test.csv")):
            rows = [f"{random_dna(60, 10 * number + i)},{i % 2}" for i in range(10)]
            (folder / task / name).write_text("\n".join(["sequence,label", *rows]) + "\n")
    for name in ("RUN1", "RUN2"):
        (folder / name).mkdir()
        lines = [json.dumps({"step": step, "loss": 8 - step / 10, "stage": 0}) for step in (1, 2, 3)]
        (folder / name / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.compiled
@pytest.mark.parametrize("name", [name for name, page in BLOCKS.items() if any(block.is_run for block in page)])
def test_the_code_of_a_page_runs(name, small_files, tmp_path, monkeypatch):
    folder = tmp_path / "page"
    shutil.copytree(small_files, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for known in ("_STRATEGIES", "_CURRICULA"):  # pages register their own
        monkeypatch.setattr(registry, known, dict(getattr(registry, known)))
    with contextlib.ExitStack() as page:
        replaced = {PORT: str(free_port()), **LONG}
        variables = {"__name__": "__main__"}
        shortened = any(setting in block.text for block in BLOCKS[name] for setting in LONG)
        for block in BLOCKS[name]:
            if block.is_run and block.text not in (*RECIPES.values(), *VIEW_RECIPES.values()):
                text = block.text
                for old, new in replaced.items():
                    text = text.replace(old, new)
                _run(dataclasses.replace(block, output=None) if shortened else block, text, variables, page)


def _run(block: Block, text: str, variables: dict, page: contextlib.ExitStack) -> None:
    if block.language == "python":
        printed = io.StringIO()
        padded = "\n" * (block.line - 1) + text  # so that a traceback has the line of the page
        with contextlib.redirect_stdout(printed):
            exec(compile(padded, REPOSITORY / block.page, "exec"), variables)
        if block.output is not None:
            assert prints(block.output, printed.getvalue()), f"{block} printed:\n{printed.getvalue()}"
    elif block.language == "console":
        for command, output in commands(text):
            printed = _bash(block, command)
            assert prints(output, printed), f"{block}: {command} printed:\n{printed}"
    elif "gemsdata serve" in text:
        page.enter_context(_served(text))
    else:
        _bash(block, text)


def _bash(block: Block, text: str) -> str:
    """Run a script in bash, and return what it prints to either stream."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{block}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


@contextlib.contextmanager
def _served(command: str) -> Iterator[None]:
    """Run a server until the page ends, on the port that its comment names."""
    port = re.search(r"127\.0\.0\.1:(\d+)", command)
    words = [sys.executable, "-m", *shlex.split(command, comments=True), "--port", port[1]]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline().startswith("serving")
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        server.stdout.close()
