"""The masked-LM loss of a batch, with optional loss weights."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_IGNORED = -100


def masked_lm_loss(logits: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Return the mean cross-entropy of the masked tokens of a batch, weighted by its ``loss_weights`` if it has them.

    Parameters
    ----------
    logits
        output of the model, float[B, L, vocabulary].
    batch
        batch of a loader: ``labels`` int64[B, L], -100 where a token is not masked, and perhaps ``loss_weights``
        float32[B, L].

    Returns
    -------
    torch.Tensor
        sum of weight * loss over sum of weight, a float32 scalar; 0 if all weights of masked tokens are 0.
    """
    masked = batch["labels"] != _IGNORED
    losses = functional.cross_entropy(logits[masked].float(), batch["labels"][masked], reduction="none")
    weights = batch["loss_weights"][masked] if "loss_weights" in batch else torch.ones_like(losses)
    return (losses * weights).sum() / weights.sum().clamp_min(1e-9)
