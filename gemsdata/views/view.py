"""A view of a shard set: rows of chosen windows and tokens."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from gemsdata.files.progress import Progress, no_progress
from gemsdata.masking.masker import Masker
from gemsdata.masking.strategies import Strategy
from gemsdata.masking.token_rows import Vocabulary
from gemsdata.shards.manifest import SPLITS, Manifest
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.split_reader import SplitReader
from gemsdata.views.base_reader import BaseReader
from gemsdata.views.materialise import WriteOptions, write_view
from gemsdata.views.options import DEFAULT_TOKENS, ViewOptions
from gemsdata.views.packed_reader import PackedReader
from gemsdata.views.regions import contigs_of
from gemsdata.views.rows import RowSpec, ViewRows
from gemsdata.views.stored_options import check_stored, stored_tokens
from gemsdata.views.stored_reader import StoredReader
from gemsdata.views.stored_windows import StoredWindows, select_rows, stored_places
from gemsdata.views.stretches import find_stretches
from gemsdata.views.tokens import Tokens, resolve_tokens
from gemsdata.views.track import Track
from gemsdata.views.view_reader import ViewReader
from gemsdata.views.windows import EpochWindows, Located, cut_stretches


class View:
    """The rows of a shard set as windows of chosen tokens; made by `gemsdata.view`.

    In a set of packed bases, rows are cut according to the options; in a set of tokens, they are the stored rows, all
    or those in regions. ``len(view)`` is the number of training rows of an epoch.
    """

    def __init__(self, shards: ShardSet, options: ViewOptions) -> None:
        options.single_regions()
        self.shards, self.options = shards, options
        self.packed = shards.manifest.packed
        """whether rows are cut from packed bases, or stored"""
        self.contigs = contigs_of(shards)
        self.track = None if options.track is None else Track(options.track, self.contigs)
        self.tokens: Tokens
        if self.packed:
            self.tokens = resolve_tokens(DEFAULT_TOKENS if options.tokens is None else options.tokens)
            self.row_tokens, self.row_bases = options.geometry(self.tokens)
            """tokens and bases of a full row"""
        else:
            self.tokens = stored_tokens(shards)
            self.row_tokens, self.row_bases = check_stored(shards, self.tokens, options)
        self._windows: dict[str, EpochWindows] | dict[str, StoredWindows]
        self._windows = self._cut_windows() if self.packed else select_rows(shards, self.contigs, options)
        self._readers: dict[str, ViewReader] = {}
        if not len(self):
            raise ValueError(f"{shards.store}: {self._why_no_row()}")

    def __len__(self) -> int:
        return self.num_rows("train")

    def num_rows(self, split: str = "train") -> int:
        """Return the number of rows of an epoch; raise ValueError if there is no such split."""
        return len(self.windows(split))

    @property
    def vocabulary(self) -> Vocabulary:
        """The token ids."""
        return self.tokens.vocabulary

    def windows(self, split: str) -> EpochWindows | StoredWindows:
        """Return where the rows of a split lie; raise ValueError if there is no such split."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown; the set has {', '.join(SPLITS)}")
        return self._windows[split]

    def _cut_windows(self) -> dict[str, EpochWindows]:
        varying = self.tokens.varying
        shortest = 1 if varying else self.tokens.token_bases
        stretches = find_stretches(
            self.shards, self.contigs, self.options, row_bases=self.row_bases, token_bases=shortest
        )
        return {
            split: cut_stretches(
                stretches[split],
                row_tokens=self.row_bases if varying else self.row_tokens,
                token_bases=shortest,
                token_stride=1 if varying else self.tokens.token_stride,
                jitter=self.jitter(split),
                seed=self.options.seed,
            )
            for split in SPLITS
        }

    def jitter(self, split: str) -> bool:
        """Return whether the windows of a split are shifted in every epoch."""
        if not self.packed:
            return False
        return split == "train" if self.options.jitter is None else self.options.jitter

    def reader(self, split: str, *, check: str = "hash", faults: str = "raise") -> ViewReader:
        """Return the reader of the rows of a split; ``check`` and ``faults`` as in `gemsdata.build_loader`."""
        spec = RowSpec(
            tokens=self.tokens,
            row_tokens=self.row_tokens,
            row_bases=self.row_bases,
            options=self.options,
            track=self.track,
            fingerprint=self.fingerprint,
        )
        windows = self.windows(split)
        if isinstance(windows, StoredWindows):
            return StoredReader(SplitReader(self.shards, split, check=check, faults=faults), windows, spec)
        return PackedReader(BaseReader(self.shards, split, check=check, faults=faults), windows, spec)

    def rows(self, row_ids: np.ndarray, *, epoch: int = 0, split: str = "train") -> ViewRows:
        """Return rows ``row_ids`` (integers[B]) of an epoch: their tokens, bases and places.

        Raises IndexError for a row that does not exist.
        """
        row_ids = np.asarray(row_ids, np.int64)
        num_rows = self.num_rows(split)
        if row_ids.size and not 0 <= row_ids.min() <= row_ids.max() < num_rows:
            raise IndexError(f"rows {row_ids.min()}..{row_ids.max()} of split {split!r}, which has {num_rows} rows")
        if split not in self._readers:
            self._readers[split] = self.reader(split)
        return self._readers[split].rows(epoch, row_ids)

    def places(self, split: str = "train", *, epoch: int = 0, progress: Progress = no_progress) -> Located:
        """Return the position of every row of an epoch, in the order of their numbers.

        For stored rows this reads all shards.
        """
        windows = self.windows(split)
        if isinstance(windows, EpochWindows):
            return windows.locate(epoch, np.arange(len(windows)))
        places, kept = stored_places(self.shards, split, progress), windows.stored(np.arange(len(windows)))
        return Located(contig=places.contig[kept], start=places.start[kept], num_bases=places.num_bases[kept])

    def holds_own_rows(self, row_ids: np.ndarray, split: str) -> np.ndarray:
        """Return which rows (int64[B]) of epoch 0 have something to predict, and so are not replaced by another row."""
        windows = self.windows(split)
        if isinstance(windows, StoredWindows):
            return np.ones(len(row_ids), bool)
        found, own = self.rows(row_ids, split=split), windows.locate(0, row_ids)
        return (found.contig == own.contig) & (found.start == own.start)

    def write(
        self,
        out: str | Path,
        *,
        format: str = "arrow",
        compression: str = "none",
        seed: int = 0,
        workers: int = 1,
        resume: bool = False,
        overwrite: bool = False,
    ) -> Manifest:
        """Write the rows of epoch 0 as a shard set of tokens, in shuffled order.

        Parameters
        ----------
        out
            folder of the new set, for `gemsdata.build_loader`, `gemsdata.view` and other readers of Arrow or
            webdataset.
        format
            "arrow", "webdataset" or "both".
        compression
            "none" or "zstd".
        seed
            random key of the order of the rows.
        workers
            threads that make rows.
        resume, overwrite
            keep the finished parts of an interrupted run; replace the set in ``out``.

        Raises
        ------
        ValueError
            for rows of more than 65,535 tokens, options that are not stored (weights, which bases may be masked), and a
            folder that contains other files.
        """
        options = WriteOptions(format=format, compression=compression, seed=seed)
        return write_view(self, out, options, workers=workers, resume=resume, overwrite=overwrite)

    def tokenizer(self, model_max_length: int | None = None) -> Any:
        """Return the `transformers` tokenizer of the tokens; default length: a row with [CLS] and [SEP]."""
        return self.tokens.tokenizer(model_max_length or self.row_tokens + 2)

    def ranks(self, n: int | None = None) -> np.ndarray:
        """Return the NPMI ranks of the n-grams to mask by, [4**n + 5]; default: k for overlapping k-mers, else 6."""
        if n is None:
            n = self.tokens.token_bases if self.tokens.overlapping else 6
        return self.shards.npmi.ranks(n)

    def masker(self, masking: str | Strategy, *, seed: int = 0) -> Masker:
        """Return a masker for the rows: overlapping k-mers by their own ranks, other tokens by n-grams."""
        if self.tokens.overlapping:
            return Masker(masking, ranks=self.ranks, k=self.tokens.token_bases, seed=seed)
        return Masker(masking, ranks=self.ranks, vocabulary=self.vocabulary, seed=seed)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the rows of every epoch: sha256 of the set's fingerprint and all options that affect them."""
        digest = hashlib.sha256()
        for split in SPLITS:
            digest.update(self._windows[split].identity())
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
        hidden = ("tokens", "row_tokens", "row_bases")
        extra = "".join(f", {name} = {value}" for name, value in self.options.changed().items() if name not in hidden)
        jitter = f"jitter in train {'on' if self.jitter('train') else 'off'}" if self.packed else "stored rows"
        return (
            f"View of {self.shards.store} as {self.tokens.spec}: {rows} rows of {self.row_tokens:,} tokens,"
            f" {self.row_bases:,} bases\n"
            f"  fingerprint {self.fingerprint[:12]}, {jitter}{extra}"
        )

    def _why_no_row(self) -> str:
        options = self.options
        if options.exclude is not None:
            return f"{options.exclude} leaves no training row; give other regions or exclude less"
        if options.regions is not None:
            return f"no training row lies in the regions of {options.regions}; give other regions"
        if not self.packed:
            return "the set has no training row"
        return f"no training row: no stretch is as long as one token of {self.tokens.spec!r}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}


