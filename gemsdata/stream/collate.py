"""A masking collator for people with their own data: for the HF `Trainer` and for plain DataLoaders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xxhash
from torch.utils.data import get_worker_info

from gemsdata.genome.vocab import NUM_SPECIAL, PAD_ID, token_dtype
from gemsdata.masking.masker import UNMASKED, Masker
from gemsdata.masking.strategies import Strategy


class MLMCollator:
    """Pads and masks samples {"input_ids": ...}, with or without [CLS] and [SEP], which are never masked.

    The masks of a sample follow from (seed, the DataLoader worker's seed, how many samples this collator has seen, the
    sample's content): another mask in each epoch, the same ones in a run started again with the same seeds. Each
    unbroken stretch of k-mer tokens is masked as a row of its own, so an [UNK] or a [SEP] in the middle ends a row.

    Parameters
    ----------
    masking
        a strategy or the name of one.
    ranks
        NPMI rank of every token id, integers[4**k + 5] (`NpmiTable.ranks`); needed by strategies that look at ranks.
    k
        needed without ranks.
    seed
        any integer 0 .. 2**64 - 1.
    frozen
        the same sample always gets the same mask: for validation losses that can be compared.
    stage
        stage of a strategy whose spans grow with it (`RandomMask`).
    pad_to_multiple_of
        pad the batch to a multiple of so many tokens.
    """

    def __init__(
        self,
        masking: str | Strategy = "genemask",
        ranks: np.ndarray | None = None,
        *,
        k: int | None = None,
        seed: int = 0,
        frozen: bool = False,
        stage: int = 0,
        pad_to_multiple_of: int = 1,
    ) -> None:
        self.masker = Masker(masking, ranks=ranks, k=k, seed=seed)
        self.frozen = frozen
        self.stage = stage
        self.pad_to_multiple_of = pad_to_multiple_of
        self._num_seen = 0

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return ``input_ids``, ``labels`` (-100 where not masked) and ``attention_mask``, int64[B, longest]."""
        rows = [_ids_of(sample) for sample in samples]
        longest = -(-max(len(row) for row in rows) // self.pad_to_multiple_of) * self.pad_to_multiple_of
        input_ids = np.full((len(rows), longest), PAD_ID, np.int64)
        attention_mask = np.zeros((len(rows), longest), np.int64)
        for i, row in enumerate(rows):
            input_ids[i, : len(row)] = row
            attention_mask[i, : len(row)] = row != PAD_ID
        labels = np.full_like(input_ids, UNMASKED)
        self._mask(input_ids, labels, self._row_ids(rows))
        batch = {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}
        return {name: torch.from_numpy(column) for name, column in batch.items()}

    def _row_ids(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Return what keys each sample besides the seeds: a hash of content and, unless frozen, turn; uint64[B]."""
        first = 0 if self.frozen else self._num_seen
        turns = [0 if self.frozen else first + i for i in range(len(rows))]
        self._num_seen += len(rows)
        return np.array(
            [xxhash.xxh3_64_intdigest(row.tobytes(), seed=t) for row, t in zip(rows, turns, strict=True)], np.uint64
        )

    def _mask(self, input_ids: np.ndarray, labels: np.ndarray, row_ids: np.ndarray) -> None:
        """Mask every stretch of k-mer tokens of ``input_ids`` in place, and fill in ``labels``."""
        inside = np.zeros((input_ids.shape[0], input_ids.shape[1] + 2), np.int8)
        inside[:, 1:-1] = input_ids >= NUM_SPECIAL
        edges = np.diff(inside, axis=1)
        row, first = np.nonzero(edges == 1)
        num_tokens = np.nonzero(edges == -1)[1] - first
        if not len(row):
            return
        stretches = np.zeros((len(row), num_tokens.max()), token_dtype(self.masker.k))
        _check_ids(input_ids, self.masker)
        for i, (r, f, n) in enumerate(zip(row, first, num_tokens, strict=True)):
            stretches[i, :n] = input_ids[r, f : f + n]
        worker = get_worker_info()
        epoch = 0 if worker is None or self.frozen else worker.seed
        keys = row_ids[row] + first.astype(np.uint64)
        masked = self.masker.batch(stretches, num_tokens, keys, epoch=epoch, stage=self.stage)
        for i, (r, f, n) in enumerate(zip(row, first, num_tokens, strict=True)):
            input_ids[r, f : f + n] = masked["input_ids"][i, 1 : n + 1]
            labels[r, f : f + n] = masked["labels"][i, 1 : n + 1]


def _ids_of(sample: Mapping[str, Any]) -> np.ndarray:
    if "input_ids" not in sample:
        raise ValueError(
            f"a sample has {', '.join(sample) or 'no columns'}: MLMCollator needs 'input_ids', the token ids"
        )
    return np.asarray(sample["input_ids"], np.int64)


def _check_ids(input_ids: np.ndarray, masker: Masker) -> None:
    if input_ids.max() >= len(masker.ranks) or input_ids.min() < 0:
        raise ValueError(
            f"token ids {input_ids.min()}..{input_ids.max()} are not of k = {masker.k}, whose ids end at"
            f" {len(masker.ranks) - 1}: tokenise with KmerTokenizer(k)"
        )
