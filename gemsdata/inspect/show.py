"""Render one masked row as text: nucleotides, tokens, spans, span centres and ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from gemsdata.inspect.mask_counts import gram_ids, token_ends, tokens_are_grams
from gemsdata.masking.masker import UNMASKED
from gemsdata.masking.selection import Spans
from gemsdata.masking.strategies import Strategy
from gemsdata.masking.token_rows import TokenRows, hidden_bases
from gemsdata.shards.shard_set import ShardSet
from gemsdata.views.tokens import Tokens, text_of_bases
from gemsdata.views.view import View, open_view

LABEL_WIDTH = 10
NARROW, WIDE, ANCHOR = "-", "=", "^"
MOST_BASES = 4000


@dataclass(frozen=True, kw_only=True)
class MaskedRow:
    """A row before and after masking; arrays of T tokens and W bases."""

    title: str
    name: str
    tokens: Tokens
    bases: str
    """the nucleotides, N for a letter other than A, C, G, T"""
    token_ids: np.ndarray
    """ids before masking, [T]"""
    seen_ids: np.ndarray
    """ids after masking, [T]"""
    first_base: np.ndarray
    """position of the first base of each token in the row, int64[T]"""
    masked: np.ndarray
    """bool[T]"""
    hidden: np.ndarray
    """bases that are in no unmasked token, bool[W]"""
    ranks: np.ndarray
    """NPMI rank of the n-gram that begins at the token's first base, [T]; 0 if it extends beyond the row"""
    marks: str
    """one character per base: - in a narrow span, = in a wide one, ^ at the anchor of a span, else a space; for
    overlapping tokens, below the first base of each"""
    num_spans: int

    def as_dict(self, first: int = 0, last: int | None = None) -> dict[str, Any]:
        """Return the row, with the tokens from ``first`` to before ``last``, as a JSON-serialisable dict."""
        return {
            "title": self.title,
            "masking": self.name,
            "num_spans": self.num_spans,
            "bases": self.bases,
            "hidden": "".join("#" if hidden else "." for hidden in self.hidden.tolist()),
            "tokens": [
                {
                    "token_pos": t,
                    "base_pos": int(self.first_base[t]),
                    "token_id": int(self.token_ids[t]),
                    "seen_id": int(self.seen_ids[t]),
                    "masked": bool(self.masked[t]),
                    "rank": int(self.ranks[t]) or None,
                }
                for t in range(len(self.token_ids))[slice(first, last)]
            ],
        }


def mask_row(
    shards: ShardSet | View | str | Path,
    row: int,
    masking: str | Strategy,
    *,
    split: str = "train",
    seed: int = 0,
    stage: int = 0,
) -> MaskedRow:
    """Return row number ``row`` of a split of a shard set, or of a view of one, before and after masking.

    Rows of a view are those of epoch 0; a packed set is read with the default view. Raises ValueError if there is no
    such row.
    """
    view = open_view(shards)
    masker = view.masker(masking, seed=seed)
    if not 0 <= row < view.num_rows(split):
        raise ValueError(f"row {row} is not in split {split!r}: give 0 to {view.num_rows(split) - 1}")
    row_ids = np.array([row])
    found = view.rows(row_ids, split=split)
    rows, num_tokens, num_bases = found.tokens, int(found.tokens.num_tokens[0]), int(found.tokens.num_bases[0])
    spans = masker.spans_of(rows, row_ids, stage=stage)
    batch = masker.batch_of(rows, row_ids, stage=stage)
    masked = batch["labels"][:, 1:-1] != UNMASKED
    first_base = token_ends(rows)[0][0, :num_tokens]
    grams, num_grams = gram_ids(rows, masker.n)
    whole = first_base < num_grams[0]
    contig, start, end = (int(places[0]) for places in (found.contig, found.start, found.end))
    return MaskedRow(
        title=f"{split} row {row}: {view.shards.contig_names[contig]}:{start}-{end} (0-based, half-open),"
        f" {num_tokens} tokens {_described(view.tokens)}",
        name=masker.strategy.name,
        tokens=view.tokens,
        bases=text_of_bases(rows.bases[0, :num_bases]),
        token_ids=rows.input_ids[0, :num_tokens],
        seen_ids=batch["input_ids"][0, 1 : num_tokens + 1],
        first_base=first_base,
        masked=masked[0, :num_tokens],
        hidden=hidden_bases(rows, masked)[0, :num_bases],
        ranks=np.where(whole, masker.ranks[grams[0, np.where(whole, first_base, 0)]], 0),
        marks=_marks(spans, rows, first_base, tokens_are_grams(rows, masker.n)),
        num_spans=len(spans.lo),
    )


def _described(tokens: Tokens) -> str:
    if tokens.varying:
        return f"of {tokens.spec}, {tokens.token_bases} bases on average"
    every = f", one every {tokens.token_stride}" if tokens.token_stride > 1 else ""
    return f"of {tokens.token_bases} base{'s' * (tokens.token_bases > 1)}{every}"


