"""The bases of each token, so that tokens of any kind can be scored by bases."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch

from gemsdata.views.tokens import Tokens

NO_BASE = 4
"""digit of a base that no token covers"""


@dataclass(frozen=True, kw_only=True)
class TokenBases:
    """The bases of every token id."""

    digits: torch.Tensor
    """uint8[ids, longest]: A0 T1 C2 G3, `NO_BASE` beyond the end of a token"""
    length: torch.Tensor
    """bases of each token, int64[ids]; 0 for ids that are not made of bases, such as [CLS] and [UNK]"""
    advance: torch.Tensor
    """bases from the start of a token to the start of the next, int64[ids]"""
    mask_id: int
    kmers: bool
    """whether tokens are k-mers of one length, with DNABERT's ids"""

    @classmethod
    def of(cls, tokens: Tokens) -> TokenBases:
        """Return the bases of a kind of tokens; an unknown token counts as one base."""
        vocabulary = tokens.vocabulary
        length = np.zeros(vocabulary.size, np.int64)
        if not tokens.varying:
            k, first = tokens.token_bases, vocabulary.first_random_id
            digits = np.full((vocabulary.size, k), NO_BASE, np.uint8)
            values = np.arange(vocabulary.size - first)
            digits[first:] = values[:, None] >> 2 * np.arange(k - 1, -1, -1) & 3
            length[first:] = k
            advance = np.full(vocabulary.size, tokens.token_stride)
        else:
            assert vocabulary.random_ids is not None
            texts = {i: re.search("[ACGT]+$", tokens.text(i)) for i in vocabulary.random_ids.tolist()}
            words = {i: found[0] for i, found in texts.items() if found}
            digits = np.full((vocabulary.size, max(map(len, words.values()))), NO_BASE, np.uint8)
            for i, word in words.items():
                length[i] = len(word)
                digits[i, : len(word)] = ["ATCG".index(letter) for letter in word]
            advance = length.copy()
            advance[vocabulary.unk_id] = 1
        return cls(
            digits=torch.from_numpy(digits),
            length=torch.from_numpy(length),
            advance=torch.from_numpy(advance.astype(np.int64)),
            mask_id=vocabulary.mask_id,
            kmers=not tokens.varying,
        )

    @property
    def longest(self) -> int:
        """Bases of the longest token."""
        return self.digits.shape[1]

    def places(self, original_ids: torch.Tensor) -> torch.Tensor:
        """Return the column of each base of each token, int64[B, L, longest], -1 beyond the end of a token.

        Columns count the bases of a row; tokens of fixed length begin at their position times the stride.
        """
        advance, length = self.advance.to(original_ids.device), self.length.to(original_ids.device)
        step = advance[original_ids]
        columns = (step.cumsum(1) - step)[..., None] + torch.arange(self.longest, device=original_ids.device)
        inside = torch.arange(self.longest, device=original_ids.device) < length[original_ids][..., None]
        return torch.where(inside, columns, -1)

    def shown(self, input_ids: torch.Tensor, labels: torch.Tensor, ignored: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the place of each base of each token, int64[B, L, longest], and whether each place is shown, bool[n].

        Places count the bases of all rows, -1 beyond the end of a token; see `shows` for tokens that show their bases.
        """
        columns = self.places(torch.where(labels != ignored, labels, input_ids))
        width = int(columns.max()) + 1
        rows = torch.arange(len(labels), device=labels.device)[:, None, None]
        places = torch.where(columns >= 0, columns + width * rows, -1)
        shown = torch.zeros(len(labels) * width, dtype=torch.bool, device=labels.device)
        shown[places[self.shows(input_ids, labels, ignored)[..., None] & (places >= 0)]] = True
        return places, shown

    def hidden_labels(self, input_ids: torch.Tensor, labels: torch.Tensor, ignored: int) -> torch.Tensor:
        """Return the labels of masked tokens none of whose bases is shown, ``ignored`` elsewhere, int64[B, L]."""
        places, shown = self.shown(input_ids, labels, ignored)
        seen = (shown[places.clamp_min(0)] & (places >= 0)).any(-1)
        return torch.where(seen, ignored, labels)

    def shows(self, input_ids: torch.Tensor, labels: torch.Tensor, ignored: int) -> torch.Tensor:
        """Return which tokens show their bases, bool[B, L]: unmasked tokens, and masked ones that were kept."""
        real = self.length.to(input_ids.device)[input_ids] > 0
        return real & ((labels == ignored) | (input_ids == labels))
