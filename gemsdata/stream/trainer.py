"""The Hugging Face Trainer over gemsdata loaders: training, evaluation, checkpoints and resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from gemsdata.files.publish import write_text
from gemsdata.stream.accelerate import prepare
from gemsdata.stream.loader import Loader
from gemsdata.stream.loss import masked_lm_loss
from gemsdata.stream.passes import restart, resume

_STATE_FILE = "stream.json"
"""file in a checkpoint's folder with the state of the training loader"""
_MODEL_INPUTS = ("input_ids", "attention_mask", "labels")


class LoaderTrainer(Trainer):
    """A `transformers.Trainer` whose datasets are gemsdata loaders.

    A checkpoint contains the state of the training loader, and a resumed run continues with the next batch. An
    evaluation always starts with the first batch of its loader. Batches with ``loss_weights`` use
    `gemsdata.masked_lm_loss`. During training an adaptive curriculum (CM-GEMS) observes the perplexity of every
    evaluation.

    Parameters
    ----------
    model
        a masked LM.
    args
        create them before the loaders: they start the process group, from which a loader gets its rank. The batch size
        is that of the loader; ``ignore_data_skip`` is set.
    train_dataset
        a loader from `gemsdata.build_loader`; with ``num_train_epochs`` it must have a length, which is one epoch.
    eval_dataset
        a loader with a length, or a dict of several.
    **options
        other parameters of the Trainer.
    """

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        *,
        train_dataset: Loader | None = None,
        eval_dataset: Loader | dict[str, Loader] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, args, train_dataset=train_dataset, eval_dataset=eval_dataset, **options)
        self.args.ignore_data_skip = True  # the loader resumes by itself: there is nothing to skip
        if train_dataset is not None:
            self.add_callback(_SaveState(train_dataset))

    def get_train_dataloader(self) -> Loader:  # noqa: D102
        return prepare(self.accelerator, self.train_dataset)

    def get_eval_dataloader(self, eval_dataset: str | Loader | None = None) -> Loader:  # noqa: D102
        chosen = self.eval_dataset if eval_dataset is None else eval_dataset
        loader = self.eval_dataset[chosen] if isinstance(chosen, str) else chosen
        loader = prepare(self.accelerator, loader)
        restart(loader)
        return loader

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """Train, or continue from a checkpoint (True: the last); raise ValueError if it has no state of a loader."""
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)
        if folder:
            path = Path(folder, _STATE_FILE)
            if not path.exists():
                raise ValueError(f"{folder} contains no {_STATE_FILE}: it was not written by a LoaderTrainer")
            resume(self.train_dataset, json.loads(path.read_text()))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Evaluate as the Trainer does; during training, report the perplexity to an adaptive curriculum."""
        found = super().evaluate(*arguments, **options)
        loss = found.get(f"{options.get('metric_key_prefix', 'eval')}_loss")
        adaptive = self.is_in_train and self.train_dataset.stream.config.curriculum.adaptive
        if adaptive and loss is not None:
            self.train_dataset.observe(math.exp(loss))
        return found

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch, the model's own or the weighted one."""
        own = {name: inputs[name] for name in _MODEL_INPUTS}
        if "loss_weights" not in inputs:
            return super().compute_loss(model, own, return_outputs, num_items_in_batch)
        self.loss_is_scaled_for_ga = (
            False  # a mean over this batch, which the Trainer divides by the number of batches per update
        )
        labels = own.pop("labels")
        outputs = model(**own)
        loss = masked_lm_loss(outputs.logits, {"labels": labels, "loss_weights": inputs["loss_weights"]})
        return (loss, {"loss": loss, **outputs}) if return_outputs else loss


class _SaveState(TrainerCallback):
    """Writes the state of the training loader beside every checkpoint."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            write_text(folder / _STATE_FILE, json.dumps(self.loader.state_dict()))
