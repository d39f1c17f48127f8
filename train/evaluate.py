"""Validation: how a model predicts masked tokens, on rows and masks that are the same at every evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

import gemsdata as gd
from gemsdata.genome.vocab import MASK_ID, NUM_SPECIAL
from gemsdata.masking.strategies import Strategy
from train.masked_lm import IGNORED

FROZEN_SEED = 20_240_807
"""of the rows and masks of every validation"""
KINDS = ("mask", "kept", "random")
"""what the model is shown at a masked token: [MASK], the token itself, or a random one"""


@dataclass(frozen=True)
class Score:
    """Scores over some masked tokens."""

    loss: float
    """mean of -ln p(original token); NaN of no tokens"""
    accuracy: float
    """fraction of tokens whose most probable token is the original"""
    num_tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that overflows."""
        return math.exp(self.loss) if not self.loss >= 700 else math.inf


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of a model on the validation rows."""

    all: Score
    by_kind: dict[str, Score]
    """of the tokens shown as [MASK] ("mask"), as themselves ("kept"), and as a random token ("random")"""
    bits_per_base: float
    """mean of -log2 p over hidden bases; see `hidden_bases`"""
    num_hidden_bases: int

    def as_log(self) -> dict[str, Any]:
        """Return the values for metrics.jsonl."""
        out = {
            "valid_loss": self.all.loss,
            "valid_perplexity": self.all.perplexity,
            "valid_accuracy": self.all.accuracy,
            "valid_bits_per_base": self.bits_per_base,
        }
        for kind, score in self.by_kind.items():
            out |= {f"valid_loss_{kind}": score.loss, f"valid_accuracy_{kind}": score.accuracy}
        return out


@dataclass(frozen=True)
class ValidationRows:
    """Masked validation rows; tensors [N, L] in narrow integers, the same on every process."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    attention_mask: torch.Tensor
    k: int
    """bases of a token"""

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, num_rows: int) -> ValidationRows:
        """Return the first rows, at most ``num_rows``."""
        names = ("input_ids", "labels", "attention_mask")
        return ValidationRows(*(getattr(self, name)[:num_rows] for name in names), self.k)

    @property
    def original_ids(self) -> torch.Tensor:
        """The token ids before masking, int64[N, L]."""
        return torch.where(self.labels != IGNORED, self.labels, self.input_ids).long()

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
            batch = {
                "input_ids": self.input_ids[chosen, :longest],
                "labels": torch.where(chosen[:, None] >= 0, self.labels[chosen, :longest], IGNORED),
                "attention_mask": self.attention_mask[chosen, :longest],
            }
            yield {name: values.long().to(accelerator.device) for name, values in batch.items()}


def validation_rows(shards: list[gd.ShardSet], masking: str | Strategy, *, max_rows: int) -> ValidationRows:
    """Return ``max_rows`` validation rows drawn once from all, or all where there are fewer, with frozen masks.

    Rows and masks depend on nothing else: not on the micro-batch, not on the number of processes. Raises ValueError
    when a shard set has no validation rows.
    """
    if not all(entry.num_rows("valid") for entry in shards):
        raise ValueError(
            "a shard set has no validation rows, which a run needs; make it with --valid-fraction or --valid-contigs"
        )
    num_rows = min(max_rows, sum(entry.num_rows("valid") for entry in shards))
    return masked_rows(shards, "valid", masking, num_rows=num_rows)


def masked_rows(
    shards: list[gd.ShardSet], split: str, masking: str | Strategy, *, num_rows: int, seed: int = FROZEN_SEED
) -> ValidationRows:
    """Return ``num_rows`` rows of a split, drawn and masked with ``seed``."""
    loader = gd.build_loader(
        shards,
        split=split,
        masking=masking,
        global_batch_size=num_rows,
        num_steps=1,
        seed=seed,
        remainder="wrap",
        world=gd.World(),
        device=None,
    )
    (batch,) = loader
    narrow = {name: values.to(torch.int32) for name, values in gd.model_inputs(batch).items()}
    return ValidationRows(**narrow, k=shards[0].k)


@torch.no_grad()
def evaluate(
    model: torch.nn.Module, rows: ValidationRows, accelerator: Accelerator, *, micro_batch_rows: int
) -> Evaluation:
    """Return the scores of ``model`` (a `MaskedLM`) on validation rows, computed by all processes together."""
    was_training = model.training
    model.eval()
    totals = torch.zeros(len(KINDS), 3, dtype=torch.float64, device=accelerator.device)
    bits = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    for batch in rows.batches(accelerator, micro_batch_rows):
        found = model(**batch, with_bases=True)
        kind = kinds_of(batch["input_ids"], batch["labels"])
        each = torch.stack([found.losses.double(), found.correct.double(), torch.ones_like(found.losses).double()], 1)
        totals.index_add_(0, kind, each)
        probabilities = hidden_bases(batch, found.base_probabilities)
        bits += torch.stack([-probabilities.double().log2().sum(), bits.new_tensor(len(probabilities))])
    model.train(was_training)
    totals, bits = accelerator.reduce(totals, "sum").cpu(), accelerator.reduce(bits, "sum").cpu()
    return Evaluation(
        all=_score(totals.sum(0)),
        by_kind={name: _score(total) for name, total in zip(KINDS, totals, strict=True)},
        bits_per_base=float(bits[0] / bits[1]) if bits[1] else math.nan,
        num_hidden_bases=int(bits[1]),
    )


def kinds_of(input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the number in `KINDS` of each masked token, in order of rows and positions, int64[masked]."""
    masked = labels != IGNORED
    shown, original = input_ids[masked], labels[masked]
    kept = torch.where(shown == original, KINDS.index("kept"), KINDS.index("random"))
    return torch.where(shown == MASK_ID, KINDS.index("mask"), kept)


def hidden_bases(batch: dict[str, torch.Tensor], base_probabilities: torch.Tensor) -> torch.Tensor:
    """Return the predicted probability of each hidden base, float[bases].

    A base is hidden when no token shows it that is unmasked or kept; it is predicted by the mean over the [MASK] tokens
    that cover it. ``base_probabilities`` float[masked, k] are those of `MaskedLM`. Tokens are k-mers at stride 1.
    """
    input_ids, labels = batch["input_ids"], batch["labels"]
    k = base_probabilities.shape[1]
    rows, positions = torch.nonzero(labels != IGNORED, as_tuple=True)
    shows = (input_ids >= NUM_SPECIAL) & ((labels == IGNORED) | (input_ids == labels))
    offsets = torch.arange(k, device=input_ids.device)
    size = (len(labels), labels.shape[1] + k)
    shown = torch.zeros(size, dtype=torch.bool, device=input_ids.device)
    for offset in range(k):
        shown[:, offset : offset + labels.shape[1]] |= shows
    asked = input_ids[rows, positions] == MASK_ID
    flat = (rows[:, None] * size[1] + positions[:, None] + offsets)[asked].flatten()
    totals = torch.zeros(2, size[0] * size[1], dtype=torch.float64, device=input_ids.device)
    totals[0].index_add_(0, flat, base_probabilities[asked].flatten().double())
    totals[1].index_add_(0, flat, torch.ones_like(flat, dtype=torch.float64))
    hidden = (totals[1] > 0) & ~shown.flatten()
    return (totals[0][hidden] / totals[1][hidden]).clamp_min(1e-30)


def _score(total: torch.Tensor) -> Score:
    loss_sum, num_correct, num_tokens = total.tolist()
    if not num_tokens:
        return Score(math.nan, math.nan, 0)
    return Score(loss_sum / num_tokens, num_correct / num_tokens, int(num_tokens))
