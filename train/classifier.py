"""A sequence classifier's loss and its probabilities, over any number of processes."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional

from train.labelled import batches

_EVAL_ROWS = 256


def share_of_loss(
    model: torch.nn.Module, batch: dict[str, torch.Tensor], truth: np.ndarray, accelerator: Accelerator
) -> torch.Tensor:
    """Return this process's part of a batch's loss; the mean over processes is the mean over the batch's rows.

    ``batch`` and ``truth`` (class numbers, int64[B]) are the whole batch. A process that gets no row of a small one
    computes one with weight 0, because all must take part.
    """
    own = np.arange(len(truth))[accelerator.process_index :: accelerator.num_processes]
    weight = accelerator.num_processes / len(truth) if len(own) else 0.0
    own = own if len(own) else np.array([0])
    logits = model(**{name: values[own].to(accelerator.device) for name, values in batch.items()}).logits.float()
    labels = torch.from_numpy(truth[own]).to(accelerator.device)
    return functional.cross_entropy(logits, labels, reduction="sum") * weight


@torch.no_grad()
def probabilities(
    model: torch.nn.Module, tokens: list[np.ndarray], accelerator: Accelerator, *, pad_id: int
) -> np.ndarray:
    """Return the probability of each class for each row, float64[N, C]; every process computes all of them."""
    bare = accelerator.unwrap_model(model)
    was_training = bare.training
    bare.eval()
    order = np.argsort([len(row) for row in tokens], kind="stable")
    out = np.empty((len(tokens), bare.config.num_labels))
    for chosen, batch in batches(tokens, order, _EVAL_ROWS, pad_id=pad_id):
        logits = bare(**{name: values.to(accelerator.device) for name, values in batch.items()}).logits
        out[chosen] = logits.double().softmax(-1).cpu().numpy()
    bare.train(was_training)
    return out
