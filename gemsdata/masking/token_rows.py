"""Rows of tokens over bases, and the vocabulary of their ids: the input of a `Masker`.

Tokens cover bases. Overlapping k-mers, single bases, non-overlapping k-mers and tokens of a Hugging Face tokenizer
differ only in the bases that a token covers and in the special ids; masking needs nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gemsdata.genome import vocab
from gemsdata.kernels import layout as kernels

NOT_ACGT = 4
"""code of a base that is not A, C, G or T"""
_NO_MARKS = np.empty((0, 0, 0), np.int32)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The token ids of one kind of tokens: which are special, and which serve as random replacements."""

    size: int
    """number of ids, special tokens included"""
    pad_id: int = vocab.PAD_ID
    unk_id: int = vocab.UNK_ID
    cls_id: int = vocab.CLS_ID
    sep_id: int = vocab.SEP_ID
    mask_id: int = vocab.MASK_ID
    first_random_id: int = vocab.NUM_SPECIAL
    """smallest id of a real token, if the real tokens are a range of ids"""
    num_random_ids: int = 0
    """length of that range; default: all ids from ``first_random_id``"""
    random_ids: np.ndarray | None = None
    """the ids of the real tokens, uint32[n], if they are not a range of ids"""

    def __post_init__(self) -> None:
        if self.random_ids is None and self.num_random_ids == 0:
            object.__setattr__(self, "num_random_ids", self.size - self.first_random_id)
        for name in ("pad_id", "unk_id", "cls_id", "sep_id", "mask_id"):
            if not 0 <= getattr(self, name) < self.size:
                raise ValueError(f"{name} = {getattr(self, name)} is not an id of a vocabulary of {self.size} tokens")
        ids = self.random_ids
        if ids is not None:
            if np.ndim(ids) != 1 or len(ids) == 0 or int(np.min(ids)) < 0 or int(np.max(ids)) >= self.size:
                raise ValueError(f"random_ids must be a list of ids below {self.size}, with at least one")
            object.__setattr__(self, "random_ids", np.ascontiguousarray(ids, np.uint32))
        elif not 0 <= self.first_random_id < self.first_random_id + self.num_random_ids <= self.size:
            raise ValueError(
                f"real tokens {self.first_random_id}..{self.first_random_id + self.num_random_ids - 1} are not ids of a"
                f" vocabulary of {self.size} tokens"
            )

    @classmethod
    def of_kmers(cls, k: int) -> Vocabulary:
        """Return DNABERT's vocabulary of k-mers (k = 1: single bases)."""
        return cls(size=vocab.vocab_size(k))

    def check_stored(self, input_ids: np.ndarray, num_tokens: np.ndarray) -> None:
        """Raise ValueError unless ids [B, L] are of this vocabulary and counts [B] at most L; kernels do not check."""
        largest, most = int(input_ids.max(initial=0)), int(num_tokens.max(initial=0))
        what = f"rows of {most} tokens, but space for {input_ids.shape[1]}"
        if largest >= self.size:
            what = f"token id {largest} of a vocabulary that ends at {self.size - 1}"
        if largest >= self.size or most > input_ids.shape[1]:
            raise ValueError(f"stored rows have {what}: a shard is damaged; `gemsdata verify` finds out which")

    @property
    def id_dtype(self) -> np.dtype:
        """Dtype of token ids: uint16 for up to 65,536 ids, else uint32."""
        return np.dtype(np.uint16 if self.size <= 65536 else np.uint32)

    @property
    def label_dtype(self) -> np.dtype:
        """Dtype of labels, which are ids or -100: int16 for up to 32,767 ids, else int32."""
        return np.dtype(np.int16 if self.size <= np.iinfo(np.int16).max else np.int32)


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """B rows of up to L tokens over up to W bases, without special tokens such as [CLS]."""

    input_ids: np.ndarray
    """token ids in the vocabulary's ``id_dtype``, [B, L]; undefined beyond ``num_tokens``"""
    num_tokens: np.ndarray
    """int64[B]"""
    bases: np.ndarray
    """A0 T1 C2 G3, 4 for any other letter, uint8[B, W]; undefined beyond ``num_bases``"""
    num_bases: np.ndarray
    """int64[B]"""
    token_bases: int
    """bases of a token; for tokens that vary in length, their approximate mean, which sets the default rates"""
    token_stride: int
    """bases from the start of a token to the start of the next: token t covers bases [t * token_stride,
    min(t * token_stride + token_bases, num_bases)); overlapping k-mers: 1; single bases: 1 and ``token_bases`` 1"""
    token_start: np.ndarray | None = None
    """for tokens that vary in length: token t covers bases [token_start[t], token_start[t + 1]), int32[B, L+1]"""
    maskable: np.ndarray | None = None
    """which bases may be hidden, bool[B, W]; default: all A, C, G and T. Other letters are never hidden"""


