"""BERT for masked LM in the papers' sizes, and its loss with nothing computed that the loss does not need.

Of `BertForMaskedLM`, which computes everything at every position, `MaskedLM` leaves out

* the vocabulary head at tokens that are not masked (86 % of them);
* in the last layer all but keys and values at tokens that are not masked;
* linear layers on padding.

The weights are those of the wrapped `BertForMaskedLM`, and so is the loss, within float tolerance.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM
from transformers.models.bert.modeling_bert import BertLayer
from transformers.utils import logging as transformers_logging

from gemsdata.genome.vocab import PAD_ID, vocab_size

_SIZES = {
    "logo": {
        "num_hidden_layers": 2,
        "hidden_size": 256,
        "num_attention_heads": 8,
        "intermediate_size": 3072,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "dnabert": {
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    },
    "small": {
        "num_hidden_layers": 2,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "smoke": {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    },
}


def model_names() -> list[str]:
    """Return the names of all model sizes."""
    return list(_SIZES)


def build_model(name: str, *, k: int = 6, max_positions: int = 512) -> BertForMaskedLM:
    """Return a model of a named size with random weights from torch's global generator.

    Parameters
    ----------
    name
        "logo" (4.93 M parameters at k = 6), "dnabert" (89.2 M), "small" (for comparisons on a few cores), or "smoke"
        (for tests).
    k
        bases of a token; the vocabulary has 4**k + 5 ids.
    max_positions
        longest row in tokens, [CLS] and [SEP] included.
    """
    if name not in _SIZES:
        raise ValueError(f"model {name!r} is unknown: use one of {', '.join(_SIZES)}")
    config = BertConfig(
        vocab_size=vocab_size(k),
        max_position_embeddings=max_positions,
        pad_token_id=PAD_ID,
        attn_implementation="sdpa",
        **_SIZES[name],
    )
    return BertForMaskedLM(config)


def load_model(folder: str | Path, *, k: int, max_positions: int) -> BertForMaskedLM:
    """Load a Hugging Face checkpoint of a BERT with a masked-LM head; raise ValueError when it does not fit the rows.

    Takes DNABERT's published checkpoints too: their extra keys (pooler, next-sentence head) are left out.
    """
    if not (Path(folder) / "config.json").exists():
        raise ValueError(f"{folder} is no Hugging Face model folder (it has no config.json); give one, or --model")
    config = BertConfig.from_pretrained(folder)
    if config.vocab_size != vocab_size(k):
        raise ValueError(
            f"{folder} has {config.vocab_size} token ids, the shards' k = {k} needs {vocab_size(k)}; make shards with"
            f" the model's k, or start from another checkpoint"
        )
    if config.max_position_embeddings < max_positions:
        raise ValueError(
            f"{folder} takes {config.max_position_embeddings} positions, the shards' rows need {max_positions};"
            f" make shards with --row-tokens {config.max_position_embeddings - 2}"
        )
    with quiet_loading():
        model, report = BertForMaskedLM.from_pretrained(
            folder, config=config, attn_implementation="sdpa", dtype=torch.float32, output_loading_info=True
        )
    if report["missing_keys"]:
        raise ValueError(
            f"{folder} lacks {len(report['missing_keys'])} of the model's tensors ({min(report['missing_keys'])}, ...);"
            " give a checkpoint of a BERT with a masked-LM head"
        )
    return model


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers from drawing bars and listing weights that are left out or new."""
    verbosity, with_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if with_bars:
            transformers_logging.enable_progress_bar()


