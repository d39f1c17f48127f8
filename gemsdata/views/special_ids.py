"""The ids of the special tokens of a Hugging Face tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def special_ids(described: Any, folder: Path) -> dict[str, int]:
    """Return the ids of the special tokens of a `transformers` tokenizer; bos and eos may replace [CLS] and [SEP]."""
    wanted = {
        "pad_id": ("pad_token_id",),
        "unk_id": ("unk_token_id", "mask_token_id"),
        "cls_id": ("cls_token_id", "bos_token_id"),
        "sep_id": ("sep_token_id", "eos_token_id"),
        "mask_id": ("mask_token_id",),
    }
    found = {}
    for name, attributes in wanted.items():
        ids = [getattr(described, attribute) for attribute in attributes if getattr(described, attribute) is not None]
        if not ids:
            raise ValueError(
                f"{folder} has no {attributes[0].removesuffix('_id')}; masked-language modelling needs one: add it to"
                " the tokenizer and save it again"
            )
        found[name] = ids[0]
    return found