def hidden_bases(rows: TokenRows, masked: np.ndarray) -> np.ndarray:
    """Return the bases of masked tokens that no unmasked token shows, bool[B, W]; ``masked`` is bool[B, L].

    An overlapping token that contains a letter other than A, C, G or T is unknown, and shows nothing.
    """
    hidden = np.empty(rows.bases.shape, np.bool_)
    num_tokens, num_bases = np.asarray(rows.num_tokens, np.int64), np.asarray(rows.num_bases, np.int64)
    kernels.hidden_bases_of(np.ascontiguousarray(masked), num_tokens, num_bases, layout_of(rows), hidden)
    return hidden


def layout_of(rows: TokenRows) -> kernels.Layout:
    """Return the positions of the tokens and what may be masked, for the kernels."""
    bases, starts = np.ascontiguousarray(rows.bases, np.uint8), rows.token_start
    layout = simple_layout(int(rows.token_bases), int(rows.token_stride))
    restricted = rows.maskable is not None or int(bases.max(initial=0)) > 3
    if starts is None and not restricted:
        return layout
    if not restricted:
        return layout._replace(varies=True, marks=np.ascontiguousarray(starts, np.int32)[:, None])
    num_rows, width = len(bases), max(bases.shape[1], rows.input_ids.shape[1]) + 1
    marks = np.empty((num_rows, 3, width), np.int32)
    layout = layout._replace(varies=starts is not None, restricted=True, marks=marks)
    if starts is not None:
        marks[:, kernels.START, : starts.shape[1]] = starts
    maskable = np.empty((0, 0), np.bool_) if rows.maskable is None else np.ascontiguousarray(rows.maskable, np.bool_)
    num_bases = np.asarray(rows.num_bases, np.int64)
    kernels.find_blocked(bases, maskable, np.asarray(rows.num_tokens, np.int64), num_bases, layout)
    if not marks[np.arange(num_rows), kernels.BLOCKED, num_bases].any():
        layout = layout._replace(restricted=False)
    return layout


def simple_layout(token_bases: int, token_stride: int) -> kernels.Layout:
    """Return the layout of tokens of one length, all of which may be masked."""
    return kernels.Layout(token_bases, token_stride, False, False, _NO_MARKS)


def covered_bases(rows: TokenRows) -> np.ndarray:
    """Return the end of the last token of each row, int64[B]; a model does not see the bases beyond it."""
    counts = rows.num_tokens
    if rows.token_start is not None:
        return np.where(counts > 0, rows.token_start[np.arange(len(counts)), counts], 0).astype(np.int64)
    end = np.minimum(rows.num_bases, (counts - 1) * rows.token_stride + rows.token_bases)
    return np.where(counts > 0, end, 0).astype(np.int64)


def check_tokens(rows: TokenRows) -> None:
    """Raise ValueError if the tokens of rows extend beyond their bases."""
    counts, num_bases = rows.num_tokens, rows.num_bases
    if rows.maskable is not None and rows.maskable.shape != rows.bases.shape:
        raise ValueError(f"maskable of shape {rows.maskable.shape} does not fit bases of shape {rows.bases.shape}")
    if rows.token_bases < 1 or rows.token_stride < 1:
        raise ValueError(f"token_bases = {rows.token_bases}, token_stride = {rows.token_stride}: give 1 or more")
    if rows.token_start is None:
        wrong = (counts - 1) * rows.token_stride >= num_bases
        if ((counts > 0) & wrong).any():
            i = int(np.flatnonzero((counts > 0) & wrong)[0])
            raise ValueError(f"row {i} has {counts[i]} tokens over {num_bases[i]} bases, which is not possible")
        return
    start = np.asarray(rows.token_start)
    if start.shape != (len(counts), rows.input_ids.shape[1] + 1):
        raise ValueError(f"token_start of shape {start.shape}: give {(len(counts), rows.input_ids.shape[1] + 1)}")
    if not kernels.starts_rise(np.ascontiguousarray(start, np.int32), counts, num_bases):
        raise ValueError("token_start must rise from 0 or more to at most num_bases, with a base for every token")
