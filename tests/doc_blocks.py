"""The fenced code blocks of the README and of docs/, the cells of notebooks, and what the pages say of them.

A block of python, bash or console is run. One that is not has this line before it, with one of `REASONS`:

    *Not run by the tests: it needs several hosts.*
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "docs" / "tutorials").glob("*.ipynb")),
]
RUN = ("bash", "console", "python")
NOT_RUN = ("ini", "json", "mermaid", "sql", "text", "toml", "yaml")
"""Languages of output, diagrams, configuration files, and of the queries that tests/test_queries_doc.py runs"""
REASONS = {
    "a clone": "it installs packages or runs the whole test suite",
    "a cluster": "it needs a job scheduler or several hosts with GPUs",
    "a GPU": "it needs a GPU",
    "a tokenizer": "it needs a trained BPE tokenizer; tests/test_views_tokens.py makes one",
    "a network": "it needs an account or files on another machine",
    "minutes": "it trains models; its options are parsed, and other tests run these programs at a small size",
    "several hosts": "it needs a second machine, and certificates of both",
}
"""What a page says after "needs", and what it means"""

_MARK = re.compile(r"\*Not run by the tests: needs (.+)\.\*")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language, text, the number of its first line, and why it is not run ("" if it is)."""

    page: str
    language: str
    text: str
    line: int
    reason: str
    output: str | None
    """of a python block: the text block directly below it, which is what it prints"""

    @property
    def is_run(self) -> bool:
        return self.language in RUN and not self.reason

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page in order; indented ones have no language."""
    if page.suffix == ".ipynb":
        return list(_cells(page))
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text())
    found = list(_fences(tokens))
    return [
        Block(
            page=page.relative_to(REPOSITORY).as_posix(),
            language=token.info.split()[0] if token.info else "",
            text=token.content,
            line=token.map[0] + 2,
            reason=_reason(tokens[:index]),
            output=following.content if following is not None and following.info == "text" else None,
        )
        for index, token, following in found
    ]


def _cells(notebook: Path) -> Iterator[Block]:
    """Yield the code cells of a notebook as blocks of python; their lines are those of the code alone."""
    line = 1
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            text = "".join(cell["source"]) + "\n"
            printed = ["".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stdout"]
            name = notebook.relative_to(REPOSITORY).as_posix()
            yield Block(page=name, language="python", text=text, line=line, reason="", output="".join(printed))
            line += text.count("\n")


def _fences(tokens: Sequence[Token]) -> Iterator[tuple[int, Token, Token | None]]:
    """Yield (index, block, block directly after it) of each code block."""
    for index, token in enumerate(tokens):
        if token.type in ("fence", "code_block"):
            after = tokens[index + 1] if index + 1 < len(tokens) else None
            yield index, token, after if after is not None and after.type == "fence" else None


def _reason(before: Sequence[Token]) -> str:
    """Return the reason that the paragraph before a block gives; "" if it gives none."""
    if len(before) < 3 or before[-1].type != "paragraph_close":
        return ""
    last_line = before[-2].content.splitlines()[-1]
    found = _MARK.fullmatch(last_line)
    return found[1] if found else ""


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield (command, output) of a console block: commands follow "$ ", go on after a backslash, and then print."""
    command: list[str] = []
    output: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield "\n".join(command), "\n".join(output)
            command, output = [line[2:]], []
        elif command and not output and command[-1].endswith("\\"):
            command.append(line)
        else:
            output.append(line)
    if command:
        yield "\n".join(command), "\n".join(output)


_TIMES = re.compile(r"\d[\d,.]*(?= (s|rows/s|Mbase/s)\b)")


def prints(expected: str, found: str) -> bool:
    """Return whether a program printed what the page says.

    A line "..." stands for any lines. Times and rates may differ, and numbers with a decimal point by 10 %: losses
    depend on the processor.
    """
    wanted, given = (
        [_TIMES.sub("#", line).split() for line in text.strip().splitlines()] for text in (expected, found)
    )
    return _match(wanted, given)


def _match(wanted: list[list[str]], given: list[list[str]]) -> bool:
    if not wanted:
        return not given
    if wanted[0] == ["..."]:
        return any(_match(wanted[1:], given[skipped:]) for skipped in range(len(given) + 1))
    return bool(given) and _same_line(wanted[0], given[0]) and _match(wanted[1:], given[1:])


def _same_line(wanted: list[str], given: list[str]) -> bool:
    return len(wanted) == len(given) and all(map(_same_word, wanted, given))


def _same_word(wanted: str, given: str) -> bool:
    if wanted == given:
        return True
    number = re.compile(r"-?\d+\.\d+")
    if not (number.fullmatch(wanted) and number.fullmatch(given)):
        return False
    return abs(float(wanted) - float(given)) <= 0.1 * abs(float(wanted))
