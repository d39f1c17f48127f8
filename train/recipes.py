"""The papers' hyper-parameters, by name.

Sources: GeneMask (arXiv 2307.15933) and CM-GEMS (2408.07180), which share a recipe for pretraining and one for few-shot
fine-tuning; DNABERT (Ji et al. 2021); GUE as in DNABERT-2 (Zhou et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """Hyper-parameters of pretraining: AdamW, linear warm-up, linear decay."""

    max_steps: int
    """updates of the run"""
    batch_rows: int
    """rows per update, over all processes"""
    peak_lr: float
    warmup_steps: int
    eval_every: int
    """updates between evaluations"""
    weight_decay: float = 0.01
    """weight decay of matrices; none on biases and LayerNorm"""
    beta2: float = 0.98
    """AdamW's second beta (the first is 0.9; epsilon is 1e-6)"""
    clip_norm: float = 1.0


_PRETRAIN = {
    "papers": PretrainRecipe(max_steps=10_000, batch_rows=250, peak_lr=8e-4, warmup_steps=500, eval_every=500),
    "dnabert-original": PretrainRecipe(
        max_steps=120_000, batch_rows=2000, peak_lr=4e-4, warmup_steps=10_000, eval_every=500
    ),
    "small": PretrainRecipe(max_steps=600, batch_rows=64, peak_lr=3e-3, warmup_steps=60, eval_every=100),
    "smoke": PretrainRecipe(max_steps=200, batch_rows=16, peak_lr=2e-3, warmup_steps=20, eval_every=50),
}


def pretrain_recipe(name: str) -> PretrainRecipe:
    """Return a recipe: "papers" (GeneMask and CM-GEMS), "dnabert-original", "small" (not from a paper) or "smoke"."""
    if name not in _PRETRAIN:
        raise ValueError(f"recipe {name!r} is unknown: use one of {', '.join(_PRETRAIN)}")
    return _PRETRAIN[name]


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """Hyper-parameters of fine-tuning: AdamW, linear warm-up, linear decay."""

    peak_lr: float
    batch_rows: int
    epochs: int | None = None
    max_steps: int | None = None
    """updates, instead of epochs"""
    warmup_share: float = 0.0
    """of the run"""
    warmup_steps: int = 0
    """instead of the share"""
    eval_every: int | None = None
    """updates between evaluations on the dev rows; None: each epoch"""
    dropout: float | None = 0.1
    """None: that of the pretrained model"""
    weight_decay: float = 0.01


_FEWSHOT_SMALL = FinetuneRecipe(peak_lr=1e-4, batch_rows=5, epochs=20, warmup_share=0.1)
_FEWSHOT_LARGE = FinetuneRecipe(peak_lr=5e-5, batch_rows=15, epochs=5, warmup_share=0.1)


def _gue(
    *,
    epochs: int | None = None,
    max_steps: int | None = None,
    warmup_steps: int = 50,
    eval_every: int = 200,
    batch_rows: int = 32,
) -> FinetuneRecipe:
    """Return the recipe that DNABERT-2's authors used for DNABERT, with the length and settings of each task."""
    return FinetuneRecipe(
        peak_lr=3e-5,
        batch_rows=batch_rows,
        epochs=epochs,
        max_steps=max_steps,
        warmup_steps=warmup_steps,
        eval_every=eval_every,
        dropout=None,
    )


_FINETUNE = {
    "fewshot-small": _FEWSHOT_SMALL,
    "fewshot-large": _FEWSHOT_LARGE,
    "gue-emp": _gue(epochs=3),
    "gue-prom": _gue(epochs=4, eval_every=400),
    "gue-prom-tata": _gue(epochs=10),
    "gue-splice": _gue(epochs=5),
    "gue-tf": _gue(epochs=3, warmup_steps=30),
    "gue-mouse": _gue(max_steps=1000, warmup_steps=30),
    "gue-covid": _gue(epochs=9, batch_rows=128),
}


def finetune_recipe_names() -> list[str]:
    """Return the names of all fine-tuning recipes."""
    return ["fewshot", *_FINETUNE]


def finetune_recipe(name: str, *, num_rows: int, num_classes: int) -> FinetuneRecipe:
    """Return a recipe; "fewshot" depends on the rows per class: the small one up to 100 shots, else the large one."""
    if name == "fewshot":
        return _FEWSHOT_SMALL if num_rows <= 100 * num_classes else _FEWSHOT_LARGE
    if name not in _FINETUNE:
        raise ValueError(f"recipe {name!r} is unknown: use one of {', '.join(finetune_recipe_names())}")
    return _FINETUNE[name]