def _marks(spans: Spans, rows: TokenRows, first_base: np.ndarray, anchors_are_tokens: bool) -> str:
    """Return the marks of a row's bases."""
    end = int(rows.num_bases[0])
    borders = [*first_base.tolist(), end]
    marks = [" "] * end
    overlapping = rows.token_start is None and rows.token_stride < rows.token_bases
    for mark in (NARROW, WIDE):
        for lo, hi, _, wide in spans.row(0):
            if wide == (mark == WIDE):
                stop = borders[hi - 1] + 1 if overlapping else borders[hi]
                marks[borders[lo] : stop] = mark * (stop - borders[lo])
    for lo, hi, anchor, _ in spans.row(0):
        if anchors_are_tokens and not lo <= anchor < hi:  # a budget may trim the anchor off
            continue
        if 0 <= anchor < end and marks[anchor] != " ":
            marks[anchor] = ANCHOR
    return "".join(marks)


def render_row(
    row: MaskedRow, *, width: int = 100, color: bool = False, first: int = 0, last: int | None = None
) -> Iterator[str]:
    """Yield lines of text: the nucleotides of the row with its spans, then tokens first .. last-1 one by one.

    For a row longer than 4,000 bases, only the bases of these tokens are shown.

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
    shown = range(len(row.bases))
    if len(row.bases) > MOST_BASES and first < end:
        shown = shown[row.first_base[first] : row.first_base[end] if end < num_tokens else None]
    yield from _map(row, shown, max(10, (width - LABEL_WIDTH) // 10 * 10), style)
    cell = max([6, *(len(row.tokens.text(int(i))) for i in row.token_ids[first:end])]) + 2
    per_line = max(1, (width - LABEL_WIDTH) // cell)
    for lo in range(first, end, per_line):
        yield ""
        yield from _tokens(row, lo, min(lo + per_line, end), cell, style)


def _map(row: MaskedRow, shown: range, per_line: int, style: Callable[..., str]) -> Iterator[str]:
    """Yield the nucleotides with their spans below."""
    for lo in range(shown.start, shown.stop, per_line):
        cut = slice(lo, min(lo + per_line, shown.stop))
        letters = zip(row.bases[cut], row.hidden[cut].tolist(), strict=True)
        text = "".join(style(base, fg="red", bold=True) if hidden else base for base, hidden in letters)
        yield f"{lo:>{LABEL_WIDTH - 2}}  {text}"
        if row.marks[cut].strip():
            yield _line("spans", style(row.marks[cut].rstrip(), fg="cyan"))
        if row.hidden[cut].any():
            yield _line("hidden", "".join("#" if hidden else " " for hidden in row.hidden[cut].tolist()))


def _tokens(row: MaskedRow, lo: int, hi: int, width: int, style: Callable[..., str]) -> Iterator[str]:
    here, text_of = range(lo, hi), row.tokens.text
    mask_id = row.tokens.vocabulary.mask_id

    def columns(texts: list[str], **how: bool | str) -> str:
        padded = [f"{text:>{width}}" for text in texts]
        return "".join(style(text, **how) if how else text for text in padded)

    seen = []
    for t in here:
        text = f"{text_of(int(row.seen_ids[t])):>{width}}"
        if not row.masked[t]:
            seen.append(text)
        elif row.seen_ids[t] == mask_id:
            seen.append(style(text, fg="red", bold=True))
        else:
            seen.append(style(text, fg="green" if row.seen_ids[t] == row.token_ids[t] else "yellow"))
    marks = [_mark_of(row, t) for t in here]
    spans = ["" if mark == " " else _centred(mark, width - 1) for mark in marks]
    answers = [text_of(int(row.token_ids[t])) if row.masked[t] else "" for t in here]
    yield _line("position", columns([str(t) for t in here], dim=True))
    yield _line("base", columns([row.bases[row.first_base[t]] for t in here]))
    yield _line("model sees", "".join(seen))
    if any(answers):
        yield _line("answer", columns(answers))
        yield _line("spans", columns(spans, fg="cyan"))
    yield _line("NPMI rank", columns([str(int(row.ranks[t]) or "-") for t in here]))


def _mark_of(row: MaskedRow, t: int) -> str:
    """Return the mark of a token: an anchor on one of the bases up to the next token, else that of its first base."""
    end = row.first_base[t + 1] if t + 1 < len(row.first_base) else row.first_base[t] + 1
    marks = row.marks[row.first_base[t] : end]
    return ANCHOR if ANCHOR in marks else marks[:1] or " "


def _centred(mark: str, width: int) -> str:
    """Return a mark as wide as a token, with an anchor centred between the signs of its span."""
    return f"{mark:{WIDE if mark == ANCHOR else mark}^{width}}"


def _of(flags: np.ndarray) -> str:
    return f"{int(flags.sum())} of {len(flags)} ({flags.mean() if len(flags) else 0:.1%})"


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL_WIDTH}}{text}".rstrip()


def _plain(text: str, **how: bool | str) -> str:
    return text
