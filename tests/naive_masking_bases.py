"""Masking of any tokens as plain Python, a row at a time, written from docs/masking.md: slow, easy to believe."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from tests.naive_masking import (
    CLS,
    CORRUPTION,
    LENGTHS,
    MASK,
    SEP,
    TIES,
    TRIM,
    below,
    bernoulli,
    draw,
    fold,
    shuffled,
)


@dataclass
class NaiveRow:
    """A row: its letters as digits (4: not ACGT), which bases each token covers, which may be hidden."""

    bases: list[int]
    tokens: list[tuple[int, int]]
    ids: list[int]
    may: list[bool]
    overlapping: bool
    """neighbouring tokens share bases, so that a token over a letter that is not ACGT is [UNK] and shows nothing"""
    grams_are_tokens: bool
    over: list[set[int]] = field(init=False)
    """the tokens over each base"""
    frozen: set[int] = field(init=False)

    def __post_init__(self):
        self.over = [set() for _ in self.bases]
        for t, (first, end) in enumerate(self.tokens):
            for b in range(first, end):
                self.over[b].add(t)
        self.may = [self.may[b] and self.bases[b] < 4 for b in range(len(self.bases))]
        if self.overlapping:
            self.frozen = {t for t, (a, e) in enumerate(self.tokens) if max(self.bases[a:e]) > 3}
        else:  # masking a token hides all of it
            self.frozen = {t for t, (a, e) in enumerate(self.tokens) if not all(self.may[a:e])}
            self.may = [not over & self.frozen if over else may for over, may in zip(self.over, self.may, strict=True)]

    def touching(self, hidden):
        return {t for b in hidden if 0 <= b < len(self.bases) for t in self.over[b]}

    def allowed(self, hidden):
        """Whether the bases, and those that only tokens over them show, may all be hidden."""
        hidden = {b for b in hidden if 0 <= b < len(self.bases)}
        touching = self.touching(hidden)
        if self.overlapping and hidden:
            first = min(hidden)
            end = max(hidden)
            covered = {b for b in range(len(self.bases)) if self.over[b] and self.over[b] <= touching}
            lo, hi = min([first, *covered]), max([end, *covered])
            hidden = set(range(lo, hi + 1))
        return all(self.may[b] for b in hidden)

    def hidden_by(self, masked):
        """Bases that no unmasked token shows."""
        blind = {t for t in self.frozen if self.overlapping}
        return {b for b, over in enumerate(self.over) if over & masked and over <= masked | blind}


def rank_of(name, row, ranks, n, g):
    """The rank of n-gram g; None where it may not be hidden."""
    if not row.allowed(range(g, g + n)):
        return None
    if name.endswith("-released"):
        position = g + 1
        if position < 5:
            return 0 if name == "genemask-released" else 4**n
        return ranks[position] if position < 4**n + 5 else 4**n
    value = 0
    for b in row.bases[g : g + n]:
        value = 4 * value + b
    return ranks[value + 5]


def choices(name, key, row, ranks, n, stage, centres, keep_going):
    """What is hidden, in order of priority: sets of bases, or of random-token tokens; only what is allowed."""
    num_grams = max(0, len(row.bases) - n + 1)
    offset = n // 2 if row.grams_are_tokens else 0

    def tie(place):
        return draw(fold(key, TIES), place)

    def gram(g):
        return set(range(g, g + n))

    if name == "dnabert":
        found = [{c + offset} for c in centres]
    elif name == "random-span":
        found = [gram(g) for g in centres]
    elif name == "randommask":
        longest = n + 2 * min(stage, n)
        found = []
        for c in centres:
            length = n + below(draw(fold(key, LENGTHS), c), longest - n + 1)
            first = c + offset - n // 2 + n - 1 - (length - 1) // 2
            found.append(set(range(first, first + length - n + 1)))
    elif name.startswith("genemask"):
        entries = []
        for c in centres:
            b = c + offset
            if not row.allowed({b}):
                continue
            near = range(max(0, b - n + 1), min(num_grams, b + 1))
            ranked = [(rank_of(name, row, ranks, n, g), tie(g), g) for g in near]
            best = min([entry for entry in ranked if entry[0] is not None], default=None)
            rank, g = (float("inf"), None) if best is None else (best[0], best[2])
            entries.append((rank, tie(c), g, b))
        entries.sort(key=lambda entry: entry[:2])
        high = -(-len(entries) // 2)
        if name == "genemask-released" and high < 5:
            high = len(entries)
        found = [gram(g) if i < high and g is not None else {b} for i, (*_, g, b) in enumerate(entries)]
    else:
        ranked = [(rank_of(name, row, ranks, n, g), tie(g), g) for g in range(num_grams)]
        order = [g for *_, g in sorted(entry for entry in ranked if entry[0] is not None)]
        if name == "global-nms":
            first = []
            for g in order:
                if all(abs(g - other) > 2 * (n - 1) for other in first):
                    first.append(g)
            order = first + ([g for g in order if g not in first] if keep_going else [])
        found = [gram(g) for g in order[: len(centres)]]
    return [hidden for hidden in found if row.allowed(hidden)]


def spans_of(name, key, row, ranks, n, stage, centres, keep_going):
    """Ranges of tokens, in order of priority."""
    if name == "random-token":
        return [[c] for c in centres if all(row.may[b] for b in range(*row.tokens[c]))]
    found = choices(name, key, row, ranks, n, stage, centres, keep_going)
    spans, masked = [], set()
    for hidden in found:  # one that would hide, with those before it, a base that may not be hidden is left out
        touching = row.touching(hidden)
        together = masked | (touching - row.frozen)
        if all(row.may[b] for b in row.hidden_by(together)):
            spans.append(sorted(touching))
            masked = together
    return spans


def num_places(name, row, n):
    if name == "random-token":
        return len(row.tokens)
    if row.grams_are_tokens or name == "random-span" or name.startswith("global"):
        return max(0, len(row.bases) - n + 1)
    return len(row.bases)


def least_gain(row, token_bases, token_stride, varies):
    if varies:
        return min((end - first for first, end in row.tokens), default=1)
    if token_stride >= token_bases:
        return token_bases
    edges = sorted({t * token_stride + add for t in range(20) for add in (0, token_bases)})
    middle = [edge for edge in edges if 2 * token_bases <= edge <= 20 * token_stride - token_bases]
    return min(b - a for a, b in itertools.pairwise(middle)) if len(middle) > 1 else 1


def mask_to_budget(key, row, spans, target, by_base, slack):
    """Mask token by token up to the target; returns (masked, reached)."""
    from_right = draw(fold(key, TRIM), 0) & 1
    masked = set()

    def size(mask):
        return len(row.hidden_by(mask)) if by_base else len(mask)

    for tokens in spans:
        for t in reversed(tokens) if from_right else tokens:
            if size(masked) == target:
                return masked, True
            if t in row.frozen or t in masked:
                continue
            if size(masked | {t}) > target:
                break
            masked.add(t)
    return masked, size(masked) + slack >= target


def masked_tokens(name, key, row, ranks, n, stage, rate, budget, unit, slack):
    if budget is None:
        centres = bernoulli(key, num_places(name, row, n), rate)
        spans = spans_of(name, key, row, ranks, n, stage, centres, False)
        return {t for tokens in spans for t in tokens} - row.frozen
    by_base = unit == "nucleotide"
    covered = [may and bool(over) for may, over in zip(row.may, row.over, strict=True)]
    counted = sum(covered) if by_base else len(row.tokens) - len(row.frozen)
    target = round(budget * counted)
    masked = set()
    places = num_places(name, row, n)
    for count in range(places + 1):
        spans = spans_of(name, key, row, ranks, n, stage, shuffled(key, places, count), True)
        masked, reached = mask_to_budget(key, row, spans, target, by_base, slack if by_base else 0)
        if reached:
            break
    return masked


def row_batch(key, row, masked, random_ids, corruption, length):
    """(input_ids, labels, attention_mask) of length + 2, with the special ids of k-mer vocabularies."""
    padding = [0] * (length - len(row.ids))
    labels = [row.ids[t] if t in masked else -100 for t in range(len(row.ids))]
    seen = list(row.ids)
    for t in masked:
        first = t
        while corruption == "span" and (first - 1 in masked):
            first -= 1
        tenth = below(draw(fold(key, CORRUPTION), first), 10)
        low = draw(fold(key, CORRUPTION), t) % (1 << 32)
        if corruption == "mask" or tenth < 8:
            seen[t] = MASK
        elif tenth == 8:
            seen[t] = random_ids[low * len(random_ids) >> 32]
    return [CLS, *seen, SEP, *padding], [-100, *labels, -100, *[-100] * len(padding)], [1] * (len(seen) + 2) + padding
