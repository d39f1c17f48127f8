"""Kinds of tokens: k-mers at any stride, single bases, the tokens of a Hugging Face tokenizer.

All of them encode rows of bases (uint8: A0 T1 C2 G3, 4 for any other letter) and return which bases each token covers,
which is all that masking needs.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import re
from abc import ABC, abstractmethod
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemsdata.genome.vocab import base_codes, check_k, token
from gemsdata.kernels.bases import decode_kmers, decode_varying, encode_kmers, lay_out_varying
from gemsdata.masking.token_rows import Vocabulary
from gemsdata.shards.manifest import TOKENIZER_FILES
from gemsdata.views.special_ids import special_ids

SPECS = '"kmer:K", "kmer:K:STRIDE", "base", or the folder of a Hugging Face fast tokenizer'
_LETTERS = b"ATCG".ljust(256, b"N")
_KMER = re.compile(r"kmer:(\d+)(?::(\d+))?")
_PROBE_BASES = 4096
_SHORTEST_MEAN_BASES = 3
"""rows of tokens that vary in length have space for one token per this many bases, unless ``row_tokens`` is given"""


@dataclass(frozen=True, kw_only=True)
class EncodedRows:
    """B rows of up to L tokens."""

    input_ids: np.ndarray
    """uint16 or uint32 [B, L], the padding id beyond ``num_tokens``"""
    num_tokens: np.ndarray
    """int64[B]"""
    num_bases: np.ndarray
    """bases that the tokens cover, from the row's first, int64[B]"""
    token_start: np.ndarray | None
    """for tokens that vary in length: token t covers bases [start[t], start[t + 1]), int32[B, L+1]"""


class Tokens(ABC):
    """One kind of tokens."""

    spec: str
    """the name as given: "kmer:6:6", "base", a folder"""
    vocabulary: Vocabulary
    token_bases: int
    """bases of a token; for tokens that vary in length, approximately their mean"""
    token_stride: int
    """bases between the starts of neighbouring tokens of constant length; else ``token_bases``"""
    varying: bool = False
    """whether tokens vary in length, so that rows are measured in bases"""

    @property
    def overlapping(self) -> bool:
        """Whether tokens are overlapping k-mers, k >= 3, one starting at each base."""
        return not self.varying and self.token_stride == 1 and self.token_bases >= 3

    @abstractmethod
    def encode(self, bases: np.ndarray, num_bases: np.ndarray, row_tokens: int) -> EncodedRows:
        """Return the tokens of rows of bases, at most ``row_tokens`` of each.

        Parameters
        ----------
        bases
            uint8[B, W]: A0 T1 C2 G3, 4 for any other letter; undefined beyond ``num_bases``.
        num_bases
            integers[B].
        """

    @abstractmethod
    def decode(self, input_ids: np.ndarray, num_tokens: np.ndarray, row_bases: int) -> tuple[EncodedRows, np.ndarray]:
        """Return rows as `encode` made them, from ids [B, L] and num_tokens int64[B], and their bases uint8[B, W].

        W is ``row_bases``; a base that only unknown tokens cover is 4.
        """

    @abstractmethod
    def text(self, token_id: int) -> str:
        """Return the text of a token id."""

    @abstractmethod
    def tokenizer(self, model_max_length: int) -> Any:
        """Return the `transformers` tokenizer of these tokens, for ``save_pretrained``."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Text that identifies the tokens in fingerprints: equal if every row gives equal ids."""

    def row_bases(self, row_tokens: int) -> int:
        """Return the bases of a full row of ``row_tokens`` tokens."""
        return (row_tokens - 1) * self.token_stride + self.token_bases

    def row_tokens(self, row_bases: int) -> int:
        """Return the number of tokens that fit in a row of ``row_bases`` bases; raise ValueError if none fits."""
        tokens = (row_bases - self.token_bases) // self.token_stride + 1
        if tokens < 1:
            raise ValueError(
                f"row_bases = {row_bases} is shorter than one token of {self.spec!r}; give {self.token_bases} or more"
            )
        return tokens


