"""Token ids of overlapping k-mers: DNABERT's vocabulary for every k.

Ids 0..4 are the special tokens; all k-mers follow in the order of the product over A, T, C, G, so that
``token_id = 5 + value`` where ``value`` reads the k-mer as a base-4 number with the digits A0 T1 C2 G3.
"""

from __future__ import annotations

import numpy as np

from gemsdata.kernels.special_ids import CLS_ID as CLS_ID
from gemsdata.kernels.special_ids import MASK_ID as MASK_ID
from gemsdata.kernels.special_ids import NUM_SPECIAL as NUM_SPECIAL
from gemsdata.kernels.special_ids import PAD_ID as PAD_ID
from gemsdata.kernels.special_ids import SEP_ID as SEP_ID
from gemsdata.kernels.special_ids import UNK_ID as UNK_ID

BASES = "ATCG"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MIN_K, MAX_K = 1, 12

_CODE = np.full(256, 255, np.uint8)
for _code, _base in enumerate(BASES):
    _CODE[ord(_base)] = _CODE[ord(_base.lower())] = _code
_CODE[ord("U")] = _CODE[ord("u")] = _CODE[ord("T")]
_COMPLEMENT = str.maketrans("ACGTUNRYSWKMBDHV", "TGCAANYRSWMKVHDB")


def check_k(k: int) -> int:
    """Return ``k``, or raise ValueError when it is not in 1..12."""
    if not MIN_K <= k <= MAX_K:
        raise ValueError(f"k = {k} is out of range: k-mers of {MIN_K} to {MAX_K} bases are supported")
    return k


def num_kmers(k: int) -> int:
    """Return 4**k."""
    return 4**k


def vocab_size(k: int) -> int:
    """Return the number of token ids, special tokens included: 4**k + 5."""
    return num_kmers(k) + NUM_SPECIAL


def token_dtype(k: int) -> np.dtype:
    """Return the narrowest dtype of token ids and ranks: uint16 up to k = 7, uint32 from k = 8."""
    return np.dtype(np.uint16 if vocab_size(k) <= 65536 else np.uint32)


def base_codes(sequence: str | bytes) -> np.ndarray:
    """Return the digit of each base, uint8[n]: A0 T1 C2 G3 in either case, U as T; 255 for any other letter."""
    data = sequence.encode("ascii") if isinstance(sequence, str) else sequence
    return _CODE[np.frombuffer(data, np.uint8)]


def reverse_complement(sequence: str) -> str:
    """Return the other strand of upper-case bases, IUPAC letters included."""
    return sequence.translate(_COMPLEMENT)[::-1]


def kmer_value(kmer: str) -> int:
    """Return the base-4 value (0 .. 4**k - 1) of a k-mer of A, C, G, T; raise ValueError for any other letter."""
    codes = base_codes(kmer)
    if codes.size == 0 or codes.max() > 3:
        raise ValueError(f"{kmer!r} is not a k-mer of A, C, G and T")
    value = 0
    for code in codes.tolist():
        value = 4 * value + code
    return value


def token_id(kmer: str) -> int:
    """Return the token id of a k-mer."""
    return NUM_SPECIAL + kmer_value(kmer)


def kmer_of_value(value: int, k: int) -> str:
    """Return the k-mer whose base-4 value is ``value``."""
    return "".join(BASES[(value >> (2 * (k - 1 - i))) & 3] for i in range(k))


def token(token_id: int, k: int) -> str:
    """Return the text of a token id: a special token or a k-mer."""
    return SPECIAL_TOKENS[token_id] if token_id < NUM_SPECIAL else kmer_of_value(token_id - NUM_SPECIAL, k)


def all_kmers(k: int) -> np.ndarray:
    """Return every k-mer in token-id order, bytes ``S{k}``[4**k]."""
    values = np.arange(num_kmers(k), dtype=np.uint32)
    letters = np.frombuffer(BASES.encode(), np.uint8)
    text = np.empty((values.size, k), np.uint8)
    for i in range(k):
        text[:, i] = letters[(values >> np.uint32(2 * (k - 1 - i))) & np.uint32(3)]
    return text.view(f"S{k}").ravel()


def reverse_complement_values(k: int) -> np.ndarray:
    """Return the value of each k-mer's reverse complement, uint32[4**k].

    The complement of a base flips the lowest bit of its digit (A0-T1, C2-G3).
    """
    values = np.arange(num_kmers(k), dtype=np.uint32)
    out = np.zeros_like(values)
    for i in range(k):
        digit = (values >> np.uint32(2 * i)) & np.uint32(3)
        out |= (digit ^ np.uint32(1)) << np.uint32(2 * (k - 1 - i))
    return out


def reverse_complement_ids(k: int) -> np.ndarray:
    """Return the id of each token's reverse complement, [4**k + 5] in the ids' dtype; specials stay."""
    out = np.arange(vocab_size(k), dtype=np.uint32)
    out[NUM_SPECIAL:] = reverse_complement_values(k) + np.uint32(NUM_SPECIAL)
    return out.astype(token_dtype(k))
