"""The ids of the special tokens of a k-mer vocabulary; `gemsdata.genome.vocab` names them."""

from __future__ import annotations

PAD_ID, UNK_ID, CLS_ID, SEP_ID, MASK_ID = range(5)
NUM_SPECIAL = 5
