"""Render one masked row as text: nucleotides, tokens, spans, span centres and ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from gemsdata.genome.vocab import MASK_ID, token
from gemsdata.kernels.mask import hidden_bases
from gemsdata.masking.curriculum import strategy_in_stage
from gemsdata.masking.masker import UNMASKED, Masker
from gemsdata.masking.strategies import Strategy
from gemsdata.shards.shard_set import ShardSet

LABEL_WIDTH = 10
NARROW, WIDE, ANCHOR = "-", "=", "^"


@dataclass(frozen=True, kw_only=True)
class MaskedRow:
    """A row before and after masking; arrays of T tokens and T+k-1 bases."""

    title: str
    name: str
    k: int
    token_ids: np.ndarray
    """ids before masking, [T]"""
    seen_ids: np.ndarray
    """ids after masking, [T]"""
    masked: np.ndarray
    """bool[T]"""
    hidden: np.ndarray
    """bases that are in no unmasked token, bool[T+k-1]"""
    ranks: np.ndarray
    """NPMI ranks, [T]"""
    marks: str
    """one character per token: - in a narrow span, = in a wide one, ^ at the anchor of a span, else a space"""
    num_spans: int

    def as_dict(self, first: int = 0, last: int | None = None) -> dict[str, Any]:
        """Return the row, with the tokens from ``first`` to before ``last``, as a JSON-serialisable dict."""
        chosen = slice(first, last)
        return {
            "title": self.title,
            "masking": self.name,
            "num_spans": self.num_spans,
            "bases": self.bases,
            "hidden": "".join("#" if hidden else "." for hidden in self.hidden.tolist()),
            "tokens": [
                {"token_pos": t, "token_id": int(true), "seen_id": int(seen), "masked": bool(masked), "rank": int(rank)}
                for t, true, seen, masked, rank in zip(
                    range(len(self.token_ids))[chosen],
                    self.token_ids[chosen],
                    self.seen_ids[chosen],
                    self.masked[chosen],
                    self.ranks[chosen],
                    strict=True,
                )
            ],
        }

    @property
    def bases(self) -> str:
        """The nucleotides."""
        kmers = [token(int(i), self.k) for i in self.token_ids]
        return kmers[0] + "".join(kmer[-1] for kmer in kmers[1:]) if kmers else ""


def mask_row(
    shards: ShardSet | str | Path,
    row: int,
    masking: str | Strategy,
    *,
    split: str = "train",
    seed: int = 0,
    stage: int = 0,
) -> MaskedRow:
    """Return row number ``row`` of a split before and after masking; raise ValueError if there is no such row."""
    shards = shards if isinstance(shards, ShardSet) else ShardSet.open(shards)
    masker = Masker(strategy_in_stage(masking, stage), ranks=shards.ranks, seed=seed)
    if not 0 <= row < shards.num_rows(split):
        raise ValueError(f"row {row} is not in split {split!r}: give 0 to {shards.num_rows(split) - 1}")
    row_ids = np.array([row])
    rows = shards.read(split, row_ids)
    num_tokens, k = int(rows.num_tokens[0]), shards.k
    spans = masker.spans(rows.input_ids, rows.num_tokens, row_ids, stage=stage)
    batch = masker.batch(rows.input_ids, rows.num_tokens, row_ids, stage=stage)
    masked = batch["labels"][:, 1:-1] != UNMASKED
    hidden = np.empty((1, masked.shape[1] + k - 1), np.bool_)
    hidden_bases(np.ascontiguousarray(masked), rows.num_tokens.astype(np.int64), k, hidden)
    marks = [" "] * num_tokens
    for mark in (NARROW, WIDE):
        for lo, hi, _, wide in spans.row(0):
            if wide == (mark == WIDE):
                marks[lo:hi] = mark * (hi - lo)
    for lo, hi, anchor, _ in spans.row(0):
        if lo <= anchor < hi:  # a budget may cut the anchor off
            marks[anchor] = ANCHOR
    start = int(rows.start[0])
    return MaskedRow(
        title=f"{split} row {row}: {shards.contig_names[int(rows.contig[0])]}:{start}-{start + num_tokens + k - 1}"
        f" (0-based, half-open), {num_tokens} tokens of {k} bases",
        name=masker.strategy.name,
        k=k,
        token_ids=rows.input_ids[0, :num_tokens],
        seen_ids=batch["input_ids"][0, 1 : num_tokens + 1],
        masked=masked[0, :num_tokens],
        hidden=hidden[0, : num_tokens + k - 1],
        ranks=masker.ranks[rows.input_ids[0, :num_tokens]],
        marks="".join(marks),
        num_spans=len(spans.lo),
    )


def render_row(
    row: MaskedRow, *, width: int = 100, color: bool = False, first: int = 0, last: int | None = None
) -> Iterator[str]:
    """Yield lines of text: the nucleotides of the row with its spans, then tokens first .. last-1 one by one.

    Parameters
    ----------
    width
        characters per line.
    color
        use terminal colours; the text carries the same information without them.
    """
    style: Callable[..., str] = click.style if color else _plain
    num_tokens = len(row.token_ids)
    end = num_tokens if last is None else min(last, num_tokens)
    yield row.title
    yield f"{row.name}: {row.num_spans} spans, {_of(row.masked)} tokens masked, {_of(row.hidden)} nucleotides hidden"
    yield f"spans: {WIDE} wide, {NARROW} narrow, {ANCHOR} anchor; hidden: # bases that are in no unmasked token"
    yield ""
    yield from _map(row, max(10, (width - LABEL_WIDTH) // 10 * 10), style)
    per_line = max(1, (width - LABEL_WIDTH) // (max(row.k, 6) + 2))
    for lo in range(first, end, per_line):
        yield ""
        yield from _tokens(row, lo, min(lo + per_line, end), style)


def _map(row: MaskedRow, per_line: int, style: Callable[..., str]) -> Iterator[str]:
    """Yield the nucleotides with their spans below; the mark of a token is under its first base."""
    bases = row.bases
    for lo in range(0, len(bases), per_line):
        cut = slice(lo, lo + per_line)
        letters = zip(bases[cut], row.hidden[cut].tolist(), strict=True)
        text = "".join(style(base, fg="red", bold=True) if hidden else base for base, hidden in letters)
        yield f"{lo:>{LABEL_WIDTH - 2}}  {text}"
        if row.marks[cut].strip():
            yield _line("spans", style(row.marks[cut].rstrip(), fg="cyan"))
        if row.hidden[cut].any():
            yield _line("hidden", "".join("#" if hidden else " " for hidden in row.hidden[cut].tolist()))


def _tokens(row: MaskedRow, lo: int, hi: int, style: Callable[..., str]) -> Iterator[str]:
    width = max(row.k, 6) + 2
    here = range(lo, hi)

    def columns(texts: list[str], **how: bool | str) -> str:
        padded = [f"{text:>{width}}" for text in texts]
        return "".join(style(text, **how) if how else text for text in padded)

    seen = []
    for t in here:
        text = f"{token(int(row.seen_ids[t]), row.k):>{width}}"
        if not row.masked[t]:
            seen.append(text)
        elif row.seen_ids[t] == MASK_ID:
            seen.append(style(text, fg="red", bold=True))
        else:
            seen.append(style(text, fg="green" if row.seen_ids[t] == row.token_ids[t] else "yellow"))
    bases = row.bases
    spans = ["" if mark == " " else _centred(mark, width - 1) for mark in row.marks[lo:hi]]
    answers = [token(int(row.token_ids[t]), row.k) if row.masked[t] else "" for t in here]
    yield _line("position", columns([str(t) for t in here], dim=True))
    yield _line("base", columns([bases[t] for t in here]))
    yield _line("model sees", "".join(seen))
    if any(answers):
        yield _line("answer", columns(answers))
        yield _line("spans", columns(spans, fg="cyan"))
    yield _line("NPMI rank", columns([str(int(row.ranks[t])) for t in here]))


def _centred(mark: str, width: int) -> str:
    """Return a mark as wide as a token, an anchor between the signs of its span."""
    return f"{mark:{WIDE if mark == ANCHOR else mark}^{width}}"


def _of(flags: np.ndarray) -> str:
    return f"{int(flags.sum())} of {len(flags)} ({flags.mean() if len(flags) else 0:.1%})"


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL_WIDTH}}{text}".rstrip()


def _plain(text: str, **how: bool | str) -> str:
    return text
