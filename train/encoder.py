"""Convert bases to the token ids of a checkpoint's own tokenizer, in the text form that it expects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from gemsdata.genome.vocab import MAX_K, vocab_size
from gemsdata.views.tokenizer import KmerTokenizer
from train.labelled import tokenise

TEXT_FORMS = ("bases", "kmers")
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.txt")
_ROWS_AT_ONCE = 1000  # rows per call: a tokenizer keeps text, offsets and masks of all rows of a call
_PROBE = "".join(np.random.default_rng(0).choice(list("ACGT"), 64))
_NO_LIMIT = 10**9  # tokenizers without a maximum say 1e30


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Turns sequences into rows of token ids, special tokens included."""

    tokenizer: PreTrainedTokenizerBase
    max_tokens: int | None
    """longest row, special tokens included; None: no limit"""
    pad_id: int
    k: int | None
    """bases of a token if tokens overlap; None: the tokenizer splits the bases itself"""
    as_dnabert: bool
    """the ids are DNABERT's, which `tokenise` computes without the tokenizer"""

    def encode(self, sequences: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each sequence (bases, upper case), int64[T] with T <= ``max_tokens``."""
        if self.as_dnabert and self.k is not None:
            return [tokenise(sequence, k=self.k, max_tokens=self.max_tokens) for sequence in sequences]
        rows: list[np.ndarray] = []
        for first in range(0, len(sequences), _ROWS_AT_ONCE):
            texts = [_text(sequence, self.k) for sequence in sequences[first : first + _ROWS_AT_ONCE]]
            cut = {} if self.max_tokens is None else {"truncation": True, "max_length": self.max_tokens}
            rows += [np.array(ids, np.int64) for ids in self.tokenizer(texts, **cut)["input_ids"]]
        return rows

    def num_cut(self, sequences: Sequence[str], rows: Sequence[np.ndarray]) -> int:
        """Return how many of the ``sequences`` were truncated in their ``rows``."""
        if self.max_tokens is None:
            return 0
        if self.as_dnabert and self.k is not None:
            return sum(len(sequence) - self.k + 1 > self.max_tokens - 2 for sequence in sequences)
        full = [sequence for sequence, ids in zip(sequences, rows, strict=True) if len(ids) == self.max_tokens]
        return sum(len(_ids(self.tokenizer, _text(sequence, self.k))) > self.max_tokens for sequence in full)


def load_encoder(
    folder: Path,
    *,
    num_ids: int,
    max_positions: int | None,
    text_form: str | None = None,
    trust_remote_code: bool = False,
) -> Encoder:
    """Load a checkpoint's tokenizer and detect the text form that it expects.

    Parameters
    ----------
    folder
        folder of the checkpoint; without tokenizer files the vocabulary must be DNABERT's, with 4**k + 5 ids.
    num_ids
        number of rows of the model's embedding.
    max_positions
        maximum number of tokens of the model; None: no limit.
    text_form
        "bases" (ACGTACG) or "kmers" (ACGTAC CGTACG); None: the first of them that the tokenizer supports.

    Raises
    ------
    ValueError
        if the tokenizer does not load, supports neither form, or has more ids than the model.
    """
    if text_form not in (None, *TEXT_FORMS):
        raise ValueError(f"--text-form {text_form!r} is unknown: use {' or '.join(TEXT_FORMS)}")
    tokenizer = _load_tokenizer(folder, num_ids, max_positions, trust_remote_code)
    if len(tokenizer) > num_ids:
        raise ValueError(f"{folder}: the tokenizer has {len(tokenizer)} ids, the model {num_ids}; they do not belong")
    k = _text_k(tokenizer, folder, text_form)
    limits = [limit for limit in (tokenizer.model_max_length, max_positions) if limit and limit < _NO_LIMIT]
    overlapping = next((size for size in (k, *_kmer_sizes(tokenizer)) if _is_dnabert(tokenizer, k, size)), None)
    return Encoder(
        tokenizer=tokenizer,
        max_tokens=min(limits, default=None),
        pad_id=tokenizer.pad_token_id or 0,  # any valid id: attention is masked by length
        k=k or overlapping,
        as_dnabert=overlapping is not None,
    )


def _load_tokenizer(
    folder: Path, num_ids: int, max_positions: int | None, trust_remote_code: bool
) -> PreTrainedTokenizerBase:
    if any((folder / name).exists() for name in _TOKENIZER_FILES):
        try:
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ValueError(f"the tokenizer of {folder} does not load: {error}") from error
    for k in range(1, MAX_K + 1):
        if num_ids == vocab_size(k):
            return KmerTokenizer(k, model_max_length=max_positions or _NO_LIMIT)
    raise ValueError(
        f"{folder} has no tokenizer, and {num_ids} token ids, which is 4**k + 5 for no k, so they are not DNABERT's;"
        f" put its tokenizer there ({', '.join(_TOKENIZER_FILES)})"
    )


def _text_k(tokenizer: PreTrainedTokenizerBase, folder: Path, text_form: str | None) -> int | None:
    """Return the k of the k-mers to write, None if the tokenizer takes plain bases."""
    if text_form != "kmers" and _share_known(tokenizer, _PROBE) > 0.5:
        return None
    for k in _kmer_sizes(tokenizer) if text_form != "bases" else []:
        text = _text(_PROBE, k)
        if _share_known(tokenizer, text) > 0.5 and len(_ids(tokenizer, text, special=False)) == len(text.split()):
            return k
    known = {"bases": "does not know plain bases", "kmers": "does not know overlapping k-mers"}
    raise ValueError(
        f"the tokenizer of {folder} {known.get(text_form or '', 'knows neither plain bases nor overlapping k-mers')}:"
        " it makes unknown tokens of them; where its words are upper case, tokenizer_config.json must say"
        ' "do_lower_case": false'
    )


def _is_dnabert(tokenizer: PreTrainedTokenizerBase, text_k: int | None, k: int | None) -> bool:
    """Return whether the tokenizer, given ``text_k``-mers or plain bases, gives the ids of `tokenise` for ``k``."""
    return k is not None and all(
        _ids(tokenizer, _text(sequence, text_k)) == tokenise(sequence, k=k, max_tokens=None).tolist()
        for sequence in (_PROBE, _PROBE[:k], _PROBE[: k - 1], _PROBE[:20] + "N" + _PROBE[20:])
    )


def _kmer_sizes(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return each k for which all k-mers are in the vocabulary, the longest first."""
    sizes = Counter(len(word) for word in tokenizer.get_vocab() if word and set(word.upper()) <= set("ACGT"))
    return sorted((k for k, number in sizes.items() if number == 4**k), reverse=True)


def _share_known(tokenizer: PreTrainedTokenizerBase, text: str) -> float:
    ids = _ids(tokenizer, text, special=False)
    return sum(token_id != tokenizer.unk_token_id for token_id in ids) / max(1, len(ids))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = True) -> list[int]:
    """Return the ids of a text without truncation."""
    return tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]


def _text(sequence: str, k: int | None) -> str:
    """Return a sequence as its overlapping k-mers separated by spaces, or unchanged."""
    return sequence if k is None else " ".join(sequence[i : i + k] for i in range(len(sequence) - k + 1))
