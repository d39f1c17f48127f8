"""Masked language models: the named sizes, and any architecture that Hugging Face can build from a configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    BertConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from gemsdata.masking.token_rows import Vocabulary

_BERT = {
    "logo": (2, 256, 8, 3072, 0.0),
    "dnabert": (12, 768, 12, 3072, 0.1),
    "small": (2, 128, 4, 512, 0.0),
    "smoke": (2, 64, 2, 128, 0.1),
}
"""name: layers, hidden size, heads, feed-forward size, dropout"""
_MODERN_BERT = {"modern-small": (2, 128, 4, 344), "modern-base": (22, 768, 12, 1152)}
"""name: layers, hidden size, heads, feed-forward size; rotary positions, no dropout, gated feed-forward layers"""
_SPECIAL_IDS = {"pad": "pad", "unk": "unk", "cls": "cls", "sep": "sep", "mask": "mask", "bos": "cls", "eos": "sep"}
"""name in a configuration: name in a `Vocabulary`"""


def model_names() -> list[str]:
    """Return the names of all model sizes."""
    return [*_BERT, *_MODERN_BERT]


def build_model(model: str, vocabulary: Vocabulary, *, max_positions: int = 512) -> PreTrainedModel:
    """Return a masked LM with random weights from torch's global generator.

    Parameters
    ----------
    model
        a named size: "logo" (4.93 M parameters with 6-mers), "dnabert" (89.2 M), "small" (1.0 M), "smoke" (for tests),
        "modern-small" (0.94 M), "modern-base" (114 M); or a Hugging Face config.json, or a folder with one, of any
        architecture that AutoModelForMaskedLM knows. Vocabulary, special tokens and positions are set to fit.
    vocabulary
        token ids of the rows.
    max_positions
        longest row in tokens, [CLS] and [SEP] included.

    Raises
    ------
    ValueError
        for an unknown name, or a configuration that is not for a masked LM.
    """
    config = _config(model)
    config.vocab_size = vocabulary.size
    config.max_position_embeddings = max_positions
    for name, role in _SPECIAL_IDS.items():
        if name in ("pad", "mask") or getattr(config, f"{name}_token_id", None) is not None:
            setattr(config, f"{name}_token_id", getattr(vocabulary, f"{role}_id"))
    try:
        with torch.device("meta"):
            table = num_positions(AutoModelForMaskedLM.from_config(config))
        if table is not None:  # some begin after a padding row (RoBERTa, ESM)
            config.max_position_embeddings += max_positions - table
        return AutoModelForMaskedLM.from_config(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--model {model}: {config.model_type} cannot be a masked LM: {error}") from error


def load_model(folder: str | Path, vocabulary: Vocabulary, *, max_positions: int) -> PreTrainedModel:
    """Load a Hugging Face checkpoint of a masked LM; raise ValueError if it does not fit the rows.

    Also loads DNABERT's published checkpoints: their additional tensors (pooler, next-sentence head) are ignored.
    """
    if not (Path(folder) / "config.json").exists():
        raise ValueError(f"{folder} is not a Hugging Face model folder (it has no config.json); give one, or --model")
    config = _read_config(Path(folder))
    if config.vocab_size != vocabulary.size:
        raise ValueError(
            f"{folder} has {config.vocab_size} token ids, the rows have {vocabulary.size}; give rows of the model's"
            " tokens, or start from another checkpoint"
        )
    with quiet_loading():
        model, report = AutoModelForMaskedLM.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    if report["missing_keys"]:
        raise ValueError(
            f"{folder} lacks {len(report['missing_keys'])} of the model's tensors ({min(report['missing_keys'])}, ...);"
            " give a checkpoint with a masked-LM head"
        )
    table = num_positions(model) or config.max_position_embeddings
    if table < max_positions:
        raise ValueError(
            f"{folder} has {table} positions, the shards' rows need {max_positions};"
            f" make shards with --row-tokens {table - 2}"
        )
    return model


def num_positions(model: PreTrainedModel) -> int | None:
    """Return the maximum number of tokens; None for models without a position table (ALiBi, rotary).

    In tables with a padding row (RoBERTa, ESM) positions begin after it.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence transformers' progress bars and its lists of unused or new tensors."""
    verbosity, with_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if with_bars:
            transformers_logging.enable_progress_bar()


def _config(model: str) -> PreTrainedConfig:
    if model in _BERT:
        layers, hidden, heads, feed_forward, dropout = _BERT[model]
        return BertConfig(
            num_hidden_layers=layers,
            hidden_size=hidden,
            num_attention_heads=heads,
            intermediate_size=feed_forward,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    if model in _MODERN_BERT:
        layers, hidden, heads, feed_forward = _MODERN_BERT[model]
        return ModernBertConfig(
            num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, intermediate_size=feed_forward
        )
    if (Path(model) / "config.json").exists() or Path(model).is_file():
        return _read_config(Path(model))
    raise ValueError(f"--model {model!r} is unknown: use one of {', '.join(model_names())}, or a config.json")


def _read_config(path: Path) -> PreTrainedConfig:
    """Return the configuration in a file or folder."""
    try:
        with quiet_loading():  # no warnings about special tokens, which are replaced
            return AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is not the configuration of a Hugging Face model: {error}") from error