def view(
    shards: str | Path | ShardSet,
    *,
    tokens: str | Path | Tokens | None = None,
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
    """Return a view of a shard set, for `build_loader`, with rows of chosen windows and tokens.

    Parameters
    ----------
    shards
        folder or URL of a shard set, or an opened one. From a packed set (``gemsdata shard GENOME -o SET --format
        packed``) any rows can be cut; a set of tokens gives its stored rows, and only regions, flank, exclude,
        loss_weight_soft_masked, mask_soft_masked and track may be given. For the sets of servers see
        `gemsdata.Servers.view`.
    tokens
        "kmer:K" (overlapping), "kmer:K:STRIDE" ("kmer:6:6": non-overlapping; "kmer:3:3": codons), "base", or the folder
        of a Hugging Face fast tokenizer. Default: "kmer:6", or the tokens that the set stores.
    row_tokens, row_bases
        length of a row, in tokens or in bases; give one (default: 510 tokens). For tokens that vary in length
        ``row_bases`` is needed, and ``row_tokens`` is the largest number of tokens in a row (default: a third of its
        bases); a row with more tokens is truncated.
    regions, flank
        a BED file (0-based, half-open; may be compressed): rows lie inside its intervals, ``flank`` bases longer at
        either end and merged.
    exclude
        a BED file; no row overlaps its intervals.
    jitter
        whether the cuts between rows are shifted in every epoch; default: in "train" and not in "valid".
    unknown
        "break": no row crosses a letter other than A, C, G, T; "token": rows do, with the tokenizer's unknown token
        there, which is never masked and never in the loss.
    loss_weight_soft_masked
        weight of soft-masked bases in the loss, 0 to 1; below 1, batches have ``loss_weights``, for each token the mean
        over its bases.
    mask_soft_masked
        whether soft-masked bases may be hidden.
    track
        a bigWig file whose values are the loss weights instead; 0 where it has no value.
    seed
        random key of the shifts.

    Raises
    ------
    FileNotFoundError, ValueError
        for a set, tokenizer, BED or bigWig file that is missing or does not fit, and options that contradict each
        other; the message says what to do.
    """
    options = ViewOptions(
        tokens=tokens,
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
    return open_view(shards, options)


def open_view(shards: str | Path | ShardSet | View, options: ViewOptions = ViewOptions()) -> View:  # noqa: B008
    """Return the view of a shard set, given open or by folder or URL, with the given options.

    A view is returned unchanged, whatever the options.
    """
    if isinstance(shards, View):
        return shards
    return View(shards if isinstance(shards, ShardSet) else ShardSet.open(str(shards)), options)
