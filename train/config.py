"""Options of a pretraining run; a recipe supplies the values that are not given."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from accelerate.tracking import get_available_trackers

from gemsdata.masking.curriculum import CMGems, Curriculum, resolve_curriculum
from gemsdata.masking.registry import load_plugins
from gemsdata.views.options import ViewOptions
from train.models import model_names
from train.optimizer import learning_rate
from train.options import group, option
from train.recipes import pretrain_recipe

_PRECISIONS = ("no", "bf16", "fp16")
_DEFAULT_RECIPE = {"logo": "papers", "dnabert": "papers", "small": "small", "modern-small": "small", "smoke": "smoke"}
_FROM_RECIPE = (
    "max_steps", "batch_rows", "peak_lr", "warmup_steps", "weight_decay", "beta2", "clip_norm", "eval_every"
)  # fmt: skip
_AT_LEAST_1 = (
    "max_steps", "batch_rows", "micro_batch_rows", "eval_every", "eval_rows", "log_every", "save_every", "keep_last",
    "switch_lag",
)  # fmt: skip
_PREFETCHED = 2
"""batches that each of the loader's threads computes ahead, the default of `gemsdata.Loader`"""
FIXED_FOR_A_RUN = (
    "model", "loss_on", "switch_on", "peak_lr", "warmup_steps", "weight_decay", "beta2", "clip_norm", "eval_rows",
    "eval_masking",
)  # fmt: skip
"""options that must equal those of the checkpoint; data, seed and masking are compared by the loader"""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Options of train/pretrain.py; None stands for the recipe's value, see `resolved`."""

    shards: tuple[str, ...] = option("shard sets made by `gemsdata shard`; several are mixed")
    weights: tuple[float, ...] = option(
        "share of the rows of each set, or of each of several --regions; default: by their numbers of rows", ()
    )
    view: ViewOptions = group(ViewOptions)  # noqa: RUF009
    output_dir: str = option("folder of the run")
    model: str = option(f"model: {', '.join(model_names())}, a Hugging Face config.json or a folder with one", "logo")
    init_from: str | None = option("Hugging Face checkpoint of a masked LM to start from, such as DNABERT-6", None)
    masking: str = option("masking strategy or curriculum, such as genemask, global, cm-gems", "genemask")
    masking_budget: float | None = option(
        "exact fraction of the tokens masked in every row, instead of the masking's own rate", None
    )
    corruption: str = option(
        "masked tokens are replaced by [MASK], a random token or themselves (80/10/10), decided for each token or once"
        " for each span, or all by [MASK]: token, span or mask",
        "token",
    )
    loss_on: str = option(
        "masked tokens that the loss is computed at: masked (all) or hidden (no other token shows a base of them)",
        "masked",
    )
    switch_threshold: float = option(
        "with cm-gems, switch if an evaluation lowers the perplexity by less than this", 1.0
    )
    switch_on: str = option(
        "with cm-gems, tokens of that perplexity: all (masked tokens, as published) or mask (shown as [MASK])", "all"
    )
    switch_lag: int = option("updates between a decision to switch and its effect", 16)
    recipe: str | None = option("recipe: papers, dnabert-original, small or smoke; default: the model's", None)
    max_steps: int | None = option("updates of the run", None)
    batch_rows: int | None = option("rows per update, over all processes", None)
    micro_batch_rows: int = option("rows computed at a time by a process; gradients are accumulated", 64)
    peak_lr: float | None = option("highest learning rate", None)
    warmup_steps: int | None = option("updates of linear warm-up", None)
    weight_decay: float | None = option("weight decay of AdamW, on matrices only", None)
    beta2: float | None = option("second beta of AdamW", None)
    clip_norm: float | None = option("largest norm of the gradient", None)
    reverse_complement: float = option("probability that a row is replaced by its reverse complement", 0.0)
    seed: int = option("random seed of weights, rows, masks and dropout", 0)
    mixed_precision: str | None = option("precision: no, bf16 or fp16; default: that of `accelerate config`", None)
    compile: bool = option("compile the model with torch.compile", False)
    gradient_checkpointing: bool = option("recompute activations in the backward pass, which saves memory", False)
    workers: int = option("threads that compute masked batches ahead", 1)
    threads: int | None = option(
        "threads of torch on CPU for each process; default: the cores divided among the processes", None
    )
    eval_every: int | None = option("updates between evaluations", None)
    eval_rows: int = option("number of validation rows", 1024)
    eval_masking: str = option("masking of the validation rows, the same masks at every evaluation", "genemask")
    log_every: int = option("updates between lines of metrics.jsonl", 10)
    save_every: int | None = option("updates between checkpoints; default: as for evaluations", None)
    keep_last: int = option("number of checkpoints to keep", 2)
    card: bool = option("also write a model card, README.md, into the model folder", False)
    tracker: tuple[str, ...] = option("trackers of accelerate: tensorboard, wandb, ...", ())
    resume: bool = option("continue from the newest checkpoint in the output folder, if there is one", False)
    imports: tuple[str, ...] = option("modules to import first, which register your own maskings", (), name="--import")

    def resolved(self) -> PretrainConfig:
        """Return the options completed by the recipe's values; raise ValueError for invalid ones."""
        load_plugins(self.imports)
        name = self.recipe or _DEFAULT_RECIPE.get(self.model, "papers")
        recipe = pretrain_recipe(name)
        missing = {field: getattr(recipe, field) for field in _FROM_RECIPE if getattr(self, field) is None}
        if self.max_steps is not None and self.warmup_steps is None:  # a shorter run keeps the recipe's proportions
            missing["warmup_steps"] = min(recipe.warmup_steps, self.max_steps // 10)
        full = dataclasses.replace(self, recipe=name, **missing)
        full = dataclasses.replace(full, save_every=full.save_every or full.eval_every)
        full._check()
        return full

    def curriculum(self) -> Curriculum:
        """Return the curriculum named by ``masking``."""
        curriculum = resolve_curriculum(self.masking, num_steps=self.max_steps)
        if self.masking_budget is not None:
            curriculum = curriculum.with_options(budget=self.masking_budget)
        if self.corruption != "token":
            curriculum = curriculum.with_options(corruption=self.corruption)
        if isinstance(curriculum, CMGems):
            return dataclasses.replace(curriculum, threshold=self.switch_threshold)
        return curriculum

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of update ``step`` (0-based)."""
        assert self.peak_lr is not None
        assert self.warmup_steps is not None
        assert self.max_steps is not None
        return learning_rate(step, peak=self.peak_lr, warmup_steps=self.warmup_steps, num_steps=self.max_steps)

    def check_processes(self, num_processes: int) -> None:
        """Raise ValueError if the rows of an update cannot be divided evenly among the processes."""
        rows = self.batch_rows or 0
        if rows % num_processes:
            below = rows // num_processes * num_processes
            raise ValueError(
                f"--batch-rows {rows} cannot be divided among {num_processes} processes; give"
                f" {f'{below} or ' if below else ''}{below + num_processes}"
            )

    def check_resumable(self, saved: dict[str, Any]) -> None:
        """Raise ValueError if an option that must not change differs from the checkpoint's run."""
        for field in FIXED_FOR_A_RUN:
            if field in saved and saved[field] != getattr(self, field):
                flag = "--" + field.replace("_", "-")
                raise ValueError(
                    f"the checkpoint was made with {flag} {saved[field]}, this run has {getattr(self, field)};"
                    f" give {flag} {saved[field]}, or begin a new run in another --output-dir"
                )

    def _check(self) -> None:
        for field in _AT_LEAST_1:
            if getattr(self, field) < 1:
                raise ValueError(f"--{field.replace('_', '-')} {getattr(self, field)}; give 1 or more")
        if self.peak_lr <= 0 or self.clip_norm <= 0:  # type: ignore[operator]
            raise ValueError(f"--peak-lr {self.peak_lr} and --clip-norm {self.clip_norm}; give numbers above 0")
        if self.mixed_precision not in (None, *_PRECISIONS):
            raise ValueError(f"--mixed-precision {self.mixed_precision!r} is unknown: use {', '.join(_PRECISIONS)}")
        if self.switch_on not in ("all", "mask"):
            raise ValueError(f"--switch-on {self.switch_on!r} is unknown: use all or mask")
        if self.loss_on not in ("masked", "hidden"):
            raise ValueError(f"--loss-on {self.loss_on!r} is unknown: use masked or hidden")
        if self.switch_lag <= (ahead := self.workers * _PREFETCHED):
            raise ValueError(
                f"--switch-lag {self.switch_lag}: --workers {self.workers} compute {ahead} batches ahead; give"
                f" {ahead + 1} or more"
            )
        for name in self.tracker:
            if name not in (known := [str(entry) for entry in get_available_trackers()]):
                raise ValueError(
                    f"--tracker {name} is unknown or not installed; installed are {', '.join(known) or 'none'}"
                )
        self.curriculum()