class MaskedLM(nn.Module):
    """The masked-LM loss of a `BertForMaskedLM`.

    ``forward(input_ids, attention_mask, labels)`` takes int64[B, L] each, labels -100 where nothing is to be guessed,
    and returns (sum of the loss over masked tokens, how many of them are guessed right).

    Parameters
    ----------
    bert
        whose weights are used and trained.
    compiled
        compile what follows once it is known which positions matter, for any number of them.
    """

    def __init__(self, bert: BertForMaskedLM, *, compiled: bool = False) -> None:
        super().__init__()
        self.model = bert
        self._run = torch.compile(self._loss, dynamic=True) if compiled else self._loss

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (loss sum, number of correct guesses); see the class."""
        real = attention_mask.bool()
        padded = not bool(real.all())
        rows, positions = torch.nonzero(labels != -100, as_tuple=True)
        per_row = torch.bincount(rows, minlength=len(labels))
        slots = torch.arange(len(rows), device=rows.device) - (per_row.cumsum(0) - per_row)[rows]
        return self._run(
            input_ids,
            labels[rows, positions],
            (rows, positions, slots),
            max(1, int(per_row.max())),
            real[:, None, None, :] if padded else None,
            torch.nonzero(real.flatten()).squeeze(1) if padded else None,
        )

    def _loss(
        self,
        input_ids: torch.Tensor,
        targets: torch.Tensor,
        masked: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        most_per_row: int,
        keys_seen: torch.Tensor | None,
        tokens: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (loss sum, number of correct guesses).

        ``masked`` is (row, position, number within the row) of each masked token, in order of rows; ``keys_seen`` and
        ``tokens`` (flat indices) say what is not padding, None where nothing is.
        """
        hidden = self.model.bert.embeddings(input_ids=input_ids)
        *lower, last = self.model.bert.encoder.layer
        for layer in lower:
            hidden = _layer(layer, hidden, keys_seen, tokens)
        scores = self.model.cls(_layer_at(last, hidden, keys_seen, masked, most_per_row)).float()
        return functional.cross_entropy(scores, targets, reduction="sum"), (scores.argmax(-1) == targets).sum()


def _layer(
    layer: BertLayer, hidden: torch.Tensor, keys_seen: torch.Tensor | None, tokens: torch.Tensor | None
) -> torch.Tensor:
    """Run a layer on hidden[B, L, H]; its feed-forward half only at the flat indices ``tokens``, when given."""
    attention = layer.attention.self
    query, key, value = (_heads(part(hidden), attention) for part in (attention.query, attention.key, attention.value))
    context = _attend(layer, query, key, value, keys_seen)
    if tokens is None:
        return _rest(layer, context, hidden)
    flat = hidden.flatten(0, 1)
    new = _rest(layer, context.flatten(0, 1)[tokens], flat[tokens])
    return torch.zeros(flat.shape, dtype=new.dtype, device=new.device).index_copy(0, tokens, new).view(hidden.shape)


def _layer_at(
    layer: BertLayer,
    hidden: torch.Tensor,
    keys_seen: torch.Tensor | None,
    masked: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    most_per_row: int,
) -> torch.Tensor:
    """Run a layer at some places of hidden[B, L, H] only; return [places, H]."""
    attention = layer.attention.self
    rows, positions, slots = masked
    here = hidden[rows, positions]
    query = attention.query(here)
    queries = torch.zeros((len(hidden), most_per_row, query.shape[-1]), dtype=query.dtype, device=query.device)
    queries = queries.index_put((rows, slots), query)
    key, value = (_heads(part(hidden), attention) for part in (attention.key, attention.value))
    context = _attend(layer, _heads(queries, attention), key, value, keys_seen)
    return _rest(layer, context[rows, slots], here)


def _heads(projected: torch.Tensor, attention: nn.Module) -> torch.Tensor:
    """[B, L, H] -> [B, heads, L, H / heads]."""
    return projected.unflatten(-1, (attention.num_attention_heads, attention.attention_head_size)).transpose(1, 2)


def _attend(
    layer: BertLayer, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, keys_seen: torch.Tensor | None
) -> torch.Tensor:
    dropout = layer.attention.self.dropout.p if layer.training else 0.0
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=keys_seen, dropout_p=dropout)
    return context.transpose(1, 2).flatten(2)


def _rest(layer: BertLayer, context: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    attended = layer.attention.output(context, residual)
    return layer.output(layer.intermediate(attended), attended)
