"""Validation: the perplexity of masked tokens, under masks that are the same at every evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

import gemsdata as gd
from gemsdata.genome.vocab import NUM_SPECIAL
from gemsdata.masking.strategies import Strategy

FROZEN_SEED = 20_240_807
"""of the rows and masks of every validation"""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model makes of the validation rows."""

    loss: float
    """mean over masked tokens of -ln p(original token)"""
    accuracy: float
    """share of masked tokens that are guessed right"""
    num_masked: int

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


def validation_loader(
    shards: list[gd.ShardSet], masking: str | Strategy, *, max_rows: int, batch_rows: int, accelerator: Accelerator
) -> gd.Loader:
    """Return a loader of the same validation rows with the same masks whenever it is iterated.

    ``max_rows`` rows (rounded up to whole batches), drawn once from all; fewer where there are fewer. Raises ValueError
    when a shard set has no validation rows.
    """
    num_rows = min(max_rows, sum(entry.num_rows("valid") for entry in shards))
    if num_rows < 1 or not all(entry.num_rows("valid") for entry in shards):
        raise ValueError(
            "a shard set has no validation rows, which a run needs; make it with --valid-fraction or --valid-contigs"
        )
    one = len(shards) == 1
    batch_rows = max(batch_rows, accelerator.num_processes)
    return gd.build_loader(
        shards,
        split="valid",
        masking=masking,
        global_batch_size=batch_rows,
        num_steps=-(-num_rows // batch_rows),
        seed=FROZEN_SEED,
        remainder="pad" if one else "wrap",
        device=accelerator.device,
    )


@torch.no_grad()
def evaluate(model: torch.nn.Module, loader: gd.Loader, accelerator: Accelerator) -> Evaluation:
    """Return the loss of ``model`` (a `MaskedLM`) over a validation loader, all processes together."""
    was_training = model.training
    model.eval()
    totals = torch.zeros(3, dtype=torch.float64, device=accelerator.device)
    for batch in loader:
        loss_sum, num_correct = model(**gd.model_inputs(batch))
        totals += torch.stack([loss_sum.double(), num_correct.double(), (batch["labels"] != -100).sum().double()])
    model.train(was_training)
    loss_sum, num_correct, num_masked = accelerator.reduce(totals, "sum").tolist()
    return Evaluation(loss=loss_sum / num_masked, accuracy=num_correct / num_masked, num_masked=int(num_masked))


def unigram_perplexity(shards: list[gd.ShardSet], loader: gd.Loader, accelerator: Accelerator) -> float:
    """Return the perplexity of guessing the masked tokens of a validation loader by token frequency alone.

    The frequencies are those of the genomes that the shard sets were made of: what a model knows that has learned
    nothing of the context.
    """
    k = shards[0].k
    counts = np.ones(4**k, np.float64)
    for entry in shards:
        if k not in entry.npmi.counts:
            return math.nan  # a table brought along by --npmi may lack this order
        counts += entry.npmi.counts[k]
    surprise = torch.from_numpy(np.log(counts.sum()) - np.log(counts)).to(accelerator.device)
    totals = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    for batch in loader:
        labels = batch["labels"]
        masked = labels[labels >= NUM_SPECIAL] - NUM_SPECIAL
        totals += torch.stack([surprise[masked].sum(), torch.tensor(float(masked.numel()), device=surprise.device)])
    surprise_sum, num_masked = accelerator.reduce(totals, "sum").tolist()
    return math.exp(surprise_sum / num_masked)
