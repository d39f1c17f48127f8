"""A classifier of the pooled hidden states of an encoder: of [CLS], of the mean over tokens, or of both side by side.

The head is the same for every architecture and pooling (linear, tanh, dropout, linear), so that they can be compared.
A folder has the encoder's weights in Hugging Face's form and the head in a file of its own, `HEAD_FILE`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

POOLINGS = ("cls", "mean", "cls+mean")
HEAD_FILE = "pooled_head.safetensors"
CONFIG_NAME = "gemsdata_pooling"
"""name of the pooling in config.json"""
_DEFAULT_DROPOUT = 0.1


class PooledClassifier(nn.Module):
    """An encoder and a head on its pooled hidden states, with weights from torch's global generator.

    Parameters
    ----------
    encoder
        model that returns hidden states [B, L, H] first; a pooler of its own is removed.
    pooling
        "cls": the first token; "mean": the mean over tokens, [CLS] and [SEP] included; "cls+mean": both, [B, 2 H].
    dropout
        rate before the last layer; None: 0.1.

    Raises
    ------
    ValueError
        for an unknown pooling.
    """

    def __init__(self, encoder: PreTrainedModel, pooling: str, *, dropout: float | None = None) -> None:
        super().__init__()
        check_pooling(pooling)
        self.encoder = encoder
        self.pooling = pooling
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None
        config = encoder.config
        size = config.hidden_size
        self.head = nn.Sequential(
            nn.Linear(size * len(pooling.split("+")), size),
            nn.Tanh(),
            nn.Dropout(_DEFAULT_DROPOUT if dropout is None else dropout),
            nn.Linear(size, config.num_labels),
        )
        for layer in (self.head[0], self.head[3]):
            nn.init.normal_(layer.weight, std=getattr(config, "initializer_range", 0.02))
            nn.init.zeros_(layer.bias)

    @property
    def config(self) -> PretrainedConfig:
        """The encoder's configuration, which also has the names of the classes."""
        return self.encoder.config

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's embedding of token ids."""
        return self.encoder.get_input_embeddings()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the logits, float[B, classes], of int64[B, L] each."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        return self.head(pooled(hidden, attention_mask, self.pooling))

    def save_pretrained(self, folder: str | Path, **options: bool) -> None:
        """Write the encoder in Hugging Face's form, and the head beside it."""
        setattr(self.config, CONFIG_NAME, self.pooling)
        self.encoder.save_pretrained(folder, **options)
        save_file(
            {name: value.contiguous() for name, value in self.head.state_dict().items()}, Path(folder) / HEAD_FILE
        )

    def load_head(self, folder: Path) -> None:
        """Load the head that `save_pretrained` wrote; raise ValueError if it is missing or of another size."""
        if not (folder / HEAD_FILE).exists():
            raise ValueError(f"{folder} has no {HEAD_FILE}, which a fine-tuned model with {self.pooling} pooling needs")
        try:
            self.head.load_state_dict(load_file(folder / HEAD_FILE))
        except RuntimeError as error:
            raise ValueError(f"{folder / HEAD_FILE} does not fit config.json: {error}") from error


def pooled(hidden: torch.Tensor, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Return the pooled states of hidden[B, L, H], [B, H], or [B, 2 H] for "cls+mean"; padding does not count."""
    parts = []
    if "cls" in pooling:
        parts.append(hidden[:, 0])
    if "mean" in pooling:
        weights = attention_mask.to(hidden.dtype)[..., None]
        parts.append((hidden * weights).sum(1) / weights.sum(1))
    return torch.cat(parts, 1)


def check_pooling(pooling: str) -> None:
    """Raise ValueError for an unknown pooling."""
    if pooling not in POOLINGS:
        raise ValueError(f"--pooling {pooling!r} is unknown: use {', '.join(POOLINGS)}")
