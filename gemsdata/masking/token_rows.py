"""Rows of any tokens over bases, and the ids that a kind of tokens has: what a `Masker` masks.

Tokens cover bases. Overlapping k-mers, single bases, non-overlapping k-mers and tokens of a Hugging Face tokenizer
differ only in which bases a token covers and in which ids are special; masking needs to know no more than that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gemsdata.genome import vocab

NOT_ACGT = 4
"""code of a base that is not A, C, G or T"""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The token ids of one kind of tokens: which are special, and which may replace a token at random."""

    size: int
    """number of ids, special tokens included"""
    pad_id: int = vocab.PAD_ID
    unk_id: int = vocab.UNK_ID
    cls_id: int = vocab.CLS_ID
    sep_id: int = vocab.SEP_ID
    mask_id: int = vocab.MASK_ID
    first_random_id: int = vocab.NUM_SPECIAL
    """smallest id of a real token, where the real tokens are a range of ids"""
    num_random_ids: int = 0
    """length of that range; default: all ids from ``first_random_id``"""
    random_ids: np.ndarray | None = None
    """the ids of the real tokens, uint32[n], where they are not a range of ids"""

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
    """token ids in the vocabulary's ``id_dtype``, [B, L]; anything beyond ``num_tokens``"""
    num_tokens: np.ndarray
    """int64[B]"""
    bases: np.ndarray
    """A0 T1 C2 G3, 4 for any other letter, uint8[B, W]; anything beyond ``num_bases``"""
    num_bases: np.ndarray
    """int64[B]"""
    token_bases: int
    """bases of a token; where tokens vary in length about their mean, from which the default rates follow"""
    token_stride: int
    """bases from the start of a token to that of the next: token t covers bases [t * token_stride,
    min(t * token_stride + token_bases, num_bases)); overlapping k-mers: 1; single bases: 1 and ``token_bases`` 1"""
    token_start: np.ndarray | None = None
    """where tokens vary in length: token t covers bases [token_start[t], token_start[t + 1]), int32[B, L+1]"""
    maskable: np.ndarray | None = None
    """which bases may be hidden, bool[B, W]; default: all that are A, C, G or T. Others never are, in any case"""