class KmerTokens(Tokens):
    """K-mers every ``stride`` bases, with DNABERT's ids; ``KmerTokens(1, 1)`` are single bases.

    A k-mer with a letter other than A, C, G, T is [UNK].
    """

    def __init__(self, k: int, stride: int = 1) -> None:
        if not 1 <= stride <= check_k(k):
            raise ValueError(f"tokens 'kmer:{k}:{stride}' would skip bases: give a stride from 1 to k = {k}")
        self.k, self.token_bases, self.token_stride = k, k, stride
        self.spec = "base" if k == 1 else f"kmer:{k}" + (f":{stride}" if stride > 1 else "")
        self.vocabulary = Vocabulary.of_kmers(k)

    def encode(self, bases: np.ndarray, num_bases: np.ndarray, row_tokens: int) -> EncodedRows:  # noqa: D102
        num_tokens = np.minimum((num_bases - self.k) // self.token_stride + 1, row_tokens)
        num_tokens = np.maximum(num_tokens, 0).astype(np.int64)
        ids = np.empty((len(bases), row_tokens), self.vocabulary.id_dtype)
        encode_kmers(bases, num_tokens, self.k, self.token_stride, ids)
        return self._encoded(ids, num_tokens)

    def decode(  # noqa: D102
        self, input_ids: np.ndarray, num_tokens: np.ndarray, row_bases: int
    ) -> tuple[EncodedRows, np.ndarray]:
        self.vocabulary.check_stored(input_ids, num_tokens)
        bases = np.zeros((len(input_ids), row_bases), np.uint8)
        decode_kmers(input_ids, num_tokens, self.k, self.token_stride, bases)
        return self._encoded(input_ids, num_tokens), bases

    def _encoded(self, ids: np.ndarray, num_tokens: np.ndarray) -> EncodedRows:
        covered = np.where(num_tokens > 0, (num_tokens - 1) * self.token_stride + self.k, 0)
        return EncodedRows(input_ids=ids, num_tokens=num_tokens, num_bases=covered, token_start=None)

    def text(self, token_id: int) -> str:  # noqa: D102
        return token(token_id, self.k)

    def tokenizer(self, model_max_length: int) -> Any:  # noqa: D102
        from gemsdata.views.tokenizer import KmerTokenizer

        return KmerTokenizer(self.k, stride=self.token_stride, model_max_length=model_max_length)

    @property
    def identity(self) -> str:  # noqa: D102
        return f"kmer:{self.k}:{self.token_stride}"

    def __repr__(self) -> str:
        return f"KmerTokens({self.k}, {self.token_stride})"


class HuggingFaceTokens(Tokens):
    """The tokens of a Hugging Face fast tokenizer (BPE, WordPiece, unigram) over upper-case bases, without specials.

    If the text of every token is as long as the bases that it covers, which is tested with random bases when the folder
    is opened, starts of tokens come from a table; else from the tokenizer's offsets, which are slower. Raises
    FileNotFoundError or ValueError for a folder that is not a fast tokenizer, or a vocabulary that lacks special tokens
    or letters.
    """

    varying = True

    def __init__(self, folder: str | Path, *, spec: str | None = None) -> None:
        self.folder = Path(folder)
        self.spec = spec or str(folder)
        path = _tokenizer_file(self.folder)
        try:
            from tokenizers import Tokenizer
            from transformers import PreTrainedTokenizerFast
        except ImportError:
            raise ValueError(
                f"tokens {self.spec!r} need the package transformers: pip install 'gemsdata[train]'"
            ) from None
        content = path.read_bytes()
        self._identity = hashlib.sha256(content).hexdigest()
        try:
            self._tokenizer = Tokenizer.from_buffer(content)
            described = PreTrainedTokenizerFast.from_pretrained(str(self.folder))
        except Exception as error:  # the library raises plain Exceptions for files that it cannot read
            raise ValueError(f"{path} is not a tokenizer that Hugging Face tokenizers can read: {error}") from None
        self._described = described
        self.files = {
            name: (self.folder / name).read_bytes() for name in TOKENIZER_FILES if (self.folder / name).exists()
        }
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        texts = [self._tokenizer.id_to_token(i) or "" for i in range(size)]
        special = special_ids(described, self.folder)
        real = _real_tokens(texts, set(special.values()))
        self.vocabulary = Vocabulary(size=size, **special, random_ids=np.flatnonzero(real).astype(np.uint32))
        self._texts = texts
        self._length = np.array([len(_letters(text)) for text in texts], np.int64)
        self._length[~real] = 0
        self._check_letters()
        bases = np.random.Generator(np.random.PCG64(0)).integers(0, 4, _PROBE_BASES, dtype=np.uint8)
        ids, start = self._encode_with_offsets(_sequences(bases[None], np.array([_PROBE_BASES]))[0])
        self._by_length = bool(real[ids].all()) and np.array_equal(np.cumsum(self._length[ids]), start[1:])
        self.token_bases = self.token_stride = max(1, round(_PROBE_BASES / len(ids)))

    def encode(self, bases: np.ndarray, num_bases: np.ndarray, row_tokens: int) -> EncodedRows:  # noqa: D102
        count = len(bases)
        ids = np.empty((count, row_tokens), self.vocabulary.id_dtype)
        start = np.empty((count, row_tokens + 1), np.int32)
        sequences = _sequences(bases, num_bases)
        flat, found = array("I"), np.zeros(count + 1, np.int64)
        with_offsets = np.arange(count)
        if self._by_length:
            for i, encoded in enumerate(self._tokenizer.encode_batch_fast(sequences, add_special_tokens=False)):
                flat.fromlist(encoded.ids)
                found[i + 1] = len(flat)
            with_offsets = np.empty(0, np.int64)
        flat_ids = np.frombuffer(flat, np.uint32) if flat else np.empty(0, np.uint32)
        lay_out_varying(flat_ids, found, self._length, self.vocabulary.pad_id, ids, start)
        num_tokens = np.minimum(np.diff(found), row_tokens)
        unknown = np.flatnonzero(self._length[flat_ids] == 0)  # of a letter that the vocabulary does not have
        if unknown.size:
            with_offsets = np.unique(np.searchsorted(found, unknown, side="right") - 1)
        for i in with_offsets.tolist():
            row, ends = self._encode_with_offsets(sequences[i])
            kept = num_tokens[i] = min(len(row), row_tokens)
            ids[i, :kept] = row[:kept]
            ids[i, kept:] = self.vocabulary.pad_id
            start[i, : kept + 1] = ends[: kept + 1]
            start[i, kept + 1 :] = ends[kept]
        return EncodedRows(
            input_ids=ids,
            num_tokens=num_tokens,
            num_bases=start[np.arange(count), num_tokens].astype(np.int64),
            token_start=start,
        )

    def decode(  # noqa: D102
        self, input_ids: np.ndarray, num_tokens: np.ndarray, row_bases: int
    ) -> tuple[EncodedRows, np.ndarray]:
        self.vocabulary.check_stored(input_ids, num_tokens)
        bases = np.empty((len(input_ids), row_bases), np.uint8)
        start = np.empty((len(input_ids), input_ids.shape[1] + 1), np.int32)
        decode_varying(input_ids, num_tokens, *self._digits, bases, start)
        num_bases = start[np.arange(len(start)), num_tokens].astype(np.int64)
        return EncodedRows(input_ids=input_ids, num_tokens=num_tokens, num_bases=num_bases, token_start=start), bases

    @functools.cached_property
    def _digits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First eight bases of each id, uint64[V]; bases of all ids concatenated, uint8; their offsets int64[V + 1]."""
        texts = [_letters(self._texts[i]) if length else "" for i, length in enumerate(self._length.tolist())]
        begins = np.concatenate([[0], np.cumsum(self._length)]).astype(np.int64)
        digits = base_codes("".join(texts)).copy()
        first = np.zeros((len(texts), 8), np.uint8)
        for i, text in enumerate(texts):
            first[i, : min(len(text), 8)] = digits[begins[i] : begins[i + 1]][:8]
        return first.view("<u8")[:, 0].astype(np.uint64), digits, begins

    def row_tokens(self, row_bases: int) -> int:  # noqa: D102
        return -(-row_bases // _SHORTEST_MEAN_BASES)

    def text(self, token_id: int) -> str:  # noqa: D102
        return self._texts[token_id]

    def tokenizer(self, model_max_length: int) -> Any:  # noqa: D102
        tokenizer = copy.deepcopy(self._described)  # the folder of a stored set's tokenizer is temporary
        tokenizer.model_max_length = tokenizer.init_kwargs["model_max_length"] = model_max_length
        return tokenizer

    @property
    def identity(self) -> str:  # noqa: D102
        return f"tokenizer:{self._identity}"

    def _encode_with_offsets(self, sequence: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids int64[n] of a sequence and the boundaries of its tokens, int64[n + 1]."""
        encoding = self._tokenizer.encode(sequence, add_special_tokens=False)
        start = [first for first, _ in encoding.offsets]
        return np.array(encoding.ids, np.int64), np.array([*start, len(sequence)], np.int64)

    def _check_letters(self) -> None:
        for letter in "ACGT":
            ids = self._tokenizer.encode(letter, add_special_tokens=False).ids
            if not ids or any(not self._length[i] for i in ids):
                raise ValueError(
                    f"tokens {self.spec!r}: the vocabulary has no token for the letter {letter}; a tokenizer trained on"
                    " upper-case DNA is needed"
                )


def resolve_tokens(spec: str | Path | Tokens) -> Tokens:
    """Return the kind of tokens named by ``spec``.

    Raises ValueError or FileNotFoundError for an unknown name, or a tokenizer that cannot be used.
    """
    if isinstance(spec, Tokens):
        return spec
    if spec == "base":
        return KmerTokens(1)
    match = _KMER.fullmatch(str(spec))
    if match:
        return KmerTokens(int(match[1]), int(match[2] or 1))
    if str(spec).startswith("kmer") or (not Path(spec).exists() and "/" not in str(spec)):
        raise ValueError(f"tokens {str(spec)!r} are unknown: give {SPECS}")
    return HuggingFaceTokens(spec)


def _tokenizer_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; tokens are {SPECS}")
    path = folder / "tokenizer.json"
    if not path.exists():
        raise ValueError(
            f"{folder} holds no tokenizer.json, so it is not a fast tokenizer; load it with AutoTokenizer and"
            " save_pretrained the fast one"
        )
    return path


def _real_tokens(texts: list[str], special: set[int]) -> np.ndarray:
    """Return which tokens are bases, bool[n]."""
    real = np.array([bool(re.fullmatch("[ACGT]+", _letters(text))) for text in texts])
    real[list(special)] = False
    return real


def _letters(text: str) -> str:
    """Return a token's text without the prefix marks of some models."""
    return text.removeprefix("##").removeprefix("Ġ").removeprefix("▁")


def _sequences(bases: np.ndarray, num_bases: np.ndarray) -> list[str]:
    return [text_of_bases(bases[i, :count]) for i, count in enumerate(num_bases.tolist())]


def text_of_bases(bases: np.ndarray) -> str:
    """Return bases uint8[n] as text, N for every letter other than A, C, G and T."""
    return bases.tobytes().translate(_LETTERS).decode("ascii")
