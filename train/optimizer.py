"""AdamW as BERT is trained with it."""

from __future__ import annotations

import torch


def adamw(
    model: torch.nn.Module, *, lr: float, weight_decay: float, beta2: float = 0.999, eps: float = 1e-8
) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices, none on biases and LayerNorm."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), eps=eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Let all parameter groups learn at ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr
