"""The code in the README and in docs/ runs as it stands, page by page, in a folder with small genomes and sets.

The blocks of a page run in order and share their variables and files. Names of files are those of `small_files`.
"""

from __future__ import annotations

import configparser
import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml

import gemsdata as gd
from tests.doc_blocks import NOT_RUN, PAGES, REASONS, REPOSITORY, RUN, Block, blocks, commands, prints
from tests.ports import free_port

BLOCKS = {page.relative_to(REPOSITORY).as_posix(): blocks(page) for page in PAGES}
NUM_NOT_RUN = {}
"""Blocks of each page that are not run, by reason: a new one is to be justified here"""
PORT = "8815"


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


@pytest.fixture(scope="session")
def small_files(tmp_path_factory) -> Path:
    """The files that the pages name: genomes, an Arrow set and a packed set of one of them."""
    folder = tmp_path_factory.mktemp("small_files")
    from tools.synthesize import GenomeRecipe, write_fasta

    for name, seed in (("genome.fa", 0), ("yeast.fa", 1)):
        with open(folder / name, "wb") as stream:
            write_fasta(GenomeRecipe(num_bases=200_000, num_contigs=2, seed=seed), stream)
    options = gd.ShardOptions(min_count=5)
    for name, genome in (("human", "genome.fa"), ("yeast", "yeast.fa")):
        gd.shard([folder / genome], folder / name, options)
    gd.shard([folder / "genome.fa"], folder / "SET", gd.ShardOptions(min_count=5, format="packed"))
    for alias in ("OUT", "hg38", "SHARDS"):
        (folder / alias).symlink_to("human")
    (folder / "tss.bed").write_text("synth1\t20000\t20001\nsynth1\t60000\t60001\n")
    (folder / "blacklist.bed").write_text("synth1\t61000\t62000\n")
    return folder


@pytest.mark.compiled
@pytest.mark.parametrize("name", [name for name, page in BLOCKS.items() if any(block.is_run for block in page)])
def test_the_code_of_a_page_runs(name, small_files, tmp_path, monkeypatch):
    folder = tmp_path / "page"
    shutil.copytree(small_files, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with contextlib.ExitStack() as page:
        port, variables = str(free_port()), {"__name__": "__main__"}
        for block in BLOCKS[name]:
            if block.is_run:
                import time; t=time.time(); _run(block, block.text.replace(PORT, port), variables, page); print(block, time.time()-t, file=sys.stderr)


def _run(block: Block, text: str, variables: dict, page: contextlib.ExitStack) -> None:
    if block.language == "python":
        printed = io.StringIO()
        padded = "\n" * (block.line - 1) + text  # so that a traceback has the line of the page
        with contextlib.redirect_stdout(printed):
            exec(compile(padded, REPOSITORY / block.page, "exec"), variables)  # noqa: S102
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
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{block}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


@contextlib.contextmanager
def _served(command: str):
    """Run a server until the page ends."""
    words = [sys.executable, "-m", *shlex.split(command, comments=True)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline().startswith("serving")
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        server.stdout.close()
