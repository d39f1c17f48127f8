"""A masking collator for the user's own data, for the HF `Trainer` and for plain DataLoaders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np
import torch
import xxhash
from torch.utils.data import get_worker_info

from gemsdata.genome.vocab import NUM_SPECIAL, PAD_ID, token_dtype
from gemsdata.masking.masker import UNMASKED, Masker
from gemsdata.masking.strategies import Strategy

_COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "special_tokens_mask")


class MLMCollator:
    """Pads and masks samples {"input_ids": ...}, with or without [CLS] and [SEP], which are never masked.

    The mask of a sample depends on (seed, the DataLoader worker's seed, the number of samples that this collator has
    seen, the sample's content): it differs in each epoch, and is the same in a run that is repeated with the same
    seeds. Each unbroken run of k-mer tokens is masked as a separate row, so an [UNK] or a [SEP] in the middle ends a
    row.

    Parameters
    ----------
    masking
        a strategy or the name of one.
    ranks
        NPMI rank of every token id, integers[4**k + 5] (`NpmiTable.ranks`); needed by strategies that look at ranks.
    k
        length of the k-mers; needed without ranks.
    seed
        any integer 0 .. 2**64 - 1.
    frozen
        give the same sample always the same mask, for comparable validation losses.
    stage
        stage of a strategy whose spans grow with it (`RandomMask`).
    pad_to_multiple_of
        pad the batch to a multiple of this many tokens.
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

    @overload
    def __call__(
        self, samples: Sequence[Mapping[str, Any] | Sequence[int]], return_tensors: Literal["pt"] | None = None
    ) -> dict[str, torch.Tensor]: ...

    @overload
    def __call__(
        self, samples: Sequence[Mapping[str, Any] | Sequence[int]], return_tensors: Literal["np"]
    ) -> dict[str, np.ndarray]: ...

    def __call__(
        self, samples: Sequence[Mapping[str, Any] | Sequence[int]], return_tensors: str | None = None
    ) -> dict[str, torch.Tensor] | dict[str, np.ndarray]:
        """Return one padded and masked batch.

        Parameters
        ----------
        samples
            one or more dicts with ``input_ids`` and perhaps ``attention_mask``, ``token_type_ids`` and
            ``special_tokens_mask``, of equal lengths; or the token ids alone. Other keys are dropped.
        return_tensors
            "pt" (default) or "np", as in the collators of transformers.

        Returns
        -------
        dict
            ``input_ids``, ``labels`` (-100 where not masked), ``attention_mask`` (from the samples, else 1 up to the
            padding) and, if samples have them, ``token_type_ids``: int64[B, longest]. Tokens that the model does not
            attend to, or that ``special_tokens_mask`` names, are never masked.

        Raises
        ------
        ValueError
            if there are no samples, a sample has no token ids, or columns have different lengths.
        """
        if return_tensors not in (None, "pt", "np"):
            raise ValueError(f"return_tensors = {return_tensors!r}; give 'pt' or 'np'")
        if not len(samples):
            raise ValueError("no samples are given, and empty batches are not supported; skip it, or check the sampler")
        columns = [_columns_of(sample) for sample in samples]
        rows = [column["input_ids"] for column in columns]
        longest = -(-max(len(row) for row in rows) // self.pad_to_multiple_of) * self.pad_to_multiple_of
        input_ids = _padded(rows, longest, PAD_ID)
        attention_mask = _padded([c.get("attention_mask", c["input_ids"] != PAD_ID) for c in columns], longest)
        special = _padded([c.get("special_tokens_mask", c["input_ids"] < 0) for c in columns], longest)
        _check_ids(input_ids, self.masker)
        labels = np.full_like(input_ids, UNMASKED)
        may_mask = (input_ids >= NUM_SPECIAL) & (attention_mask != 0) & (special == 0)
        self._mask(input_ids, labels, self._row_ids(rows), may_mask)
        batch = {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}
        if any("token_type_ids" in column for column in columns):
            types = [column.get("token_type_ids", np.zeros(len(column["input_ids"]))) for column in columns]
            batch["token_type_ids"] = _padded(types, longest)
        if return_tensors == "np":
            return batch
        return {name: torch.from_numpy(column) for name, column in batch.items()}

    def _row_ids(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Return the key of each sample: a hash of its content and, unless frozen, of its number; uint64[B]."""
        first = 0 if self.frozen else self._num_seen
        turns = [0 if self.frozen else first + i for i in range(len(rows))]
        self._num_seen += len(rows)
        return np.array(
            [xxhash.xxh3_64_intdigest(row.tobytes(), seed=t) for row, t in zip(rows, turns, strict=True)], np.uint64
        )

    def _mask(self, input_ids: np.ndarray, labels: np.ndarray, row_ids: np.ndarray, may_mask: np.ndarray) -> None:
        """Mask every run of tokens of ``input_ids`` that ``may_mask`` allows, in place, and fill in ``labels``."""
        inside = np.zeros((input_ids.shape[0], input_ids.shape[1] + 2), np.int8)
        inside[:, 1:-1] = may_mask
        edges = np.diff(inside, axis=1)
        row, first = np.nonzero(edges == 1)
        num_tokens = np.nonzero(edges == -1)[1] - first
        if not len(row):
            return
        runs = np.zeros((len(row), num_tokens.max()), token_dtype(self.masker.k))
        for i, (r, f, n) in enumerate(zip(row, first, num_tokens, strict=True)):
            runs[i, :n] = input_ids[r, f : f + n]
        worker = get_worker_info()
        epoch = 0 if worker is None or self.frozen else worker.seed
        keys = row_ids[row] + first.astype(np.uint64)
        masked = self.masker.batch(runs, num_tokens, keys, epoch=epoch, stage=self.stage)
        for i, (r, f, n) in enumerate(zip(row, first, num_tokens, strict=True)):
            input_ids[r, f : f + n] = masked["input_ids"][i, 1 : n + 1]
            labels[r, f : f + n] = masked["labels"][i, 1 : n + 1]


def _columns_of(sample: Mapping[str, Any] | Sequence[int]) -> dict[str, np.ndarray]:
    """Return the columns of a sample that a batch needs, int64[n] each."""
    if not isinstance(sample, Mapping):
        sample = {"input_ids": sample}
    if "input_ids" not in sample:
        raise ValueError(
            f"a sample has {', '.join(map(str, sample)) or 'no columns'}: MLMCollator needs 'input_ids', the token ids"
        )
    columns = {name: _integers(name, sample[name]) for name in _COLUMNS if sample.get(name) is not None}
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"a sample has columns of different lengths: {sizes}")
    return columns


def _integers(name: str, values: Any) -> np.ndarray:
    column = np.asarray(values)
    if column.ndim != 1 or (column.size and column.dtype.kind not in "iub"):
        raise ValueError(f"{name} of a sample has shape {column.shape} of {column.dtype}; give a list of integers")
    return column.astype(np.int64)


def _padded(rows: Sequence[np.ndarray], longest: int, value: int = 0) -> np.ndarray:
    """Return rows padded with ``value`` to the same length, int64[B, longest]."""
    out = np.full((len(rows), longest), value, np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _check_ids(input_ids: np.ndarray, masker: Masker) -> None:
    if input_ids.size and not 0 <= input_ids.min() <= input_ids.max() < len(masker.ranks):
        raise ValueError(
            f"token ids {input_ids.min()}..{input_ids.max()} are not of k = {masker.k}, whose ids end at"
            f" {len(masker.ranks) - 1}: tokenise with KmerTokenizer(k)"
        )
