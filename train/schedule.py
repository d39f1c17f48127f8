"""The learning rate as a function of the step."""

from __future__ import annotations


def learning_rate(step: int, *, peak: float, warmup_steps: int, num_steps: int) -> float:
    """Return the learning rate of update ``step`` (0-based): linear warm-up to ``peak``, then linear decay to 0.

    The first update already has peak / warmup_steps, the last one peak / (num_steps - warmup_steps).
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * max(0, num_steps - step) / max(1, num_steps - warmup_steps)
