"""Validation: the loss of masked tokens on rows and masks that are the same at every evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    """Scores of a model on the validation rows."""

    loss: float
    """mean over masked tokens of -ln p(original token)"""
    accuracy: float
    """fraction of masked tokens whose most probable token is the original"""
    num_masked: int

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(frozen=True)
class ValidationRows:
    """Masked validation rows; tensors [N, L] in narrow integers, the same on every process."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    attention_mask: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def targets(self) -> torch.Tensor:
        """The original ids of all masked tokens, in order of rows and positions, int64[masked]."""
        labels = self.labels.long()
        return labels[labels != -100]

    def batches(self, accelerator: Accelerator, max_rows: int) -> Iterator[dict[str, torch.Tensor]]:
        """Yield this process's rows, at most ``max_rows`` at a time, without columns of padding only, int64[B, L].

        All processes get the same number of batches, as FSDP needs; what a process has too few of are rows without
        masked tokens.
        """
        own = torch.arange(-(-len(self) // accelerator.num_processes)) * accelerator.num_processes
        own += accelerator.process_index
        own[own >= len(self)] = -1
        own = own[torch.argsort(self.attention_mask[own].sum(1), stable=True)]
        for chosen in own.split(max_rows):
            longest = int(self.attention_mask[chosen].sum(1).max())
            labels = torch.where(chosen[:, None] >= 0, self.labels[chosen, :longest], -100)
            batch = {"input_ids": self.input_ids[chosen, :longest], "labels": labels,
                     "attention_mask": self.attention_mask[chosen, :longest]}  # fmt: skip
            yield {name: values.long().to(accelerator.device) for name, values in batch.items()}


def validation_rows(shards: list[gd.ShardSet], masking: str | Strategy, *, max_rows: int) -> ValidationRows:
    """Return ``max_rows`` validation rows drawn once from all, or all where there are fewer, with frozen masks.

    Rows and masks depend on nothing else: not on the micro-batch, not on the number of processes. Raises ValueError
    when a shard set has no validation rows.
    """
    num_rows = min(max_rows, sum(entry.num_rows("valid") for entry in shards))
    if num_rows < 1 or not all(entry.num_rows("valid") for entry in shards):
        raise ValueError(
            "a shard set has no validation rows, which a run needs; make it with --valid-fraction or --valid-contigs"
        )
    loader = gd.build_loader(
        shards,
        split="valid",
        masking=masking,
        global_batch_size=num_rows,
        num_steps=1,
        seed=FROZEN_SEED,
        remainder="wrap",
        world=gd.World(),
        device=None,
    )
    (batch,) = loader
    narrow = {name: values.to(torch.int32) for name, values in gd.model_inputs(batch).items()}
    return ValidationRows(**narrow)


@torch.no_grad()
def evaluate(
    model: torch.nn.Module, rows: ValidationRows, accelerator: Accelerator, *, micro_batch_rows: int
) -> Evaluation:
    """Return the scores of ``model`` (a `MaskedLM`) on validation rows, computed by all processes together."""
    was_training = model.training
    model.eval()
    totals = torch.zeros(3, dtype=torch.float64, device=accelerator.device)
    for batch in rows.batches(accelerator, micro_batch_rows):
        loss_sum, num_correct = model(**batch)
        totals += torch.stack([loss_sum.double(), num_correct.double(), (batch["labels"] != -100).sum().double()])
    model.train(was_training)
    loss_sum, num_correct, num_masked = accelerator.reduce(totals, "sum").tolist()
    return Evaluation(loss=loss_sum / num_masked, accuracy=num_correct / num_masked, num_masked=int(num_masked))


def unigram_perplexity(shards: list[gd.ShardSet], rows: ValidationRows) -> float:
    """Return the perplexity of predicting the masked tokens of validation rows by token frequency alone.

    The frequencies are those of the genomes of the shard sets. NaN where an NPMI table lacks the order k.
    """
    k = shards[0].k
    counts = np.ones(4**k, np.float64)
    for entry in shards:
        if k not in entry.npmi.counts:
            return math.nan
        counts += entry.npmi.counts[k]
    surprise = np.log(counts.sum()) - np.log(counts)
    return math.exp(surprise[rows.targets.numpy() - NUM_SPECIAL].mean())
