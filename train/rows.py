"""The training rows of a run: rows of shard sets, or of views of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import gemsdata as gd
from gemsdata.genome.vocab import NUM_SPECIAL
from gemsdata.masking.token_rows import Vocabulary
from gemsdata.stream.rows import rows_of
from gemsdata.views.options import ViewOptions
from gemsdata.views.tokens import KmerTokens, Tokens
from train.token_bases import NO_BASE

Source = gd.ShardSet | gd.View


@dataclass(frozen=True, kw_only=True)
class TrainingRows:
    """Sources of rows of the same tokens, for `gemsdata.build_loader`."""

    sources: list[Source]
    tokens: Tokens
    row_tokens: int
    """tokens of a full row, without [CLS] and [SEP]"""

    @property
    def max_positions(self) -> int:
        """Tokens of a full row, [CLS] and [SEP] included."""
        return self.row_tokens + 2

    @property
    def vocabulary(self) -> Vocabulary:
        """The token ids."""
        return self.tokens.vocabulary

    @property
    def fingerprints(self) -> list[str]:
        """Fingerprint of the rows of each source."""
        return [source.fingerprint if isinstance(source, gd.View) else source.manifest.fingerprint
                for source in self.sources]  # fmt: skip

    def tokenizer(self) -> Any:
        """Return the `transformers` tokenizer, which AutoTokenizer can load after saving."""
        return self.tokens.tokenizer(self.max_positions)

    def kmer_counts(self) -> np.ndarray | None:
        """Return how often each k-mer occurs in the genomes, float64[4**k]; None for other tokens or without counts."""
        if self.tokens.varying:
            return None
        k = self.tokens.token_bases
        tables = [(source.shards if isinstance(source, gd.View) else source).npmi for source in self.sources]
        if any(k not in table.counts for table in tables):
            return None
        return np.sum([table.counts[k] for table in tables], axis=0, dtype=np.float64)


def open_rows(folders: Sequence[str], options: ViewOptions) -> TrainingRows:
    """Open the shard sets of a run, in folders or at URLs.

    A packed set is always read through a view; a set of stored rows only if a view option is given. Several BED files
    of regions are several sources. Raises FileNotFoundError and ValueError as `gemsdata.view` does, and ValueError if
    the rows of the sources differ in their tokens.
    """
    sets = [gd.ShardSet.open(folder) for folder in folders]
    sources = [rows_of(sets[number], view) for number, view in options.of_sets(len(sets))]
    kinds = [source.tokens if isinstance(source, gd.View) else KmerTokens(source.k) for source in sources]
    if len({(kind.identity, source.row_tokens) for kind, source in zip(kinds, sources, strict=True)}) > 1:
        found = ", ".join(f"{folder}: {kind.spec}, {source.row_tokens} tokens"
                          for folder, kind, source in zip(folders, kinds, sources, strict=True))  # fmt: skip
        raise ValueError(f"the shard sets differ in their tokens ({found}); mix sets of one kind")
    return TrainingRows(sources=sources, tokens=kinds[0], row_tokens=sources[0].row_tokens)


def bases_of(source: Source, row_ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the bases of training rows of the first epoch, digits uint8[N, W], `NO_BASE` beyond the end of a row."""
    row_ids = np.sort(np.asarray(row_ids, np.int64))
    if isinstance(source, gd.View):
        rows = source.rows(row_ids).tokens
        inside = np.arange(rows.bases.shape[1]) < np.asarray(rows.num_bases)[:, None]
        return np.where(inside, rows.bases, NO_BASE).astype(np.uint8)
    stored = source.read("train", row_ids)
    k, ids = source.k, stored.input_ids.astype(np.int64) - NUM_SPECIAL
    bases = np.full((len(row_ids), ids.shape[1] + k - 1), NO_BASE, np.uint8)
    real = np.arange(ids.shape[1]) < stored.num_tokens[:, None]
    for offset in range(k):
        here = slice(offset, offset + ids.shape[1])
        bases[:, here] = np.where(real, ids >> 2 * (k - 1 - offset) & 3, bases[:, here])
    return bases


def token_ids_of(source: Source, row_ids: np.ndarray) -> np.ndarray:
    """Return the token ids of training rows of the first epoch, concatenated, integers[n]."""
    rows = source.rows(row_ids).tokens if isinstance(source, gd.View) else source.read("train", np.sort(row_ids))
    return rows.input_ids[np.arange(rows.input_ids.shape[1]) < np.asarray(rows.num_tokens)[:, None]]
