"""Validation of a model on masked tokens, with the same rows and masks at every evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

import gemsdata as gd
from gemsdata.masking.strategies import Strategy
from train.masked_lm import IGNORED, TokenScores
from train.rows import TrainingRows
from train.token_bases import TokenBases

FROZEN_SEED = 20_240_807
"""seed of the rows and masks of every validation"""
KINDS = ("mask", "kept", "random")
"""input at a masked token: [MASK], the token itself, or a random one"""


@dataclass(frozen=True)
class Score:
    """Scores over some masked tokens."""

    loss: float
    """mean of -ln p(original token); NaN without tokens"""
    accuracy: float
    """fraction of tokens whose most probable token is the original"""
    num_tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite if that overflows."""
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
    tokens: TokenBases

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, num_rows: int) -> ValidationRows:
        """Return the first rows, at most ``num_rows``."""
        names = ("input_ids", "labels", "attention_mask")
        return ValidationRows(*(getattr(self, name)[:num_rows] for name in names), self.tokens)

    @property
    def original_ids(self) -> torch.Tensor:
        """The token ids before masking, int64[N, L]."""
        return torch.where(self.labels != IGNORED, self.labels, self.input_ids).long()

    def batches(self, accelerator: Accelerator, max_rows: int) -> Iterator[dict[str, torch.Tensor]]:
        """Yield this process's rows, at most ``max_rows`` at a time, without all-padding columns, int64[B, L].

        All processes get the same number of batches, as FSDP needs; rows without masked tokens fill up the batches of a
        process that has fewer.
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


def validation_rows(rows: TrainingRows, masking: str | Strategy, *, max_rows: int) -> ValidationRows:
    """Return ``max_rows`` random validation rows, or all if there are fewer, with frozen masks.

    Rows and masks do not depend on the micro-batch or on the number of processes. Raises ValueError if a shard set has
    no validation rows.
    """
    if not all(source.num_rows("valid") for source in rows.sources):
        raise ValueError(
            "a shard set has no validation rows, which a run needs; make it with --valid-fraction or --valid-contigs"
        )
    loader = gd.build_loader(
        rows.sources,
        split="valid",
        masking=masking,
        global_batch_size=min(max_rows, sum(source.num_rows("valid") for source in rows.sources)),
        num_steps=1,
        seed=FROZEN_SEED,
        remainder="wrap",
        world=gd.World(),
        device=None,
    )
    (batch,) = loader
    narrow = {name: values.to(torch.int32) for name, values in gd.model_inputs(batch).items()}
    return ValidationRows(**narrow, tokens=TokenBases.of(rows.tokens))


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
        found = model(**batch, with_bases=rows.tokens.kmers)
        kind = kinds_of(batch["input_ids"], batch["labels"], rows.tokens.mask_id)
        each = torch.stack([found.losses.double(), found.correct.double(), torch.ones_like(found.losses).double()], 1)
        totals.index_add_(0, kind, each)
        probabilities = hidden_bases(batch, base_probabilities(found, batch["labels"], rows.tokens), rows.tokens)
        bits += torch.stack([-probabilities.double().log2().sum(), bits.new_tensor(len(probabilities))])
    model.train(was_training)
    totals, bits = accelerator.reduce(totals, "sum").cpu(), accelerator.reduce(bits, "sum").cpu()
    return Evaluation(
        all=_score(totals.sum(0)),
        by_kind={name: _score(total) for name, total in zip(KINDS, totals, strict=True)},
        bits_per_base=float(bits[0] / bits[1]) if bits[1] else math.nan,
        num_hidden_bases=int(bits[1]),
    )


def kinds_of(input_ids: torch.Tensor, labels: torch.Tensor, mask_id: int) -> torch.Tensor:
    """Return the number in `KINDS` of each masked token, in order of rows and positions, int64[masked]."""
    masked = labels != IGNORED
    shown, original = input_ids[masked], labels[masked]
    kept = torch.where(shown == original, KINDS.index("kept"), KINDS.index("random"))
    return torch.where(shown == mask_id, KINDS.index("mask"), kept)


def base_probabilities(scores: TokenScores, labels: torch.Tensor, tokens: TokenBases) -> torch.Tensor:
    """Return the predicted probability of each base of the masked tokens, float[masked, longest token].

    For k-mers, the marginal of each base. For tokens that vary in length, which have no marginals, the token's
    probability is divided equally: each of n bases gets its n-th root, so that the sum of -log2 over the bases is that
    of the token.
    """
    if scores.base_probabilities is not None:
        return scores.base_probabilities
    length = tokens.length.to(labels.device)[labels[labels != IGNORED]].clamp_min(1)
    return torch.exp(-scores.losses / length)[:, None].expand(-1, tokens.longest)


def hidden_bases(batch: dict[str, torch.Tensor], base_probabilities: torch.Tensor, tokens: TokenBases) -> torch.Tensor:
    """Return the predicted probability of each hidden base, float[bases].

    A base is hidden if no unmasked or kept token covers it; its prediction is the mean over the [MASK] tokens that
    cover it. ``base_probabilities`` are float[masked, longest token].
    """
    input_ids, labels = batch["input_ids"], batch["labels"]
    masked = labels != IGNORED
    places, shown = tokens.shown(input_ids, labels, IGNORED)
    asked = (input_ids == tokens.mask_id)[masked][:, None] & (places[masked] >= 0)
    totals = torch.zeros(2, len(shown), dtype=torch.float64, device=labels.device)
    totals[0].index_add_(0, places[masked][asked], base_probabilities[asked].double())
    totals[1].index_add_(0, places[masked][asked], base_probabilities.new_ones(int(asked.sum())).double())
    hidden = (totals[1] > 0) & ~shown
    return (totals[0][hidden] / totals[1][hidden]).clamp_min(1e-30)


def _score(total: torch.Tensor) -> Score:
    loss_sum, num_correct, num_tokens = total.tolist()
    if not num_tokens:
        return Score(math.nan, math.nan, 0)
    return Score(loss_sum / num_tokens, num_correct / num_tokens, int(num_tokens))
