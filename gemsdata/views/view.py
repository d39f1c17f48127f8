"""A view of a shard set: which windows are rows, and of which tokens."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from gemsdata.masking.token_rows import Vocabulary
from gemsdata.shards.packed import split_stretches
from gemsdata.shards.shard_set import ShardSet
from gemsdata.views.base_reader import contigs_of
from gemsdata.views.options import ViewOptions
from gemsdata.views.reader import ViewReader, ViewRows
from gemsdata.views.regions import BedRegions, check_each_leaves_a_row, read_bed
from gemsdata.views.tokens import Tokens, resolve_tokens
from gemsdata.views.track import Track
from gemsdata.views.windows import EpochWindows, cut_stretches

SPLITS = ("train", "valid")


class View:
    """The rows of a shard set of packed bases, seen as windows of some tokens; `gemsdata.view` makes one.

    ``len(view)`` is the number of training rows of an epoch.
    """

    def __init__(self, shards: ShardSet, tokens: Tokens, options: ViewOptions) -> None:
        if not shards.manifest.packed:
            raise ValueError(
                f"{shards.store} holds rows of tokens, not packed bases: make the set with --format packed to view it"
                f" as {tokens.spec!r}"
            )
        self.shards, self.tokens, self.options = shards, tokens, options
        self.row_tokens, self.row_bases = options.geometry(tokens)
        """tokens and bases of a full row"""
        self.contigs = contigs_of(shards)
        self.track = None if options.track is None else Track(options.track, self.contigs)
        self._shortest = 1 if tokens.varying else tokens.token_bases
        self._stretches = self._find_stretches()
        self._windows = {split: self._cut(split) for split in SPLITS}
        self._readers: dict[str, ViewReader] = {}
        if not len(self):
            raise ValueError(f"{shards.store}: {self._why_no_row()}")

    def __len__(self) -> int:
        return self.num_rows("train")

    def num_rows(self, split: str = "train") -> int:
        """Return the number of rows of an epoch; raise ValueError when there is no such split."""
        return len(self.windows(split))

    @property
    def vocabulary(self) -> Vocabulary:
        """The token ids."""
        return self.tokens.vocabulary

    def windows(self, split: str) -> EpochWindows:
        """Return where the rows of a split lie; raise ValueError when there is no such split."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown; the set has {', '.join(SPLITS)}")
        return self._windows[split]

    def _cut(self, split: str) -> EpochWindows:
        varying = self.tokens.varying
        return cut_stretches(
            self._stretches[split],
            row_tokens=self.row_bases if varying else self.row_tokens,
            token_bases=self._shortest,
            token_stride=1 if varying else self.tokens.token_stride,
            jitter=self.jitter(split),
            seed=self.options.seed,
        )

    def jitter(self, split: str) -> bool:
        """Return whether the windows of a split are shifted in every epoch."""
        return split == "train" if self.options.jitter is None else self.options.jitter

    def reader(self, split: str, *, check: str = "size", faults: str = "raise") -> ViewReader:
        """Return what reads the rows of a split."""
        return ViewReader(self, split, check=check, faults=faults)

    def rows(self, row_ids: np.ndarray, *, epoch: int = 0, split: str = "train") -> ViewRows:
        """Return rows ``row_ids`` (integers[B]) of an epoch: their tokens, bases and places.

        Raises IndexError for a row that is not there.
        """
        row_ids = np.asarray(row_ids, np.int64)
        num_rows = self.num_rows(split)
        if row_ids.size and not 0 <= row_ids.min() <= row_ids.max() < num_rows:
            raise IndexError(f"rows {row_ids.min()}..{row_ids.max()} of split {split!r}, which has {num_rows} rows")
        if split not in self._readers:
            self._readers[split] = self.reader(split)
        return self._readers[split].rows(epoch, row_ids)

    def tokenizer(self, model_max_length: int | None = None) -> Any:
        """Return the `transformers` tokenizer of the tokens; default length: a row with [CLS] and [SEP]."""
        return self.tokens.tokenizer(model_max_length or self.row_tokens + 2)

    def ranks(self, n: int | None = None) -> np.ndarray:
        """Return the NPMI ranks of the n-grams to mask by, [4**n + 5]; default: k for overlapping k-mers, else 6."""
        if n is None:
            n = self.tokens.token_bases if self.tokens.overlapping else 6
        return self.shards.npmi.ranks(n)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identity of the rows of every epoch: sha256 over the set's fingerprint and all that the options decide."""
        digest = hashlib.sha256()
        for split in SPLITS:
            digest.update(self._stretches[split].astype("<i8").tobytes())
        options = self.options
        content = {
            "set": self.shards.manifest.fingerprint,
            "tokens": self.tokens.identity,
            "row": [self.row_tokens, self.row_bases],
            "stretches": digest.hexdigest(),
            "jitter": [self.jitter(split) for split in SPLITS],
            "unknown": options.unknown,
            "loss_weight_soft_masked": options.loss_weight_soft_masked,
            "mask_soft_masked": options.mask_soft_masked,
            "track": None if self.track is None else self.track.sha256,
            "seed": options.seed,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def __repr__(self) -> str:
        rows = " and ".join(f"{self.num_rows(split):,} {split}" for split in SPLITS)
        options = {
            field.name: getattr(self.options, field.name)
            for field in dataclasses.fields(self.options)
            if getattr(self.options, field.name) != field.default and field.name not in ("row_tokens", "row_bases")
        }
        extra = "".join(f", {name} = {value}" for name, value in options.items())
        return (
            f"View of {self.shards.store} as {self.tokens.spec}: {rows} rows of {self.row_tokens:,} tokens,"
            f" {self.row_bases:,} bases\n"
            f"  fingerprint {self.fingerprint[:12]}, jitter in train {'on' if self.jitter('train') else 'off'}{extra}"
        )

    def _find_stretches(self) -> dict[str, np.ndarray]:
        """Return the stretches that rows are cut from, of each split, (contig, start, end) int64[m, 3]."""
        contigs, options = self.contigs, self.options
        gaps = self.shards.intervals("gap")
        long = gaps[gaps[:, 2] - gaps[:, 1] >= self.row_bases] if options.unknown == "token" else gaps
        usable = {split: contigs.without(s, long) for split, s in split_stretches(self.shards.manifest).items()}
        if options.regions is not None:
            bed = read_bed(options.regions, contigs)
            everything = np.concatenate(list(usable.values()))
            order = np.argsort(contigs.on_line(everything)[:, 0])
            check_each_leaves_a_row(bed, options.flank, contigs, everything[order], self._shortest)
            regions = contigs.merged(bed.flanked(options.flank, contigs))
            usable = {split: contigs.within(stretches, regions) for split, stretches in usable.items()}
        if options.exclude is not None:
            excluded: BedRegions = read_bed(options.exclude, contigs)
            taken = contigs.merged(excluded.intervals)
            usable = {split: contigs.without(stretches, taken) for split, stretches in usable.items()}
        if options.unknown == "token" and len(gaps):
            usable = {split: _trimmed(stretches, gaps, contigs.offset) for split, stretches in usable.items()}
        self._check_row_bases(usable)
        return {split: s[s[:, 2] - s[:, 1] >= self._shortest] for split, s in usable.items()}

    def _check_row_bases(self, usable: dict[str, np.ndarray]) -> None:
        longest = max((int((s[:, 2] - s[:, 1]).max()) for s in usable.values() if len(s)), default=0)
        if self.options.row_bases is not None and longest < self.row_bases:
            raise ValueError(
                f"row_bases = {self.options.row_bases:,} is longer than any stretch that rows may be cut from: the"
                f" longest has {longest:,} bases; give a smaller row_bases"
            )

    def _why_no_row(self) -> str:
        options = self.options
        if options.exclude is not None:
            return f"no training row is left once {options.exclude} is taken out; give other regions or exclude less"
        if options.regions is not None:
            return f"no training row lies in the regions of {options.regions}; give other regions"
        return f"no training row: no stretch is as long as one token of {self.tokens.spec!r}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}


def view(
    shards: str | Path | ShardSet,
    *,
    tokens: str | Path | Tokens = "kmer:6",
    row_tokens: int | None = None,
    row_bases: int | None = None,
    regions: str | Path | None = None,
    flank: int = 0,
    exclude: str | Path | None = None,
    jitter: bool | None = None,
    unknown: str = "break",
    loss_weight_soft_masked: float = 1.0,
    mask_soft_masked: bool = True,
    track: str | Path | None = None,
    seed: int = 0,
) -> View:
    """Return a view of a shard set, for `build_loader`: which windows are rows, of which tokens.

    Parameters
    ----------
    shards
        folder or URL of a packed shard set (``gemsdata shard GENOME -o SET --format packed``), or an opened one.
    tokens
        "kmer:K" (overlapping), "kmer:K:STRIDE" ("kmer:6:6": non-overlapping; "kmer:3:3": codons), "base", or the folder
        of a Hugging Face fast tokenizer.
    row_tokens, row_bases
        length of a row, in tokens or in bases; give one (default: 510 tokens). For tokens that vary in length
        ``row_bases`` is needed, and ``row_tokens`` is how many tokens a row has room for (default: a third of its
        bases); where a row has more, it ends with the last that fits.
    regions, flank
        a BED file (0-based, half-open; may be compressed): rows lie inside its intervals, ``flank`` bases longer at
        either end and merged.
    exclude
        a BED file whose intervals no row touches.
    jitter
        whether the cuts between rows are shifted in every epoch; default: in "train" and not in "valid".
    unknown
        "break": no row crosses a letter other than A, C, G, T; "token": rows do, and have the tokenizer's unknown token
        there, which is never masked and never in the loss.
    loss_weight_soft_masked
        weight of soft-masked bases in the loss, 0 to 1; below 1 batches carry ``loss_weights``, for each token the mean
        over its bases.
    mask_soft_masked
        whether soft-masked bases may be hidden.
    track
        a bigWig file whose values are the weights of the loss instead; 0 where it has none.
    seed
        of the shifts.

    Raises
    ------
    FileNotFoundError, ValueError
        for a set, tokenizer, BED or bigWig file that is not there or does not fit, and options that contradict each
        other; the message says what to do.
    """
    options = ViewOptions(
        row_tokens=row_tokens,
        row_bases=row_bases,
        regions=regions,
        flank=flank,
        exclude=exclude,
        jitter=jitter,
        unknown=unknown,
        loss_weight_soft_masked=loss_weight_soft_masked,
        mask_soft_masked=mask_soft_masked,
        track=track,
        seed=seed,
    )
    opened = shards if isinstance(shards, ShardSet) else ShardSet.open(str(shards))
    return View(opened, resolve_tokens(tokens), options)


def _trimmed(stretches: np.ndarray, gaps: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return stretches without the gaps that they begin or end with."""
    contig, start, end = stretches.T
    starts, ends = (offset[gaps[:, 0]] + gaps[:, column] for column in (1, 2))
    first, last = start + offset[contig], end + offset[contig]
    before = np.maximum(np.searchsorted(starts, first, side="right") - 1, 0)
    first = np.where((starts[before] <= first) & (ends[before] > first), ends[before], first)
    after = np.maximum(np.searchsorted(starts, last, side="left") - 1, 0)
    last = np.where((starts[after] < last) & (ends[after] >= last), starts[after], last)
    out = np.column_stack([contig, first - offset[contig], last - offset[contig]])
    return out[last > first]
