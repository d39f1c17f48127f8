"""AdamW as used for BERT, and its learning rate as a function of the step."""

from __future__ import annotations

import torch


def adamw(
    model: torch.nn.Module, *, lr: float, weight_decay: float, beta2: float = 0.999, eps: float = 1e-8
) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices, none on biases and normalisation layers."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), eps=eps, fused=True)


def learning_rate(step: int, *, peak: float, warmup_steps: int, num_steps: int) -> float:
    """Return the learning rate of update ``step`` (0-based): linear warm-up to ``peak``, then linear decay to 0.

    The first update already has peak / warmup_steps, the last one peak / (num_steps - warmup_steps).
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * max(0, num_steps - step) / max(1, num_steps - warmup_steps)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
